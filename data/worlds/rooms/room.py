"""What a room holds and how it is filmed, drawn from seeds: facts, nothing rendered.

Scenes have z up, metres as units and their centre at the origin. The map seed decides room, light
and objects, the take decides the camera, so takes of one map are one source.
"""

import math
from dataclasses import dataclass

import numpy as np

from data.worlds.palette import COLOURS, PATTERNS
from data.worlds.render.setting import CAMERAS, LIGHT_NAMES, SKIES, CameraPath

KINDS = ("box", "ball", "cylinder", "cone")
SIZES = {"small": 0.5, "large": 0.85}
MOTIONS = ("still", "still", "bouncing", "spinning", "circling", "sliding")


@dataclass(frozen=True)
class Thing:
    """One object of a room: what it is, where it stands and how it moves."""

    kind: str
    colour: str
    size: str
    motion: str
    x: float
    y: float
    phase: float
    rate: float  # cycles per second

    def pose(self, seconds: float) -> tuple[float, float, float, float]:
        """Return (x, y, z, heading in degrees) at a time."""
        turn = 2 * math.pi * (self.rate * seconds + self.phase)
        if self.motion == "bouncing":
            return self.x, self.y, 1.1 * abs(math.sin(turn / 2)), 0.0
        if self.motion == "spinning":
            return self.x, self.y, 0.0, math.degrees(turn) / 2
        if self.motion == "circling":
            return self.x + 0.7 * math.cos(turn), self.y + 0.7 * math.sin(turn), 0.0, 0.0
        if self.motion == "sliding":
            along = 0.9 * math.sin(turn)
            return (
                self.x + along * math.cos(self.phase * 6.28),
                self.y + along * math.sin(self.phase * 6.28),
                0.0,
                0.0,
            )
        return self.x, self.y, 0.0, self.phase * 90


@dataclass(frozen=True)
class Room:
    """The facts of a room that its map seed decides."""

    radius: float
    height: float
    floor_pattern: str
    floor_colours: tuple[str, str]
    wall_pattern: str
    wall_colours: tuple[str, str]
    sky: str
    light: str
    light_hpr: tuple[float, float]
    brightness: float
    things: tuple[Thing, ...]


def design_room(map_seed: int, character: bool = False) -> Room:
    """Draw a room from its map seed; with ``character`` its first object is a robot that walks."""
    rng = np.random.default_rng([0x600D, map_seed])
    names = list(COLOURS)
    floor, floor_line, wall, wall_line = rng.choice(names, 4, replace=False).tolist()
    others = [name for name in names if name not in (floor, wall)]
    colours = rng.choice(others, 5, replace=False).tolist()
    things: list[Thing] = []
    wanted = int(rng.integers(2, 6))
    for _ in range(200):
        x, y = rng.uniform(-2.6, 2.6, 2).tolist()
        crowded = any(math.hypot(x - t.x, y - t.y) < 1.8 for t in things)
        if crowded or math.hypot(x, y) > 2.6:
            continue
        kind = str(rng.choice(KINDS))
        motion = str(rng.choice(MOTIONS))
        if character and not things:
            kind, motion = "robot", str(rng.choice(["circling", "sliding", "bouncing"]))
        if motion == "spinning" and kind != "box":
            motion = "bouncing"  # turning a round body cannot be seen, so it would be no truth
        things.append(
            Thing(
                kind=kind,
                colour=colours[len(things)],
                size=str(rng.choice(list(SIZES))),
                motion=motion,
                x=x,
                y=y,
                phase=float(rng.random()),
                rate=float(rng.uniform(0.4, 1.1)),
            )
        )
        if len(things) == wanted:
            break
    return Room(
        radius=float(rng.uniform(7.0, 10.0)),
        height=float(rng.uniform(3.0, 5.5)),
        floor_pattern=str(rng.choice(PATTERNS)),
        floor_colours=(floor, floor_line),
        wall_pattern=str(rng.choice(PATTERNS)),
        wall_colours=(wall, wall_line),
        sky=str(rng.choice(list(SKIES))),
        light=str(rng.choice(list(LIGHT_NAMES))),
        light_hpr=(float(rng.uniform(0, 360)), float(rng.uniform(-70, -35))),
        brightness=float(rng.uniform(0.85, 1.25)),
        things=tuple(things),
    )


def design_path(map_seed: int, take: int) -> CameraPath:
    """Draw the camera path of one take of a room."""
    rng = np.random.default_rng([0xCA4E4A, map_seed, take])
    return CameraPath(
        kind=str(rng.choice(CAMERAS)),
        sign=int(rng.choice([-1, 1])),
        start=float(rng.uniform(0, 2 * math.pi)),
        sweep=float(rng.uniform(0.35, 1.1)),
        distance=float(rng.uniform(5.0, 6.4)),
        height=float(rng.uniform(1.2, 3.0)),
    )


def design_cuts(map_seed: int, take: int, num_shots: int) -> list[CameraPath]:
    """Draw the cameras of a clip with several shots: around the room, far enough apart to tell."""
    rng = np.random.default_rng([0xC075, map_seed, take])
    first = design_path(map_seed, take)
    step = 2 * math.pi / num_shots
    return [
        CameraPath(
            kind=str(rng.choice(CAMERAS)),
            sign=int(rng.choice([-1, 1])),
            start=first.start + number * step + float(rng.uniform(-0.3, 0.3)),
            sweep=float(rng.uniform(0.35, 0.9)),
            distance=float(rng.uniform(4.4, 6.4)),
            height=float(rng.uniform(1.2, 3.4)),
        )
        for number in range(num_shots)
    ]
