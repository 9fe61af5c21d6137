"""Balls that move evenly, meet, or are thrown (after phyworld, arXiv 2411.02385): physics.

``uniform``: one ball in a straight line. ``collision``: two balls of mass radius^2 meet head-on,
elastically, at the splice. ``parabola``: one ball under gravity. In the first and the last the
splice is a moment of the flight.

Colour, size and speed of the first ball fall into 6 x 3 x 3 cells. Some pairs of values are held
out of training, and ``region`` chooses where a world draws from: ``trained``; ``unseen_1``, ``_2``,
``_3``, where each value was trained but so many of the three pairs were not; ``beyond``, where size
and speed are outside of what was trained.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from data.worlds.tiny.discs import read_discs, render_discs
from data.worlds.tiny.paint import LIGHTS, NAMES, NUM_COLOURS, put, show_inside
from data.worlds.tiny.state import COLOUR, WIDTH, Array, Frames, State, X, Y, blank, make_state
from data.worlds.tiny.world import NUM_FRAMES, TIMES, TRIES, Phrases, World, choose, listed, uniform

RADII = (1.8, 2.3, 2.8, 3.3)  # edges of the cells of size, pixels
BEYOND_RADII = (3.4, 4.0)
# Edges of the cells of speed, pixels a frame: of the ball, and of both balls together.
SPEEDS = {"uniform": (0.6, 1.2, 1.8, 2.4), "parabola": (0.6, 1.2, 1.8, 2.4)}
SPEEDS["collision"] = (1.6, 2.1, 2.6, 3.1)
BEYOND = {"uniform": (2.4, 2.9), "parabola": (2.4, 2.9), "collision": (3.1, 3.5)}
HEIGHTS, DRIFTS = (4.0, 12.0), (-0.6, 0.6)
GRAVITY = 0.25  # pixels a frame, each frame
# Pairs of values that no training clip has, by number of the cells.
NO_COLOUR_SIZE = {(0, 2), (1, 0)}
NO_SIZE_SPEED = {(2, 2)}
NO_COLOUR_SPEED = {(0, 2), (1, 0)}
REGIONS = ("trained", "unseen_1", "unseen_2", "unseen_3", "beyond")
LAWS = {
    "uniform": ("velocity", "height", "colour", "shape"),
    "collision": ("momentum", "energy", "colour"),
    "parabola": ("sideways", "upward", "height", "colour"),
}
FIELDS_OF = {
    "velocity": ("vx", "vy"),
    "sideways": ("vx",),
    "upward": ("vy",),
    "height": ("y",),
    "momentum": ("drift",),
    "energy": ("closing",),
    "shape": ("radius",),
}
LEAST = {"vx": 0.6, "vy": 0.6, "y": 2.0, "drift": 0.3, "closing": 0.3, "radius": 0.5}


@dataclass(frozen=True)
class Scene:
    """A ball, or two that touch, at the splice.

    vx, vy: of one ball. closing: by how much two approach, drift: the speed of their common centre.
    other: radius and colour of the second.
    """

    x: float
    y: float
    vx: float
    vy: float
    radius: float
    colour: int
    light: float
    closing: float = 0.0
    drift: float = 0.0
    other: tuple[float, int] = (0.0, 0)


def unseen_pairs(colour: int, size: int, speed: int) -> int:
    """Count the pairs of a cell's values that training never shows together."""
    return (
        ((colour, size) in NO_COLOUR_SIZE)
        + ((size, speed) in NO_SIZE_SPEED)
        + ((colour, speed) in NO_COLOUR_SPEED)
    )


CELLS = {
    number: [
        cell
        for cell in product(range(NUM_COLOURS), range(3), range(3))
        if unseen_pairs(*cell) == number
    ]
    for number in range(4)
}


def turned(rng: np.random.Generator, pace: float) -> tuple[float, float]:
    """Draw the direction of a speed."""
    angle = uniform(rng, 0, 2 * np.pi)
    return pace * float(np.cos(angle)), pace * float(np.sin(angle))


class Balls(World[Scene]):
    """Balls of one law: uniform, collision or parabola, in one region of their cells."""

    size = (16, 32)

    def __init__(self, law: str, region: str = "trained") -> None:
        if law not in LAWS or region not in REGIONS:
            raise ValueError(
                f"world={law}, region={region}: must be one of {', '.join(LAWS)} and one of "
                f"{', '.join(REGIONS)}. Use uniform and trained."
            )
        self.law, self.region, self.laws = law, region, LAWS[law]
        self.name = law if region == "trained" else f"{law}_{region}"

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a cell, a place in it, and a path; all anew until the path stays in the frame."""
        for _ in range(TRIES):
            if self.region == "beyond":
                colour, sizes, speeds = choose(rng, NUM_COLOURS), BEYOND_RADII, BEYOND[self.law]
            else:
                cells = CELLS[REGIONS.index(self.region)]
                colour, size, speed = cells[choose(rng, len(cells))]
                sizes = RADII[size], RADII[size + 1]
                speeds = SPEEDS[self.law][speed], SPEEDS[self.law][speed + 1]
            radius, pace = uniform(rng, *sizes), uniform(rng, *speeds)
            light = uniform(rng, *LIGHTS)
            if self.law == "collision":
                found = self._meeting(rng, colour, radius, pace, light)
            else:
                vx, vy = turned(rng, pace)
                x, y = uniform(rng, 6, 26), uniform(rng, *HEIGHTS)
                found = Scene(x, y, vx, vy, radius, colour, light)
            if self.stays(found):
                return found
        raise AssertionError(f"no path of {self.name} found")

    @staticmethod
    def _meeting(
        rng: np.random.Generator, colour: int, radius: float, pace: float, light: float
    ) -> Scene:
        """Draw where two balls meet, and the second ball."""
        second = (colour + 1 + choose(rng, NUM_COLOURS - 1)) % NUM_COLOURS
        other = uniform(rng, RADII[0], RADII[-1])
        x, drift = uniform(rng, 12, 20), uniform(rng, *DRIFTS)
        return Scene(x, 8.0, 0.0, 0.0, radius, colour, light, pace, drift, (other, second))

    def redraw(self, rng: np.random.Generator, scene: Scene, prop: str) -> Scene:
        """Draw a property again until it gives a scene that could have been drawn at first."""
        for _ in range(TRIES):
            found = self._changed(rng, scene, prop)
            if found is not None and self.inside(found) and self.stays(found):
                return found
        return scene  # the only one there is, to thousands of draws

    def _changed(self, rng: np.random.Generator, scene: Scene, prop: str) -> Scene | None:
        """Draw a property as scenes have it but for the region and the frame's edges."""
        slow, fast = self.speeds()
        if prop == "colour":
            colour = choose(rng, NUM_COLOURS)
            taken = self.law == "collision" and colour == scene.other[1]
            return None if taken else replace(scene, colour=colour)
        if prop == "velocity":
            vx, vy = turned(rng, uniform(rng, slow, fast))
            return replace(scene, vx=vx, vy=vy)
        if prop in ("sideways", "upward"):
            # Speeds even in angle and length have a density of 1 / speed over the plane.
            value = uniform(rng, -fast, fast)
            found = replace(scene, vx=value) if prop == "sideways" else replace(scene, vy=value)
            return found if rng.random() * np.hypot(found.vx, found.vy) < slow else None
        if prop == "momentum":
            return replace(scene, drift=uniform(rng, *DRIFTS))
        if prop == "energy":
            return replace(scene, closing=uniform(rng, slow, fast))
        if prop == "height":
            return replace(scene, y=uniform(rng, *HEIGHTS))
        return replace(scene, radius=uniform(rng, *self.radii()))

    def speeds(self) -> tuple[float, float]:
        """Return the least and the largest speed of this region."""
        edges = BEYOND[self.law] if self.region == "beyond" else SPEEDS[self.law]
        return edges[0], edges[-1]

    def radii(self) -> tuple[float, float]:
        """Return the least and the largest radius of this region."""
        return BEYOND_RADII if self.region == "beyond" else (RADII[0], RADII[-1])

    def inside(self, scene: Scene) -> bool:
        """Say whether a scene lies in this world's region."""
        pace = scene.closing or float(np.hypot(scene.vx, scene.vy))
        low, high = self.speeds()
        small, large = self.radii()
        if not (low <= pace <= high and small <= scene.radius <= large):
            return False
        if self.region == "beyond":
            return True
        size = int(np.searchsorted(RADII[1:-1], scene.radius, side="right"))
        speed = int(np.searchsorted(SPEEDS[self.law][1:-1], pace, side="right"))
        return unseen_pairs(scene.colour, size, speed) == REGIONS.index(self.region)

    def stays(self, scene: Scene) -> bool:
        """Say whether all balls are wholly in the frame in all frames."""
        height, width = self.size
        for x, y, radius in self.paths(scene, TIMES[[0, 2, 4, 6, 8]]):
            if x.min() < radius or x.max() > width - radius:
                return False
            if y.min() < radius or y.max() > height - radius:
                return False
        return True

    def paths(self, scene: Scene, times: Array) -> list[tuple[Array, Array, float]]:
        """Return x, y and radius of every ball at times counted from the splice."""
        if self.law != "collision":
            fall = GRAVITY / 2 * times**2 if self.law == "parabola" else 0.0
            return [(scene.x + scene.vx * times, scene.y + scene.vy * times + fall, scene.radius)]
        other = scene.other[0]
        mass, share = scene.radius**2, scene.radius**2 + other**2
        # Seen from the common centre, each ball turns back with the speed with which it came.
        ours, theirs = other**2 / share * scene.closing, mass / share * scene.closing
        apart = np.abs(times)
        level = np.full(len(times), scene.y)
        x = scene.x + scene.drift * times
        return [
            (x - scene.radius - ours * apart, level, scene.radius),
            (x + other + theirs * apart, level, other),
        ]

    def changes(self, prop: str) -> tuple[str, ...]:
        """Return the fields of a scene that a property may change."""
        return FIELDS_OF.get(prop, (prop,))

    def apart(self, a: Scene, b: Scene, prop: str) -> bool:
        """Ask of numbers that they can be told apart."""
        names = self.changes(prop)
        gaps = [abs(getattr(a, name) - getattr(b, name)) / LEAST.get(name, 0.5) for name in names]
        return max(gaps) >= 1

    def unroll(self, scene: Scene) -> State:
        """Run every ball to both ends."""
        paths = self.paths(scene, TIMES)
        bodies = blank(NUM_FRAMES, len(paths))
        for number, (x, y, radius) in enumerate(paths):
            colour = scene.other[1] if number else scene.colour
            put(bodies[:, number], x, y, 2 * radius, colour)
        show_inside(bodies, *self.size)
        return make_state(("ball",) * len(paths), bodies, scene.light)

    def render(self, state: State) -> Frames:
        """Draw the balls."""
        return render_discs(state, self.size, "ball")

    def read(self, frames: Frames) -> State:
        """Read the balls."""
        return read_discs(frames, "ball")

    def phrases(self, state: State) -> Phrases:
        """Name the balls by their size, colour and motion at the start."""
        names, actions = [], []
        for ball in state.of("ball").transpose(1, 0, 2):
            size = (
                "large"
                if ball[0, WIDTH] > 2 * RADII[2]
                else "small"
                if ball[0, WIDTH] < 2 * RADII[1]
                else ""
            )
            names.append(
                " ".join(word for word in (size, NAMES[int(ball[0, COLOUR])], "ball") if word)
            )
            actions.append(self._action(ball))
        found: Phrases = {"objects": names, "actions": actions}
        if self.law == "collision":
            found["events"] = ["hits"]
        return found

    def _action(self, ball: Array) -> str:
        step = ball[1] - ball[0]
        speed = float(np.hypot(step[X], step[Y]))
        pace = "quickly" if speed > 1.6 else "slowly" if speed < 0.9 else "steadily"
        sides = ["right" if step[X] > 0 else "left"] if abs(step[X]) > 0.3 else []
        sides += ["down" if step[Y] > 0 else "up"] if abs(step[Y]) > 0.3 else []
        way = " and ".join(sides) or "hardly at all"
        verb = "flies" if self.law == "parabola" else "moves"
        return f"{verb} {pace} {way}"

    def caption(self, state: State, dense: bool = True) -> str:
        """Say what moves where, and by which law."""
        found = self.phrases(state)
        names, actions = listed(found, "objects"), listed(found, "actions")
        if self.law == "collision":
            first, second = names
            if not dense:
                return f"a {first} hits a {second}"
            return (
                f"A {first} {actions[0]} and a {second} {actions[1]} on an empty picture. "
                "The first hits the second in the midst, and both go on without loss."
            )
        if not dense:
            return f"a {names[0]} on an empty picture"
        if self.law == "uniform":
            return (
                f"A {names[0]} {actions[0]} on an empty picture. It keeps its speed and its line "
                "from the first frame to the last, for nothing is in its way."
            )
        return (
            f"A {names[0]} {actions[0]} at first, thrown over an empty picture. Its fall grows "
            "with every frame while its way across keeps the same speed."
        )
