"""A dot that circles evenly, or spirals inwards: loops, and the arrow of time.

The even rotor has few clips, and some of them are loops: after a period that divides eight steps
the last frame is the first. Run backwards it obeys its law. The damped rotor, run backwards
(``State.backwards``), moves outwards, which no clip of it does.
"""

from dataclasses import dataclass, replace

import numpy as np

from data.worlds.tiny.discs import paint_discs, read_discs
from data.worlds.tiny.paint import GREY, LIGHTS, NAMES, NUM_COLOURS, put, show_inside, to_frames
from data.worlds.tiny.paint import disc as paint_disc
from data.worlds.tiny.state import COLOUR, Frames, State, X, Y, blank, make_state
from data.worlds.tiny.world import NUM_FRAMES, TIMES, Phrases, World, choose, listed, uniform

SIDE, MIDDLE, RADIUS, HUB = 16, 8.0, 2.0, 1.0
ARM = 5.0
PERIODS = (4, 6, 8, 12)  # frames a turn
PHASES = 24  # angles at the splice
ARMS, LOSSES = (3.0, 3.6), (0.04, 0.09)  # pixels at the splice; share lost each frame
TURNS = (0.4, 1.2)  # radians a frame
LEAST_TURN, LEAST_ARM = 0.3, 0.3


@dataclass(frozen=True)
class Scene:
    """A dot at the splice: angle and turn a frame (radians, clockwise), arm, and its loss."""

    angle: float
    turn: float
    direction: int
    arm: float
    loss: float
    colour: int
    light: float


class Rotor(World[Scene]):
    """The even rotor, its numbers from lists: 24 angles, 4 periods, 2 ways, 6 colours, 3 lights."""

    name = "rotor"
    size = (SIDE, SIDE)
    laws = ("direction", "period", "colour")
    finite = True
    lights = (0.08, 0.16, 0.24)

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a dot."""
        return Scene(
            2 * np.pi * choose(rng, PHASES) / PHASES,
            2 * np.pi / PERIODS[choose(rng, len(PERIODS))],
            choose(rng, 2),
            ARM,
            0.0,
            choose(rng, NUM_COLOURS),
            self.lights[choose(rng, len(self.lights))],
        )

    def redraw(self, rng: np.random.Generator, scene: Scene, prop: str) -> Scene:
        """Draw one number again; all are independent."""
        fresh = self.scene(rng)
        return replace(scene, **{name: getattr(fresh, name) for name in self.changes(prop)})

    def changes(self, prop: str) -> tuple[str, ...]:
        """Return the field of a scene that a property may change."""
        return ({"period": "turn", "radius": "arm"}.get(prop, prop),)

    def apart(self, a: Scene, b: Scene, prop: str) -> bool:
        """Ask of numbers that they can be told apart."""
        least = {"period": LEAST_TURN, "radius": LEAST_ARM}.get(prop, 0.5)
        name = self.changes(prop)[0]
        return bool(abs(getattr(a, name) - getattr(b, name)) >= least)

    def unroll(self, scene: Scene) -> State:
        """Turn to both ends."""
        angle = scene.angle + (1, -1)[scene.direction] * scene.turn * TIMES
        arm = scene.arm * np.exp(-scene.loss * TIMES)
        bodies = blank(NUM_FRAMES, 2)
        put(bodies[:, 0], MIDDLE, MIDDLE, 2 * HUB, GREY)
        x, y = MIDDLE + arm * np.cos(angle), MIDDLE + arm * np.sin(angle)
        put(bodies[:, 1], x, y, 2 * RADIUS, scene.colour)
        show_inside(bodies, *self.size)
        return make_state(("hub", "dot"), bodies, scene.light)

    def render(self, state: State) -> Frames:
        """Draw hub and dot, which is always before it."""
        canvas = paint_discs(state, self.size, "hub")
        paint_disc(canvas, state.of("dot")[:, 0])
        return to_frames(canvas)

    def read(self, frames: Frames) -> State:
        """Read the dot; the hub is always there."""
        found = read_discs(frames, "dot")
        hub = blank(len(frames), 1)
        put(hub[:, 0], MIDDLE, MIDDLE, 2 * HUB, GREY)
        bodies = np.concatenate([hub, found.bodies], 1)
        return make_state(("hub", *found.kinds), bodies, found.light, np.nan)

    def scenes(self) -> list[tuple[Scene, float]]:
        """Return every scene and its probability."""
        ways = [
            Scene(2 * np.pi * phase / PHASES, 2 * np.pi / period, way, ARM, 0.0, colour, light)
            for phase in range(PHASES)
            for period in PERIODS
            for way in range(2)
            for colour in range(NUM_COLOURS)
            for light in self.lights
        ]
        return [(scene, 1 / len(ways)) for scene in ways]

    def phrases(self, state: State) -> Phrases:
        """Name the dot, its way and its pace."""
        dot = state.of("dot")[:, 0]
        across, down = dot[:, X] - MIDDLE, dot[:, Y] - MIDDLE
        turn = float(across[0] * down[1] - down[0] * across[1])
        pace = abs(np.arctan2(turn, across[0] * across[1] + down[0] * down[1]))
        return {
            "objects": [f"{NAMES[int(dot[0, COLOUR])]} dot"],
            "actions": [
                f"circles {'clockwise' if turn > 0 else 'counterclockwise'}",
                "quickly" if pace > 0.9 else "slowly",
            ],
            "path": "narrower" if np.hypot(across[-1], down[-1]) < ARM - 0.5 else "equally wide",
        }

    def caption(self, state: State, dense: bool = True) -> str:
        """Say which way the dot circles, and how its circle changes."""
        found = self.phrases(state)
        name, (way, pace) = listed(found, "objects")[0], listed(found, "actions")
        if not dense:
            return f"a {name} {way}"
        end = "stays equally wide" if found["path"] == "equally wide" else "gets narrower"
        return (
            f"A {name} {way} around a hub in the centre of an empty picture. It goes {pace}, and "
            f"its way {end} from the first frame to the last."
        )


class DampedRotor(Rotor):
    """The rotor that spirals inwards, its numbers from ranges."""

    name = "rotor_damped"
    laws = ("direction", "radius", "colour")
    finite = False

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a dot that loses a share of its arm each frame."""
        return Scene(
            uniform(rng, 0, 2 * np.pi),
            uniform(rng, *TURNS),
            choose(rng, 2),
            uniform(rng, *ARMS),
            uniform(rng, *LOSSES),
            choose(rng, NUM_COLOURS),
            uniform(rng, *LIGHTS),
        )
