"""Captions of the physics world: what the simulation did, in sentences chosen by seed."""

import numpy as np
from jaxtyping import UInt8

from data.worlds.physics.plan import Plan
from data.worlds.render.stage import Shot
from data.worlds.render.view import view_axes
from data.worlds.truth import Event, Track
from data.worlds.words import (
    MAX_ALSO,
    MAX_NAMED,
    SKY_SHARE,
    also_words,
    article,
    camera_words,
    pick,
    place_of,
    prominent,
    sky_share,
    surface_words,
    upper,
)

MOVED_METRES = 0.35
HAPPENINGS = ("collision", "break", "occluded", "reappears", "bounce")


def movement(track: Track, shot: Shot) -> str:
    """Say how a body moved during the first shot, seen from its camera."""
    places = [p for p in track.positions[shot.start : shot.stop] if p is not None]
    if len(places) < 2:
        return "stands still"
    along = view_axes(shot.poses[0]) @ (np.array(places[-1]) - np.array(places[0]))
    drop = max(p[2] for p in places) - min(p[2] for p in places)
    if drop > MOVED_METRES and places[0][2] - min(p[2] for p in places) > MOVED_METRES:
        return "falls down" if abs(along[0]) < 2 * drop else f"flies to the {side(along[0])}"
    rolls = "rolls" if track.kind == "ball" else "slides"
    if abs(along[0]) > MOVED_METRES:
        return f"{rolls} to the {side(along[0])}"
    if abs(along[1]) > MOVED_METRES:
        return f"{rolls} {'away' if along[1] > 0 else 'nearer'}"
    return "stands still"


def side(amount: float) -> str:
    """Name the side of the picture."""
    return "right" if amount > 0 else "left"


def event_words(event: Event, tracks: dict[str, Track], subject: Track, walls: list[Track]) -> str:
    """Say what happened to the subject, or nothing where another object matters."""
    if subject.id not in event.objects:
        return ""
    if event.kind == "collision":
        others = [tracks[name] for name in event.objects if name != subject.id]
        return f"hits the {others[0].name()}" if others else ""
    if event.kind == "break":
        return "breaks into pieces"
    if event.kind == "bounce":
        return "bounces off the floor"
    if event.kind == "occluded":
        return f"goes behind the {walls[0].name()}" if walls else "is hidden from view"
    return "reappears"


def happenings(
    events: list[Event], tracks: list[Track], subject: Track | None, shot: Shot
) -> list[str]:
    """Return what happened to the subject in the first shot, in order, each thing once."""
    known = {track.id: track for track in tracks}
    walls = [track for track in tracks if track.kind == "wall"]
    found: list[str] = []
    for event in events:
        if subject is None or event.kind not in HAPPENINGS:
            continue
        if event.kind in ("occluded", "reappears") and event.frame >= shot.stop:
            continue
        words = event_words(event, known, subject, walls)
        if words and words not in found:
            found.append(words)
    return found


def describe(
    plan: Plan,
    tracks: list[Track],
    shots: list[Shot],
    events: list[Event],
    frames: UInt8[np.ndarray, "F H W 3"],
    rng: np.random.Generator,
) -> tuple[dict[str, str | list[str]], str, str]:
    """Return a clip's attributes, its dense caption and its short one."""
    height, width = frames.shape[1:3]
    whole = [track for track in tracks if track.kind != "piece"]
    seen = prominent(whole, height, width)
    subject = next((track for track in seen if track.subject), None)
    most = MAX_NAMED if len(shots) == 1 else 1
    named, also = seen[:most], seen[most : most + MAX_ALSO]
    told = happenings(events, seen, subject, shots[0])[: 3 if len(shots) == 1 else 2]
    attributes: dict[str, str | list[str]] = {
        "objects": [track.name() for track in seen],
        "named": [track.name() for track in named],
        "actions": [movement(track, shots[0]) for track in named],
        "places": [place_of(track, width, shots[0].stop) for track in named],
        "also": [track.name() for track in also],
        "events": told,
        "floor": surface_words(plan.floor_pattern, plan.floor_colours),
        "floor_colour": plan.floor_colours[0],
        "light": plan.light,
        "camera": [shot.words for shot in shots],
        "style": "3-D rendering",
        "place": "open floor",
    }
    if sky_share(frames, plan.sky) > SKY_SHARE:
        attributes["sky"] = plan.sky
    floor = f"on {article(plan.floor_colours[0])} floor"
    if not named:
        return attributes, dense_caption(attributes, rng), f"nothing in view {floor}"
    verb = "breaks" if "breaks into pieces" in told else attributes["actions"][0].split()[0]
    attributes["verb"] = verb
    return attributes, dense_caption(attributes, rng), f"{article(named[0].name())} {verb} {floor}"


def dense_caption(attributes: dict[str, str | list[str]], rng: np.random.Generator) -> str:
    """Write the sentences: what happens, who stands by, the ground, camera and style."""
    a = attributes
    happens, others = subject_words(a, rng)
    floor = f"{article(str(a['floor']))} floor"
    sky = pick(rng, [f" under a {a['sky']} sky", f", below a {a['sky']} sky"]) if "sky" in a else ""
    setting = pick(
        rng,
        [
            f"All of it happens on {floor}{sky}.",
            f"The ground is {floor}{sky}.",
            f"The scene is set on {floor}{sky}.",
        ],
    )
    style = pick(
        rng, ["A 3-D rendering of simple physics.", "It is a 3-D rendering.", "A 3-D rendering."]
    )
    camera = camera_words([*a["camera"]], str(a["light"]), rng)
    things = f"{happens} {others}".strip()
    orders = [
        (things, setting, camera, style),
        (style, things, setting, camera),
        (setting, things, camera, style),
        (things, camera, setting, style),
    ]
    return " ".join(orders[int(rng.integers(len(orders)))])


def subject_words(
    attributes: dict[str, str | list[str]], rng: np.random.Generator
) -> tuple[str, str]:
    """Say what the subject does and what becomes of it, and what else is there."""
    a = attributes
    if not a["named"]:
        return "Nothing is in view.", ""
    events = [*a["events"]]
    first, action, place = a["named"][0], a["actions"][0], a["places"][0]
    chain = ", then ".join([action, *events])
    sentence = pick(
        rng,
        [
            f"{upper(article(first))} {chain}.",
            f"Here {article(first)} {chain}.",
            f"The clip shows how {article(first)} {chain}.",
        ],
    )
    if not events:
        sentence = f"{sentence[:-1]}, {place}."
    rest = [
        pick(rng, [f"{article(name)} {does} {where}", f"{where} {article(name)} {does}"])
        for name, does, where in list(zip(a["named"], a["actions"], a["places"], strict=True))[1:]
    ]
    if not rest:
        return sentence, ""
    return sentence, f"{upper(' and '.join(rest))}{also_words(attributes, rng)}"
