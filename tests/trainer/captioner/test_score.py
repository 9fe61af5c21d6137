"""Captions read back exactly, and scores that are right for captions whose faults are known."""

from typing import Any

import numpy as np
import pytest

from data.worlds.words import surface_words
from trainer.captioner.parse import ATTRIBUTES, Lexicon, Stated
from trainer.captioner.score import invented, majority, recall, share, table, tally

words = pytest.importorskip("data.worlds.words", reason="panda3d is not installed")
from data.worlds.craft import words as craft_words  # noqa: E402
from data.worlds.palette import COLOURS, PATTERNS  # noqa: E402
from data.worlds.physics import words as physics_words  # noqa: E402
from data.worlds.render.setting import CAMERA_WORDS, LIGHT_NAMES, SKIES  # noqa: E402
from data.worlds.rooms import words as room_words  # noqa: E402
from data.worlds.rooms.room import KINDS  # noqa: E402

CAMERAS = [w.format(side=side) for w in CAMERA_WORDS.values() for side in ("left", "right")]
PLACES = ["on the left", "in the middle", "on the right"]


def draw_objects(rng: np.random.Generator, kinds: list[str], count: int) -> list[dict[str, str]]:
    """Draw objects of different colours, as tracks."""
    colours = rng.choice(list(COLOURS), count, replace=False).tolist()
    return [
        {"kind": str(rng.choice(kinds)), "colour": c, "size": str(rng.choice(["small", "large"]))}
        for c in colours
    ]


def surface(rng: np.random.Generator) -> str:
    return surface_words(
        str(rng.choice(PATTERNS)), tuple(rng.choice(list(COLOURS), 2, replace=False).tolist())
    )


def draw_rendering(world: str, rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    """Draw the truth of a rendered scene (rooms or physics) and let the world describe it."""
    kinds = [*KINDS, "robot"] if world == "rooms" else ["ball", "crate", "block", "wall"]
    tracks = draw_objects(rng, kinds, int(rng.integers(0, 6)))
    names = [f"{t['size']} {t['colour']} {t['kind']}" for t in tracks]
    shots = int(rng.integers(1, 3))
    named = names[: words.MAX_NAMED + 1 - shots]
    motions = room_words.MOTIONS.values() if world == "rooms" else ["rolls away", "falls down"]
    attributes: dict[str, Any] = {
        "objects": names,
        "named": named,
        "actions": [str(rng.choice(list(motions))) for _ in named],
        "places": [str(rng.choice(PLACES)) for _ in named],
        "also": names[len(named) : len(named) + 1],
        "events": [],
        "floor": surface(rng),
        "light": str(rng.choice(list(LIGHT_NAMES))),
        "camera": [str(c) for c in rng.choice(CAMERAS, shots)],
        "style": "3-D rendering",
    }
    if rng.random() < 0.5:
        attributes["sky"] = str(rng.choice(list(SKIES)))
    if world == "rooms":
        attributes["wall"] = surface(rng)
        return {"world": world, "objects": tracks, "attributes": attributes}, (
            room_words.dense_caption(attributes, rng)
        )
    if named and rng.random() < 0.6:
        attributes["events"] = ["breaks into pieces", f"hits the {named[-1]}"]
    caption = physics_words.dense_caption(attributes, rng)
    return {"world": world, "objects": tracks, "attributes": attributes}, caption


def draw_craft(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    """Draw the truth of a clip of the game of tiles and let the world describe it."""
    tracks = [{"kind": "figure", "colour": "", "size": "small"}]
    others = ["cow", "zombie", "skeleton", "zombie"]
    count = int(rng.integers(0, 3))
    tracks += [{"kind": k, "colour": "", "size": ""} for k in rng.choice(others, count).tolist()]
    names = [f"{t['size']} {t['kind']}".strip() for t in tracks]
    around = [str(a) for a in rng.permutation(list(craft_words.AROUND.values()))[:3]]
    moves = ["stands still", "walks up", "walks to the left"]
    events = [str(e) for e in rng.permutation(["eats a cow", "chops a tree", "sleeps"])]
    attributes = {
        "objects": names,
        "named": names,
        "actions": [str(rng.choice(moves)) for _ in names],
        "places": [str(rng.choice(PLACES)) for _ in names],
        "events": events[: rng.integers(0, 3)],
        "floor": around[0],
        "around": around[1:],
        "light": str(rng.choice(["day", "dusk", "night"])),
        "camera": craft_words.CAMERA,
        "style": "pixel game",
    }
    truth = {"world": "craft", "objects": tracks, "attributes": attributes}
    return truth, craft_words.dense_caption(attributes, rng)


def draw(world: str, count: int) -> list[tuple[dict[str, Any], str]]:
    rng = np.random.default_rng([7, *world.encode()])
    make = draw_craft if world == "craft" else lambda r: draw_rendering(world, r)
    return [make(rng) for _ in range(count)]


def listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("world", ["rooms", "physics", "craft"])
def test_true_captions_give_back_their_attributes_exactly(world: str) -> None:
    clips = draw(world, 200)
    lexicon = Lexicon.of(truth for truth, _ in clips)
    for truth, caption in clips:
        stated, true = lexicon.read(caption), truth["attributes"]
        # Physics speaks of the others only where there are any beside the subject.
        also = true.get("also", []) if world == "rooms" or len(true["named"]) > 1 else []
        assert stated["objects"] == true["named"] + (also if true["named"] else []), caption
        for name in ("actions", "events", "floor", "wall", "sky", "around", "light", "style"):
            assert stated[name] == [v.lower() for v in listed(true.get(name, []))], (name, caption)
        assert stated["camera"] == listed(true["camera"]), caption
        # Where its course is told, the place of the subject is not.
        assert stated["places"] in (true["places"], true["places"][1:]), caption


def read(caption: str) -> Stated:
    tracks = [
        {"kind": "ball", "colour": "red", "size": "small"},
        {"kind": "box", "colour": "blue", "size": "large"},
    ]
    attributes = {
        "actions": ["spins in place", "stands still"],
        "places": PLACES,
        "floor": "red",
        "wall": "blue and red tiled",
        "light": "warm",
        "camera": ["pushes in", "pans to the left"],
        "style": "3-D rendering",
    }
    return Lexicon.of([{"objects": tracks, "attributes": attributes}]).read(caption)


TRUE = (
    "A small red ball on the left spins in place. The room has a red floor and blue and red tiled "
    "walls. The camera pushes in in warm light. A 3-D rendering."
)


def test_colours_of_things_and_of_surfaces_are_told_apart() -> None:
    stated = read(TRUE)
    assert stated["objects"] == ["small red ball"]
    assert stated["colours"] == ["red"]
    assert stated["floor"] == ["red"]
    assert stated["wall"] == ["blue and red tiled"]
    assert read("A red camera on warm walls spins the floor.") == {name: [] for name in ATTRIBUTES}
    assert read("another large red box")["objects"] == ["large red box"]  # no track has that name


def score(caption: str, seen: list[str]) -> Any:
    visible = {name: [] for name in ATTRIBUTES}
    visible |= {"objects": seen, "kinds": [name.split()[-1] for name in seen]}
    return tally("s", "rooms", read(caption), read(TRUE), visible)


def test_right_missing_and_invented_are_counted() -> None:
    perfect = score(TRUE, ["small red ball"])
    assert recall([perfect]).value == 1
    assert invented([perfect], "objects").value == 0
    wrong = score(
        "A large blue box on the left spins in place and a small red ball stands still. The room "
        "has a red floor and red walls.",
        ["small red ball", "small blue box"],
    )
    assert wrong.right["objects"] == wrong.right["floor"] == wrong.right["places"] == 1
    assert wrong.right["camera"] == wrong.right["wall"] == wrong.right["light"] == 0
    assert invented([wrong], "objects").value == 0.5
    assert invented([wrong], "kinds").value == 0
    assert invented([score("Nothing.", [])], "objects").count == 0
    assert recall([score("Nothing.", [])]).value == 0


def test_the_majority_states_as_much_as_the_median_caption() -> None:
    empty: Stated = {name: [] for name in ATTRIBUTES}
    stated = [
        empty | {"actions": ["stands still", "stands still"], "floor": ["red"]},
        empty | {"actions": ["stands still", "stands still", "spins"], "floor": ["blue"]},
        empty | {"actions": ["spins", "stands still"], "floor": ["red"]},
    ]
    made = majority(stated)
    assert made["actions"] == ["stands still", "spins"]
    assert made["floor"] == ["red"]
    assert made["wall"] == []


def test_intervals_cover_the_true_share_and_count_sources_not_clips() -> None:
    rng = np.random.default_rng(0)
    clip = score(TRUE, [])

    def tallies(sources: list[str]) -> list[Any]:
        return [type(clip)(source, "rooms") for source in sources]

    covered = 0
    for trial in range(100):
        hits = rng.random(80) < 0.3
        found = share(tallies([str(i) for i in range(80)]), [(h, 1) for h in hits], trial)
        covered += found.low <= 0.3 <= found.high
    assert 85 <= covered <= 100
    hits = [float(i < 40) for i in range(80)]
    parts = [(h, 1.0) for h in hits]
    alone = share(tallies([str(i) for i in range(80)]), parts)
    shared = share(tallies([str(i // 10) for i in range(80)]), parts)
    assert shared.high - shared.low > 2 * (alone.high - alone.low)


def test_the_table_has_a_row_for_each_attribute_that_is_stated() -> None:
    lines = table({"captioner": [score(TRUE, ["small red ball"])], "majority": [score("", [])]})
    assert lines[0].startswith("| attribute | in true captions | captioner | majority |")
    assert any(
        line.startswith("| **all right** | 8 | 100.0 (100.0 to 100.0) | 0.0") for line in lines
    )
    assert not any(line.startswith("| sky") for line in lines)
