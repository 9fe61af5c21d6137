"""Three discs in space under an eye that circles them, without perspective: 3-D consistency.

At the splice the eye looks along z: a picture tells x and y of every disc, and nothing but its
motion and what hides what tells its depth. There depths may be mirrored (parallax), two of them
exchanged (order), or one drawn again (rigidity), and the picture at the splice stays the same.
"""

from dataclasses import dataclass, replace

import numpy as np

from data.worlds.tiny.discs import read_discs, render_discs
from data.worlds.tiny.paint import LIGHTS, NAMES, NUM_COLOURS, put, show_inside
from data.worlds.tiny.state import (
    COLOUR,
    SEEN,
    WIDTH,
    Array,
    Frames,
    State,
    X,
    Y,
    Z,
    blank,
    make_state,
)
from data.worlds.tiny.world import (
    NUM_FRAMES,
    SPLICE,
    TIMES,
    Phrases,
    World,
    choose,
    coin,
    listed,
    uniform,
)

DISCS = 3
REACH = 8.0  # pixels from the axis, in x and in z
RADII = (2.0, 3.0)
TURNS = (0.12, 0.2)  # radians a frame
LEAST = 4.0  # pixels between the depths of a pair
MIDDLE = 16.0
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Discs as the eye sees them at the splice: x from the axis, y, nearness z, radius, colour."""

    x: Triple
    y: Triple
    z: Triple
    radius: Triple
    colours: tuple[int, int, int]
    turn: float
    light: float


class Turntable(World[Scene]):
    """Discs on a turntable."""

    name = "turntable"
    size = (16, 32)
    laws = ("parallax", "order", "rigidity")

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw three discs of three colours."""
        first, step = choose(rng, NUM_COLOURS), 1 + choose(rng, NUM_COLOURS - 1)
        second = (first + step) % NUM_COLOURS
        others = [n for n in range(NUM_COLOURS) if n not in (first, second)]
        turn = uniform(rng, *TURNS) * (1 if coin(rng) else -1)
        return Scene(
            three(rng, -REACH, REACH),
            three(rng, 3.5, 12.5),
            three(rng, -REACH, REACH),
            three(rng, *RADII),
            (first, second, others[choose(rng, len(others))]),
            turn,
            uniform(rng, *LIGHTS),
        )

    def redraw(self, rng: np.random.Generator, scene: Scene, prop: str) -> Scene:
        """Mirror all depths or not, exchange two or not, or draw one again."""
        a, b, c = scene.z
        if prop == "parallax":
            return replace(scene, z=(-a, -b, -c)) if coin(rng) else scene
        if prop == "order":
            return replace(scene, z=(b, a, c)) if coin(rng) else scene
        return replace(scene, z=(uniform(rng, -REACH, REACH), b, c))

    def changes(self, prop: str) -> tuple[str, ...]:
        """All is about depth."""
        return ("z",)

    def apart(self, a: Scene, b: Scene, prop: str) -> bool:
        """Ask that a disc's depth differs visibly."""
        return max(abs(one - other) for one, other in zip(a.z, b.z, strict=True)) >= LEAST

    def unroll(self, scene: Scene) -> State:
        """Turn the table to both ends."""
        angle = scene.turn * TIMES
        cos, sin = np.cos(angle), np.sin(angle)
        bodies = blank(NUM_FRAMES, DISCS)
        for number in range(DISCS):
            x, z = scene.x[number], scene.z[number]
            body = bodies[:, number]
            across = MIDDLE + x * cos + z * sin
            put(body, across, scene.y[number], 2 * scene.radius[number], scene.colours[number])
            body[:, Z] = z * cos - x * sin
        show_inside(bodies, *self.size)
        bodies[..., SEEN] = np.maximum(bodies[..., SEEN] - covered(bodies), 0)
        return make_state(("disc",) * DISCS, bodies, scene.light, angle)

    def render(self, state: State) -> Frames:
        """Draw the discs, the nearest last."""
        return render_discs(state, self.size, "disc")

    def read(self, frames: Frames) -> State:
        """Read place, size and colour; a disc that shows less than at its best is partly hidden."""
        return read_discs(frames, "disc")

    def phrases(self, state: State) -> Phrases:
        """Name the discs from left to right at the splice, and where the eye goes."""
        bodies = state.of("disc")
        order = np.argsort(bodies[SPLICE, :, X])
        names = [f"{NAMES[int(bodies[SPLICE, n, COLOUR])]} disc" for n in order]
        side = "left" if state.camera[-1] > state.camera[0] else "right"
        depths = bodies[SPLICE, :, Z]
        return {
            "objects": names,
            "nearest": f"{NAMES[int(bodies[SPLICE, int(depths.argmax()), COLOUR])]} one",
            "camera": f"turns to the {side}",
        }

    def caption(self, state: State, dense: bool = True) -> str:
        """Say which discs there are, which is the nearest, and how the eye moves."""
        found = self.phrases(state)
        a, b, c = listed(found, "objects")
        if not dense:
            return f"a {a}, a {b} and a {c} in space"
        return (
            f"A {a}, a {b} and a {c} float in space while the eye {found['camera']} around them. "
            f"Halfway the {found['nearest']} is the nearest of the three."
        )


def three(rng: np.random.Generator, low: float, high: float) -> Triple:
    """Draw three numbers."""
    a, b, c = (low + (high - low) * rng.random(3)).tolist()
    return a, b, c


def covered(bodies: Array) -> Array:
    """Return the share of every disc that nearer ones hide, by the lenses of circles; (F, N).

    What two others hide alike counts twice.
    """
    one, other = bodies[:, :, None], bodies[:, None]  # (F, N, 1, FIELDS), (F, 1, N, FIELDS)
    gap = np.hypot(one[..., X] - other[..., X], one[..., Y] - other[..., Y])
    r, s = one[..., WIDTH] / 2, other[..., WIDTH] / 2
    gap = np.clip(gap, np.abs(r - s) + 1e-9, r + s - 1e-9)  # beyond, the lens is one disc or none
    near = (gap**2 + r**2 - s**2) / (2 * gap)
    half = np.sqrt(np.maximum(r**2 - near**2, 0))  # of the line through both crossings
    lens = r**2 * np.arccos(np.clip(near / r, -1, 1)) - gap * half
    lens += s**2 * np.arccos(np.clip((gap - near) / s, -1, 1))
    return np.where(other[..., Z] > one[..., Z], lens / (np.pi * r**2), 0).sum(2)
