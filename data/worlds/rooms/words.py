"""Captions of the rooms: phrases that the simulator proves, in sentences chosen by seed."""

import numpy as np
from jaxtyping import UInt8

from data.worlds.render.stage import Shot
from data.worlds.rooms.room import Room, Thing
from data.worlds.truth import Track
from data.worlds.words import (
    MAX_ALSO,
    MAX_NAMED,
    SKY_SHARE,
    also_words,
    article,
    camera_words,
    listing,
    pick,
    place_of,
    prominent,
    sky_share,
    surface_words,
    upper,
)

MOTIONS = {
    "still": "stands still",
    "bouncing": "bounces up and down",
    "spinning": "spins in place",
    "circling": "moves in a circle",
    "sliding": "slides back and forth",
}
ROBOT_MOTIONS = {
    "bouncing": "jumps up and down",
    "circling": "walks in a circle",
    "sliding": "walks back and forth",
}


def action_of(thing: Thing) -> str:
    """Say how an object moves."""
    return (ROBOT_MOTIONS if thing.kind == "robot" else MOTIONS)[thing.motion]


def describe(
    room: Room,
    tracks: list[Track],
    shots: list[Shot],
    frames: UInt8[np.ndarray, "F H W 3"],
    rng: np.random.Generator,
) -> tuple[dict[str, str | list[str]], str, str]:
    """Return a clip's attributes, its dense caption and its short one."""
    height, width = frames.shape[1:3]
    things = dict(zip((track.id for track in tracks), room.things, strict=True))
    seen = prominent(tracks, height, width)
    # Further shots cost words, so fewer objects are spelled out.
    most = MAX_NAMED if len(shots) == 1 else 1
    named, also = seen[:most], seen[most : most + MAX_ALSO]
    attributes: dict[str, str | list[str]] = {
        "objects": [track.name() for track in seen],
        "named": [track.name() for track in named],
        "actions": [action_of(things[track.id]) for track in named],
        "places": [place_of(track, width, shots[0].stop) for track in named],
        "also": [track.name() for track in also],
        "floor": surface_words(room.floor_pattern, room.floor_colours),
        "wall": surface_words(room.wall_pattern, room.wall_colours),
        "wall_colour": room.wall_colours[0],
        "light": room.light,
        "camera": [shot.words for shot in shots],
        "style": "3-D rendering",
        "place": "room",
    }
    if sky_share(frames, room.sky) > SKY_SHARE:
        attributes["sky"] = room.sky
    who = article(named[0].name()) if named else "an empty corner"
    short = f"{who} in a room with {room.wall_colours[0]} walls"
    return attributes, dense_caption(attributes, rng), short


def dense_caption(attributes: dict[str, str | list[str]], rng: np.random.Generator) -> str:
    """Write the sentences: objects, setting, camera and style, in one of several orders."""
    a = attributes
    sky = f" under a {a['sky']} sky" if "sky" in a else ""
    floor = f"{article(str(a['floor']))} floor"
    setting = pick(
        rng,
        [
            f"The room has {floor} and {a['wall']} walls{sky}.",
            f"The floor is {a['floor']} and the walls are {a['wall']}{sky}.",
            f"All around are {a['wall']} walls, with {floor} below{sky}.",
            f"This happens on {floor} between {a['wall']} walls{sky}.",
        ],
    )
    style = pick(
        rng,
        [
            "A simple 3-D rendering.",
            "It is a basic 3-D rendering.",
            "The clip is a 3-D rendering of a room.",
        ],
    )
    things = object_words(a, rng)
    camera = camera_words([*a["camera"]], str(a["light"]), rng)
    orders = [
        (things, setting, camera, style),
        (style, things, setting, camera),
        (things, camera, setting, style),
        (setting, things, camera, style),
    ]
    return " ".join(orders[int(rng.integers(len(orders)))])


def object_words(attributes: dict[str, str | list[str]], rng: np.random.Generator) -> str:
    """Say what is there, where it is and how it moves."""
    facts = list(zip(attributes["named"], attributes["actions"], attributes["places"], strict=True))
    if not facts:
        return pick(rng, ["Nothing stands in this part of the room.", "The view holds no object."])
    first = [f"{article(name)} {place} {action}" for name, action, place in facts]
    second = [f"{article(name)} that {action} {place}" for name, action, place in facts]
    third = [f"{place} {article(name)} {action}" for name, action, place in facts]
    return pick(
        rng,
        [
            upper(listing(first)) + also_words(attributes, rng),
            f"The picture shows {listing(second)}{also_words(attributes, rng)}",
            f"There is {listing(second)}{also_words(attributes, rng)}",
            upper("; ".join(third)) + also_words(attributes, rng),
        ],
    )
