"""Small grammar for captions, and the words that only a truth may put into one.

A caption is glue, chosen by seed, around phrases that stand verbatim in the truth's ``attributes``.
``unproven`` checks it: without those phrases nothing of ``CLAIMS`` may be left.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data.worlds.palette import COLOURS, PATTERNS
from data.worlds.render.setting import SKIES
from data.worlds.truth import Track

# Objects of which a caption says what they do and where, and those it only names: few enough to
# keep captions near 60 words.
MAX_NAMED, MAX_ALSO = 2, 1
# Words that state a fact of a scene, beside colours and patterns. Glue must not use them.
FACT_WORDS = """
pale dark dim bright warm cool white small large tiny left right middle foreground background
box ball cylinder cone robot crate block wall screen tower pieces soldier demon skull beast barrel
stands still bounces spins circle slides jumps walks rests rolls falls breaks hits behind reappears
orbits pans pushes pulls rises sideways runs turning steps forward backward corridor hall lamp
grass sand stone water tree trees coal iron lava path cow zombie skeleton sapling table
chops drinks eats mines places fights sleeps night day dusk
"""
CLAIMS = frozenset([*COLOURS, *PATTERNS, *FACT_WORDS.split()])


def article(phrase: str) -> str:
    """Put the indefinite article before a phrase."""
    return f"{'an' if phrase[0].lower() in 'aeio' else 'a'} {phrase}"


def listing(items: Sequence[str]) -> str:
    """Join items with commas and a last 'and'."""
    return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else "".join(items)


def introduce(names: Sequence[str]) -> list[str]:
    """Put articles before names; the second of a kind is another."""
    return [
        f"another {name}" if name in names[:number] else article(name)
        for number, name in enumerate(names)
    ]


def upper(text: str) -> str:
    """Raise the first letter."""
    return text[:1].upper() + text[1:]


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """Choose one of several ways to say the same."""
    return options[int(rng.integers(len(options)))]


def place_of(track: Track, width: int, stop: int | None = None) -> str:
    """Say where an object is on average over the frames (up to ``stop``) that show it."""
    middles = [
        (box[0] + box[2]) / 2 / width
        for index, box in enumerate(track.boxes[:stop])
        if box is not None and track.seen(index)
    ]
    mean = float(np.mean(middles)) if middles else 0.5
    return "on the left" if mean < 0.36 else "on the right" if mean > 0.64 else "in the middle"


def prominent(tracks: Sequence[Track], height: int, width: int) -> list[Track]:
    """Return the objects that can be seen, the subject first, then by the area they show."""

    def shown(track: Track) -> float:
        total = 0.0
        for index, box in enumerate(track.boxes):
            if box is not None and track.seen(index):
                area = (box[2] - box[0]) * (box[3] - box[1])
                total += area * track.shown(index)
        return total / (height * width * len(track.boxes))

    # Under four pixels in five thousand nobody could tell what it is.
    seen = [track for track in tracks if shown(track) > 8e-4]
    return sorted(seen, key=lambda track: (not track.subject, -shown(track), track.id))


def phrases(attributes: dict[str, Any]) -> list[str]:
    """Return all phrases of the attributes, the longest first."""
    found = {
        item
        for value in attributes.values()
        for item in (value if isinstance(value, list) else [value])
    }
    return sorted((item.lower() for item in found if item), key=lambda item: (-len(item), item))


def unproven(caption: str, attributes: dict[str, Any]) -> list[str]:
    """Return the words of a caption that claim what no attribute says."""
    text = caption.lower()
    for phrase in phrases(attributes):
        text = re.sub(rf"\b{re.escape(phrase)}\b", " ", text)
    return [word for word in re.findall(r"[a-z-]+", text) if word in CLAIMS]


STYLE = "3-D rendering"


SKY_SHARE = 0.03  # of the picture, before a caption speaks of the sky


def surface_words(pattern: str, colours: tuple[str, str]) -> str:
    """Name a surface: a plain one by its colour, others by both colours and the pattern."""
    return colours[0] if pattern == "plain" else f"{colours[0]} and {colours[1]} {pattern}"


def sky_share(frames: UInt8[np.ndarray, "F H W 3"], sky: str) -> float:
    """Return the share of the picture that is sky: nothing else has exactly its colour."""
    colour = np.round(np.array(SKIES[sky]) * 255)
    low, high = (np.clip(colour + step, 0, 255).astype(np.uint8) for step in (-1, 1))
    return float(((frames >= low) & (frames <= high)).all(-1).mean())


def also_words(attributes: dict[str, str | list[str]], rng: np.random.Generator) -> str:
    """End a sentence with the objects that are only named."""
    names = listing([article(name) for name in attributes["also"]])
    if not names:
        return "."
    return pick(rng, [f"; there is also {names}.", f", and {names} is there too."])


def camera_words(cameras: list[str], light: str, rng: np.random.Generator) -> str:
    """Say what the camera does, or what each of several does."""
    lit = pick(rng, [f"in {light} light", f"with {light} light"])
    if len(cameras) == 1:
        return pick(
            rng,
            [
                f"The camera {cameras[0]} {lit}.",
                f"The light is {light} while the camera {cameras[0]}.",
                f"In {light} light the camera {cameras[0]}.",
            ],
        )
    first = pick(rng, [f"First the camera {cameras[0]}", f"The camera {cameras[0]} at first"])
    rest = [
        pick(
            rng,
            [
                f"cut to a view where it {words}",
                f"cut to a new angle where it {words}",
                f"cut to another place where it {words}",
            ],
        )
        for words in cameras[1:]
    ]
    return f"{first}, then {', then '.join(rest)}, {lit}."
