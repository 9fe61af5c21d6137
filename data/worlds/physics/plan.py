"""What happens in a physics scene, drawn from a seed: bodies, a set and a camera; nothing runs.

Metres, seconds and kilograms; z is up, the ground is z = 0 and the action takes place around the
origin, seen by a camera that looks along +y. ``seconds`` is the length of the clip: throws are
timed so that what they are for happens inside it.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from data.worlds.palette import COLOURS, PATTERNS
from data.worlds.render.setting import LIGHT_NAMES, SKIES, CameraPath

SCENES = ("pass", "hit", "fall", "break", "tower")
RADII = {"small": 0.32, "large": 0.52}
GRAVITY = 9.81
# Camera moves that keep the action in view, and a side view in which left and right mean x.
CAMERAS = ("static", "static", "truck", "push in", "orbit", "crane")


@dataclass(frozen=True)
class Body:
    """One rigid body: a ball of radius ``radius`` or a cube of side 2 ``radius``.

    mass 0 stands for ever; ``brittle`` breaks under a hard blow; ``half`` are the half sides of a
    slab that is no cube (walls).
    """

    kind: str
    colour: str
    size: str
    position: tuple[float, float, float]
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    heading: float = 0.0
    radius: float = 0.4
    mass: float = 1.0
    brittle: bool = False
    subject: bool = False
    half: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Plan:
    """A scene ready to be simulated."""

    scene: str
    bodies: tuple[Body, ...]
    floor_pattern: str
    floor_colours: tuple[str, str]
    sky: str
    light: str
    light_hpr: tuple[float, float]
    brightness: float
    bounciness: float
    paths: tuple[CameraPath, ...] = field(default=())


@dataclass
class Palette:
    """Colours dealt without repeats, so that a colour and a kind name one object."""

    names: list[str]

    def take(self) -> str:
        """Return the next colour."""
        return self.names.pop()


def design_scene(seed: int, take: int, seconds: float, num_shots: int = 1) -> Plan:
    """Draw a scene from its seed and the cameras of one take of it."""
    rng = np.random.default_rng([0x9B75, seed])
    names = rng.permutation(list(COLOURS)).tolist()
    floor_colours = (names.pop(), names.pop())
    palette = Palette(names)
    scene = str(rng.choice(SCENES))
    makers = {
        "pass": passing,
        "hit": hitting,
        "fall": falling,
        "break": breaking,
        "tower": toppling,
    }
    bodies = makers[scene](rng, palette, max(0.5, seconds))
    return Plan(
        scene=scene,
        bodies=tuple(bodies),
        floor_pattern=str(rng.choice(PATTERNS)),
        floor_colours=floor_colours,
        sky=str(rng.choice(list(SKIES))),
        light=str(rng.choice(list(LIGHT_NAMES))),
        light_hpr=(float(rng.uniform(-60, 60)), float(rng.uniform(-70, -40))),
        brightness=float(rng.uniform(0.9, 1.2)),
        bounciness=float(rng.uniform(0.55, 0.85)),
        paths=tuple(design_cameras(seed, take, num_shots)),
    )


def design_cameras(seed: int, take: int, num_shots: int) -> list[CameraPath]:
    """Draw a camera per shot: the first from the front, the others from up to 70 degrees aside."""
    rng = np.random.default_rng([0xCA3, seed, take])
    paths = []
    for number in range(num_shots):
        aside = float(rng.uniform(-0.15, 0.15)) if number == 0 else float(rng.uniform(0.5, 1.2))
        side = 1 if number % 2 else -1
        paths.append(
            CameraPath(
                kind=str(rng.choice(CAMERAS)),
                sign=int(rng.choice([-1, 1])),
                start=-math.pi / 2 + side * aside,
                sweep=float(rng.uniform(0.2, 0.45)),
                distance=float(rng.uniform(5.4, 6.6)),
                height=float(rng.uniform(1.0, 2.4)),
            )
        )
    return paths


def size_of(rng: np.random.Generator) -> tuple[str, float]:
    """Draw a size word and its radius."""
    size = str(rng.choice(list(RADII)))
    return size, RADII[size]


def passing(rng: np.random.Generator, palette: Palette, seconds: float) -> list[Body]:
    """A ball rolls behind a wall and comes out on the other side."""
    size, radius = size_of(rng)
    sign = float(rng.choice([-1, 1]))
    reach = float(rng.uniform(2.4, 2.9))
    half = radius + float(rng.uniform(0.25, 0.6))
    wall = Body(
        "wall",
        palette.take(),
        "",
        (float(rng.uniform(-0.4, 0.4)), -0.9, 0.75),
        mass=0.0,
        half=(half, 0.08, 0.75),
    )
    speed = sign * min(6.0, 2 * reach / seconds)
    ball = Body(
        "ball",
        palette.take(),
        size,
        (-sign * reach, 0.4, radius),
        (speed, 0.0, 0.0),
        radius=radius,
        subject=True,
    )
    bodies = [ball, wall]
    if rng.random() < 0.4:
        bodies.append(bystander(rng, palette, 2.2))
    return bodies


def bystander(rng: np.random.Generator, palette: Palette, y: float) -> Body:
    """A box that stands in the background."""
    size, radius = size_of(rng)
    place = (float(rng.uniform(-2.0, 2.0)), y, radius)
    turn = float(rng.uniform(0, 90))
    return Body("box", palette.take(), size, place, heading=turn, radius=radius)


def hitting(rng: np.random.Generator, palette: Palette, seconds: float) -> list[Body]:
    """A ball rolls into a box or another ball."""
    size, radius = size_of(rng)
    sign = float(rng.choice([-1, 1]))
    speed = float(rng.uniform(2.8, 5.0))
    gap = min(2.2, speed * 0.4 * seconds)
    kind = str(rng.choice(["box", "ball"]))
    size_b, radius_b = size_of(rng)
    place = sign * float(rng.uniform(0.2, 0.8))
    ball = Body(
        "ball",
        palette.take(),
        size,
        (place - sign * (gap + radius + radius_b), 0.0, radius),
        (sign * speed, 0.0, 0.0),
        radius=radius,
        mass=2.0,
        subject=True,
    )
    target = Body(
        kind,
        palette.take(),
        size_b,
        (place, float(rng.uniform(-0.12, 0.12)), radius_b),
        heading=float(rng.uniform(-30, 30)),
        radius=radius_b,
        mass=0.8,
    )
    return [ball, target, *([bystander(rng, palette, 2.2)] if rng.random() < 0.3 else [])]


def drop_height(rng: np.random.Generator, seconds: float, share: float) -> float:
    """Return a height from which a fall takes ``share`` of the clip, at most 3 metres."""
    return min(float(rng.uniform(2.2, 3.0)), GRAVITY / 2 * (share * seconds) ** 2)


def falling(rng: np.random.Generator, palette: Palette, seconds: float) -> list[Body]:
    """One to three bodies fall to the ground."""
    bodies = []
    count = int(rng.integers(1, 4))
    for number in range(count):
        size, radius = size_of(rng)
        height = drop_height(rng, seconds, float(rng.uniform(0.3, 0.6)))
        x = (number - (count - 1) / 2) * 1.5 + float(rng.uniform(-0.15, 0.15))
        bodies.append(
            Body(
                str(rng.choice(["ball", "ball", "box"])),
                palette.take(),
                size,
                (x, float(rng.uniform(-0.5, 0.5)), radius + max(0.3, height)),
                (float(rng.uniform(-0.5, 0.5)), 0.0, 0.0),
                heading=float(rng.uniform(0, 90)),
                radius=radius,
                subject=number == 0,
            )
        )
    return bodies


def breaking(rng: np.random.Generator, palette: Palette, seconds: float) -> list[Body]:
    """A brittle ball or crate falls to the ground, or is thrown against a wall, and breaks."""
    size, radius = size_of(rng)
    kind = str(rng.choice(["crate", "ball"]))
    colour = palette.take()
    turn = float(rng.uniform(0, 90))
    if rng.random() < 0.5:
        height = max(0.5, drop_height(rng, seconds, float(rng.uniform(0.25, 0.5))))
        place = (float(rng.uniform(-1.2, 1.2)), 0.0, radius + height)
        down = (0.0, 0.0, -max(0.0, 4.5 - math.sqrt(2 * GRAVITY * height)))
        body = Body(kind, colour, size, place, down, turn, radius, brittle=True, subject=True)
        return [body, *([bystander(rng, palette, 1.8)] if rng.random() < 0.4 else [])]
    sign = float(rng.choice([-1, 1]))
    speed = float(rng.uniform(5.5, 8.0))
    gap = min(2.6, speed * 0.4 * seconds)
    place = (sign * (1.2 - radius - gap), 0.0, 0.9)
    body = Body(
        kind,
        colour,
        size,
        place,
        (sign * speed, 0.0, 1.0),
        turn,
        radius,
        brittle=True,
        subject=True,
    )
    wall = Body("wall", palette.take(), "", (sign * 1.3, 0.0, 0.9), mass=0.0, half=(0.1, 0.8, 0.9))
    return [body, wall]


def toppling(rng: np.random.Generator, palette: Palette, seconds: float) -> list[Body]:
    """A ball rolls into a tower of boxes."""
    sign = float(rng.choice([-1, 1]))
    speed = float(rng.uniform(4.0, 6.0))
    gap = min(2.2, speed * 0.35 * seconds)
    radius = RADII["small"]
    place = sign * 0.3
    ball = Body(
        "ball",
        palette.take(),
        "large",
        (place - sign * (gap + radius + RADII["large"]), 0.0, RADII["large"]),
        (sign * speed, 0.0, 0.0),
        radius=RADII["large"],
        mass=3.0,
        subject=True,
    )
    boxes = [
        Body(
            "box",
            palette.take(),
            "small",
            (place, 0.0, radius * (2 * level + 1)),
            heading=float(rng.uniform(-12, 12)),
            radius=radius,
            mass=0.5,
        )
        for level in range(int(rng.integers(2, 4)))
    ]
    return [ball, *boxes]
