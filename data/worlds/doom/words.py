"""Captions of the first-person walks: from measured poses, depth, light and labels."""

import math
import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from data.worlds.truth import Track
from data.worlds.words import (
    MAX_NAMED,
    article,
    introduce,
    listing,
    pick,
    place_of,
    prominent,
    upper,
)

STILL = "stands still"
STYLE = "computer game"
STEP_UNITS = 20  # a change of height that is a flight of steps, not a bump


@dataclass
class Pose:
    """Where the player stands: map units and degrees counter-clockwise."""

    x: float
    y: float
    angle: float


def measured_turn(poses: list[Pose]) -> float:
    """Return the total turn in degrees, positive to the left."""
    return sum((b.angle - a.angle + 180) % 360 - 180 for a, b in pairwise(poses))


def motion_words(poses: list[Pose], seconds: float) -> str:
    """Say how the player moved, from measured poses (32 map units are about a metre)."""
    turn = measured_turn(poses)
    ahead = aside = 0.0
    for a, b in pairwise(poses):
        heading = math.radians(a.angle)
        dx, dy = b.x - a.x, b.y - a.y
        ahead += dx * math.cos(heading) + dy * math.sin(heading)
        aside += dx * math.sin(heading) - dy * math.cos(heading)
    speed = math.hypot(ahead, aside) / max(seconds, 1e-6)
    side = "left" if turn > 0 else "right"
    turning = f"{side} by about {max(1, round(abs(turn) / 10)) * 10} degrees"
    pace = "slowly" if speed < 120 else "at a walk" if speed < 320 else "at a run"
    if speed < 25:
        return f"turns {turning}" if abs(turn) >= 5 else STILL
    if abs(ahead) >= abs(aside):
        moving = f"moves {'forward' if ahead > 0 else 'backward'} {pace}"
    else:
        moving = f"steps sideways to the {'right' if aside > 0 else 'left'} {pace}"
    return f"{moving} while turning {turning}" if abs(turn) >= 5 else moving


def height_words(cameras: list[list[float]]) -> str:
    """Say whether the way led up or down."""
    rise = cameras[-1][2] - cameras[0][2]
    return "" if abs(rise) < STEP_UNITS else "climbs up" if rise > 0 else "goes down"


def light_words(frames: np.ndarray) -> str:
    """Name how bright the picture is on average."""
    mean = float(frames.mean())
    return "dark" if mean < 35 else "dim" if mean < 65 else "bright"


def describe(
    tracks: list[Track],
    motion: str,
    rise: str,
    depth: float,
    frames: np.ndarray,
    rng: np.random.Generator,
) -> tuple[dict[str, str | list[str]], str, str]:
    """Return a clip's attributes, its dense caption and its short one."""
    height, width = frames.shape[1:3]
    place = "narrow corner" if depth < 12 else "room" if depth < 35 else "open space"
    seen = prominent(tracks, height, width)
    named = seen[: MAX_NAMED + 1]
    attributes: dict[str, str | list[str]] = {
        "objects": [track.name() for track in seen],
        "named": [track.name() for track in named],
        "places": [place_of(track, width) for track in named],
        "events": [rise] if rise else [],
        "light": light_words(frames),
        "camera": motion,
        "move": re.sub(r" (at a|slowly| while| by about).*", "", motion),
        "style": STYLE,
        "place": place,
    }
    short = (
        f"{introduce([named[0].name()])[0]} in {article(place)}"
        if named
        else f"the player {attributes['move']} in {article(place)}"
    )
    return attributes, dense_caption(attributes, rng), short


def dense_caption(attributes: dict[str, str | list[str]], rng: np.random.Generator) -> str:
    """Write the sentences: the view, the way, the place and who is in it."""
    a = attributes
    way = listing([str(a["camera"]), *a["events"]])
    style = pick(
        rng,
        [
            f"A first-person view in a {a['style']} with coarse pixels.",
            f"This {a['style']} with coarse pixels is seen in first person.",
            f"Seen through the player's eyes in a {a['style']} with coarse pixels.",
        ],
    )
    moves = pick(
        rng,
        [
            f"The player {way} in {article(str(a['place']))}, and the light is {a['light']}.",
            f"In {article(str(a['place']))} with {a['light']} light the player {way}.",
            f"The light is {a['light']} and the player {way} in {article(str(a['place']))}.",
        ],
    )
    names = introduce([*a["named"]])
    spots = [f"{name} {where}" for name, where in zip(names, a["places"], strict=True)]
    seen = pick(rng, [f"There is {listing(spots)} of the picture.", f"We see {listing(spots)}."])
    nobody = pick(rng, ["Nobody else is in view.", "The place is empty of figures."])
    others = upper(seen) if spots else nobody
    return " ".join([style, moves, others] if rng.random() < 0.6 else [moves, others, style])
