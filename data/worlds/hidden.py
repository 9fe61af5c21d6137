"""Crossed pairs of the 3-D worlds: two clips that differ in what nothing shows at the splice.

A is a clip as its world films it, B the same scene but for one body: its ``colour``, or its
``existence``. The frame before the splice is the same in both, pixel by pixel, and frames on both
sides of it are not. So the first frames of A and the later ones of B are a clip whose body changed
while it was out of sight, and nothing else in it broke. In ``physics`` a ball rolls behind its
wall, in ``rooms`` a body is behind a box that stands between it and the camera.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from data.worlds.clip import Clip
from data.worlds.palette import COLOURS
from data.worlds.physics.plan import Plan, design_scene
from data.worlds.rooms.room import Room, Thing, design_path, design_room

Frames = UInt8[np.ndarray, "F H W 3"]
WORLDS = ("rooms", "physics")
PROPERTIES = ("colour", "existence")
NUM_FRAMES, SPLICE = 17, 9
FIRST_SEED = 5_000_000  # of scenes: no data set films so many
TRIES = 400
# A body is seen on a side of the splice that shows so many of its pixels in so many frames.
LEAST_PIXELS, LEAST_FRAMES = 16, 2
FPS = 10.0  # of physics, by which a throw is timed
AWAY = 1000.0  # metres: beyond walls and what the camera draws


@dataclass(frozen=True)
class HiddenPair:
    """Frames of A and B, (NUM_FRAMES, H, W, 3)."""

    a: Frames
    b: Frames


Film = Callable[[int, int], Clip]  # of a height and a width


def hidden_pair(
    world: str, prop: str, seed: int, index: int, height: int, width: int
) -> HiddenPair:
    """Film a pair, the same for the same arguments.

    Raises ValueError for a world or a property that has none, and where no scene of many hides a
    body at the splice.
    """
    check_hidden(world, prop)
    rng = np.random.default_rng([zlib.crc32(f"hidden/{world}/{prop}".encode()), seed, index])
    draw = {"rooms": _room, "physics": _physics}[world]
    for _ in range(TRIES):
        name, film_a, film_b = draw(rng, prop)
        a = film_a(height, width)
        if not _is_hidden(a, name):
            continue
        found = HiddenPair(a.frames, film_b(height, width).frames)
        if differs_out_of_sight(found):
            return found
    raise ValueError(
        f"world={world}: no scene of {TRIES} hides a body at frame {SPLICE} in {height}x{width} "
        "pixels. Use larger frames, or another seed."
    )


def check_hidden(world: str, prop: str) -> None:
    """Raise ValueError for a world or a property that has no pairs."""
    for key, value, allowed in (("worlds", world, WORLDS), ("properties", prop, PROPERTIES)):
        if value not in allowed:
            raise ValueError(f"{key}={value}: has no such pairs. Use {', '.join(allowed)}.")


def differs_out_of_sight(pair: HiddenPair) -> bool:
    """Say whether A and B are the same before the splice, and seen to differ on both its sides."""
    away = (pair.a != pair.b).any(-1).sum((1, 2)) >= LEAST_PIXELS
    same = np.array_equal(pair.a[SPLICE - 1], pair.b[SPLICE - 1])
    return bool(same and min(away[: SPLICE - 1].sum(), away[SPLICE:].sum()) >= LEAST_FRAMES)


def _is_hidden(clip: Clip, name: str) -> bool:
    """Say whether a body shows nothing of itself at the splice, by the world's truth."""
    track = next(track for track in clip.truth["objects"] if track["id"] == name)
    inside, visible = (track[key][SPLICE - 1] for key in ("in_frame", "visible"))
    return not (inside and visible)


def _other_colour(rng: np.random.Generator, used: set[str]) -> str:
    return str(rng.choice([name for name in COLOURS if name not in used]))


def _room(rng: np.random.Generator, prop: str) -> tuple[str, Film, Film]:
    """Draw a room with a box in the way: the body's name, and how A and B are filmed."""
    from data.worlds.rooms.film import film

    seed, take = FIRST_SEED + int(rng.integers(10**6)), int(rng.integers(100))
    room = design_room(seed)
    number = int(rng.integers(len(room.things)))
    body = room.things[number]
    used = {thing.colour for thing in room.things} | {*room.floor_colours, *room.wall_colours}
    box = _box_before(rng, room, body, take, seed, _other_colour(rng, used))
    if prop == "colour":
        other = replace(body, colour=_other_colour(rng, used | {box.colour}))
    else:
        other = replace(body, x=body.x + AWAY)

    def filmed(thing: Thing) -> Film:
        things = [*room.things, box]
        things[number] = thing
        staged = replace(room, things=tuple(things))
        return lambda height, width: film(seed, take, NUM_FRAMES, height, width, staged=staged)

    return f"{body.kind}-{number}", filmed(body), filmed(other)


def _box_before(
    rng: np.random.Generator, room: Room, body: Thing, take: int, seed: int, colour: str
) -> Thing:
    """Put a large box between a body and where the camera is at the splice."""
    from data.worlds.render.shots import plan_shots

    eye = plan_shots([design_path(seed, take)], [], NUM_FRAMES)[0].poses[SPLICE - 1]
    share = float(rng.uniform(0.5, 0.8))
    x, y = (e + share * (at - e) for e, at in zip(eye[:2], (body.x, body.y), strict=True))
    turn = math.atan2(body.y - eye[1], body.x - eye[0]) / (math.pi / 2)
    return Thing("box", colour, "large", "still", x, y, phase=turn, rate=1.0)


def _physics(rng: np.random.Generator, prop: str) -> tuple[str, Film, Film]:
    """Draw a scene in which a ball passes a wall: the ball's name, and how A and B are filmed."""
    from data.worlds.physics.film import film

    plan: Plan | None = None
    while plan is None or plan.scene != "pass":
        seed, take = FIRST_SEED + int(rng.integers(10**6)), int(rng.integers(100))
        plan = design_scene(seed, take, (NUM_FRAMES - 1) / FPS)
    ball = plan.bodies[0]
    if prop == "colour":
        used = {body.colour for body in plan.bodies} | {*plan.floor_colours}
        other = replace(ball, colour=_other_colour(rng, used))
    else:
        x, y, z = ball.position
        other = replace(ball, position=(x, y + AWAY, z))

    def filmed(staged: Plan) -> Film:
        return lambda height, width: film(seed, take, NUM_FRAMES, height, width, staged=staged)

    changed = replace(plan, bodies=(other, *plan.bodies[1:]))
    return f"{ball.kind}-0", filmed(plan), filmed(changed)
