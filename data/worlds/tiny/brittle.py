"""A glass ball hits the ground: a hard hit breaks it into three pieces, a soft one does not.

The splice is the hit. Pieces have the ball's mass (area) and colour, and go on sideways as it did.
Beside the speed of the hit, the ball's mass may differ at the splice, or the moment of its hit.
"""

from dataclasses import dataclass, replace

import numpy as np

from data.worlds.tiny.discs import paint_discs, read_discs
from data.worlds.tiny.paint import GREY, LIGHTS, NAMES, NUM_COLOURS, put, show_inside, to_frames
from data.worlds.tiny.paint import disc as paint_disc
from data.worlds.tiny.state import COLOUR, THERE, Frames, State, X, blank, make_state
from data.worlds.tiny.world import NUM_FRAMES, TIMES, Phrases, World, choose, coin, listed, uniform

HEIGHT_PIXELS, WIDTH_PIXELS = 16, 32
FLOOR = 14  # first row of the ground
SOFT, HARD = (0.5, 0.9), (1.3, 1.6)  # pixels a frame
RADII = (1.8, 2.8)
LATE = 1.5  # frames by which a late hit comes after the splice
LATE_SHARE = 0.25
PIECES = ((-0.95, -0.31), (0.0, -1.0), (0.95, -0.31))  # where they fly
BURST, PACE = 1.4, 0.8  # how far apart they start, radii; their speed, of the hit's
LEAST = {"radius": 0.5, "colour": 1.0, "late": 1.0}
KINDS = ("ground", "ball", "piece", "piece", "piece")


@dataclass(frozen=True)
class Scene:
    """A ball that touches the ground at the splice, or will a little later."""

    x: float
    sideways: float
    impact: float
    radius: float
    colour: int
    late: bool
    light: float


class Brittle(World[Scene]):
    """The glass ball."""

    name = "brittle"
    size = (HEIGHT_PIXELS, WIDTH_PIXELS)
    laws = ("break", "mass", "hit", "colour")

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a hit."""
        return Scene(
            uniform(rng, 13, 19),
            uniform(rng, -0.5, 0.5),
            self._impact(rng),
            uniform(rng, *RADII),
            choose(rng, NUM_COLOURS),
            coin(rng, LATE_SHARE),
            uniform(rng, *LIGHTS),
        )

    @staticmethod
    def _impact(rng: np.random.Generator) -> float:
        return uniform(rng, *(HARD if coin(rng) else SOFT))

    def redraw(self, rng: np.random.Generator, scene: Scene, prop: str) -> Scene:
        """Draw one number again; all are independent."""
        if prop == "break":
            return replace(scene, impact=self._impact(rng))
        if prop == "mass":
            return replace(scene, radius=uniform(rng, *RADII))
        if prop == "hit":
            return replace(scene, late=coin(rng, LATE_SHARE))
        return replace(scene, colour=choose(rng, NUM_COLOURS))

    def changes(self, prop: str) -> tuple[str, ...]:
        """Return the field of a scene that a property may change."""
        return ({"break": "impact", "mass": "radius", "hit": "late"}.get(prop, prop),)

    def matters(self, scene: Scene, prop: str) -> bool:
        """Mass and moment are about what breaks; a late hit lies after the splice."""
        hard = scene.impact > SOFT[1]
        return (hard or prop not in ("mass", "hit")) and (not scene.late or prop == "hit")

    def apart(self, a: Scene, b: Scene, prop: str) -> bool:
        """Ask that one hit is hard and one soft, and of numbers that they can be told apart."""
        if prop == "break":
            return (a.impact > SOFT[1]) != (b.impact > SOFT[1])
        name = self.changes(prop)[0]
        return bool(abs(getattr(a, name) - getattr(b, name)) >= LEAST[name])

    def unroll(self, scene: Scene) -> State:
        """Let the ball come down and go up again, or its pieces fly."""
        bodies = blank(NUM_FRAMES, len(KINDS))
        since = TIMES - LATE * scene.late  # frames since the hit
        low = FLOOR - scene.radius
        x, after = scene.x + scene.sideways * TIMES, since > 0
        put(bodies[:, 0], WIDTH_PIXELS / 2, (FLOOR + HEIGHT_PIXELS) / 2, WIDTH_PIXELS, GREY)
        bodies[:, 0, 4] = HEIGHT_PIXELS - FLOOR
        put(bodies[:, 1], x, low - scene.impact * np.abs(since), 2 * scene.radius, scene.colour)
        if scene.impact > SOFT[1]:
            size = 2 * scene.radius / np.sqrt(len(PIECES))  # three discs of the ball's area
            for number, (across, up) in enumerate(PIECES):
                away = BURST * scene.radius + PACE * scene.impact * np.maximum(since, 0)
                put(bodies[:, 2 + number], x + across * away, low + up * away, size, scene.colour)
                bodies[:, 2 + number, THERE] = after
            bodies[:, 1, THERE] = ~after
        show_inside(bodies, *self.size)
        return make_state(KINDS, bodies, scene.light)

    def render(self, state: State) -> Frames:
        """Draw the ground, and ball and pieces before it."""
        canvas = paint_discs(state, self.size, "none")
        canvas[:, FLOOR:] = np.float32(128)
        for number in range(1, state.bodies.shape[1]):
            paint_disc(canvas, state.bodies[:, number])
        return to_frames(canvas)

    def read(self, frames: Frames) -> State:
        """Read what is of one colour and apart; a lone disc is a ball, several are pieces."""
        found = read_discs(frames[:, :FLOOR], "ball", apart=True)
        many = found.bodies[..., THERE].sum(1, keepdims=True) > 1
        bodies = np.concatenate([found.bodies, found.bodies, blank(len(frames), 1)], 1)
        half = found.bodies.shape[1]
        bodies[:, :half, THERE] *= ~many
        bodies[:, half:-1, THERE] *= many
        put(bodies[:, -1], WIDTH_PIXELS / 2, (FLOOR + HEIGHT_PIXELS) / 2, WIDTH_PIXELS, GREY)
        bodies[:, -1, 4] = HEIGHT_PIXELS - FLOOR
        kinds = ("ball",) * half + ("piece",) * half + ("ground",)
        return make_state(kinds, bodies, found.light, np.nan)

    def phrases(self, state: State) -> Phrases:
        """Name the ball, how it comes and what becomes of it."""
        ball, pieces = state.of("ball")[:, 0], state.of("piece")
        broke = bool(pieces[-1, :, THERE].any())
        step = ball[1] - ball[0]
        side = "right" if step[X] > 0.1 else "left" if step[X] < -0.1 else ""
        hard = step[1] > (SOFT[1] + HARD[0]) / 2
        return {
            "objects": [f"{NAMES[int(ball[0, COLOUR])]} glass ball"],
            "actions": [
                f"falls {'hard' if hard else 'softly'}",
                f"to the {side}" if side else "straight down",
            ],
            "floor": "grey ground",
            "events": ["breaks into three pieces" if broke else "bounces and stays whole"],
        }

    def caption(self, state: State, dense: bool = True) -> str:
        """Say how the ball falls, and whether it breaks."""
        found = self.phrases(state)
        name, (fall, way), event = (
            listed(found, "objects")[0],
            listed(found, "actions"),
            listed(found, "events")[0],
        )
        if not dense:
            return f"a {name} {fall}"
        return (
            f"A {name} {fall} and {way} onto a grey ground. When it meets the ground it {event}, "
            "and nothing else is in the picture."
        )
