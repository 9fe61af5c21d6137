"""A ball crosses a strip and passes behind a wall: permanence.

The splice lies behind the wall, where nothing of the ball can be seen. Its colour, lane, speed and
direction, and whether it is there at all, must be the same on both sides. The lamp on the wall may
change there, which no law forbids. A strip without a ball has few pictures, and those come again.
"""

from dataclasses import dataclass, replace

import numpy as np

from data.worlds.tiny.look import FAINT, inks_of, light_of, middle, shares
from data.worlds.tiny.paint import (
    BLACK,
    GREY,
    LIGHTS,
    NAMES,
    NUM_COLOURS,
    WHITE,
    ground,
    put,
    show_inside,
    to_frames,
)
from data.worlds.tiny.paint import box as paint_box
from data.worlds.tiny.state import (
    COLOUR,
    SEEN,
    THERE,
    WIDTH,
    Array,
    Frames,
    State,
    X,
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

SIDE, WALL_X, WALL_WIDTH, LAMP = 4, 16.0, 8, 2
LANES = (2.0, 6.0)
SPEEDS = (2.2, 3.0)  # pixels a frame
OFFSET = 0.5  # pixels: how far from the wall's middle the ball is at the splice
THERE_SHARE = 0.85
APART = 0.3  # pixels a frame between the speeds of a pair
KINDS = ("wall", "lamp", "ball")


@dataclass(frozen=True)
class Scene:
    """A ball behind the wall at the splice; ``lamps`` is lit before and after."""

    existence: bool
    colour: int
    lane: int
    direction: int
    speed: float
    offset: float
    light: float
    lamp: tuple[bool, bool]


class Strip(World[Scene]):
    """The strip, its numbers drawn from ranges."""

    name = "strip"
    size = (8, 32)
    laws: tuple[str, ...] = ("existence", "colour", "lane", "direction", "speed")
    free = ("lamp",)

    def draw_property(self, rng: np.random.Generator, prop: str) -> object:
        """Draw one number of a scene."""
        if prop == "existence":
            return coin(rng, THERE_SHARE)
        if prop == "lamp":
            return coin(rng), coin(rng)
        if prop in ("lane", "direction"):
            return choose(rng, 2)
        low, high = {"speed": SPEEDS, "offset": (-OFFSET, OFFSET), "light": LIGHTS}.get(
            prop, (0, 0)
        )
        return choose(rng, NUM_COLOURS) if prop == "colour" else uniform(rng, low, high)

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a ball behind the wall."""
        return Scene(**{name: self.draw_property(rng, name) for name in Scene.__annotations__})  # type: ignore[arg-type]

    def redraw(self, rng: np.random.Generator, scene: Scene, prop: str) -> Scene:
        """Draw one number again; all are independent."""
        return replace(scene, **{prop: self.draw_property(rng, prop)})  # type: ignore[arg-type]

    def matters(self, scene: Scene, prop: str) -> bool:
        """Only a ball that is there has a colour."""
        return scene.existence or prop in ("existence", "lamp")

    def apart(self, a: Scene, b: Scene, prop: str) -> bool:
        """Ask of speeds that they can be told apart, and of lamps that both halves differ."""
        if prop == "lamp":
            return a.lamp[0] != b.lamp[0] and a.lamp[1] != b.lamp[1]
        return abs(a.speed - b.speed) >= APART if prop == "speed" else super().apart(a, b, prop)

    def unroll(self, scene: Scene) -> State:
        """Let the ball run at its speed to both ends."""
        bodies = blank(NUM_FRAMES, len(KINDS))
        wall, lamp, ball = bodies.transpose(1, 0, 2)
        put(wall, WALL_X, 4.0, WALL_WIDTH, GREY)
        put(lamp, WALL_X, LAMP / 2, LAMP, WHITE)
        lamp[:, COLOUR] = np.where(np.arange(NUM_FRAMES) < SPLICE, *_lamp_inks(scene.lamp))
        if scene.existence:
            way = (-1, 1)[scene.direction]
            x = WALL_X + scene.offset + way * scene.speed * TIMES
            put(ball, x, LANES[scene.lane], SIDE, scene.colour)
            show_inside(ball, *self.size)
            low, high = np.abs(x - WALL_X) - SIDE / 2, np.abs(x - WALL_X) + SIDE / 2
            behind = np.clip(np.minimum(high, WALL_WIDTH / 2) - low, 0, SIDE) / SIDE
            ball[:, SEEN] = np.maximum(ball[:, SEEN] - behind, 0)
        return make_state(KINDS, bodies, scene.light)

    def render(self, state: State) -> Frames:
        """Draw the ball, then the wall before it."""
        canvas = ground(state.light, *self.size)
        _, lamp, ball = state.bodies.transpose(1, 0, 2)
        paint_box(canvas, ball)
        left = int(WALL_X - WALL_WIDTH / 2)
        canvas[:, :, left : left + WALL_WIDTH] = np.float32(128)
        bright = np.where(lamp[:, COLOUR] == WHITE, np.float32(245), np.float32(12))
        middle_x = int(WALL_X - LAMP / 2)
        canvas[:, :LAMP, middle_x : middle_x + LAMP] = bright[:, None, None, None]
        return to_frames(canvas)

    def read(self, frames: Frames) -> State:
        """Read lamp and ball; a ball is where its ink is."""
        inks, left = inks_of(frames), int(WALL_X - WALL_WIDTH / 2)
        light = light_of(np.delete(frames, slice(left, left + WALL_WIDTH), 2))
        bodies = blank(len(frames), 2 + len(inks))
        put(bodies[:, 0], WALL_X, 4.0, WALL_WIDTH, GREY)
        put(bodies[:, 1], WALL_X, LAMP / 2, LAMP, WHITE)
        lamp = frames[:, :LAMP, int(WALL_X) - 1 : int(WALL_X) + 1].mean((1, 2, 3))
        bodies[:, 1, COLOUR] = np.where(lamp > 128, WHITE, BLACK)
        found = shares(frames, inks, light)
        for number, share in enumerate(found.transpose(1, 0, 2, 3)):
            for frame in np.flatnonzero(share.sum((1, 2)) > FAINT):
                x, y, area = middle(share[frame])
                put(bodies[frame : frame + 1, 2 + number], x, y, SIDE, int(inks[number]))
                bodies[frame, 2 + number, WIDTH] = area / SIDE
        return make_state(("wall", "lamp", *("ball",) * len(inks)), bodies, light, np.nan)

    def phrases(self, state: State) -> Phrases:
        """Name the ball by its first and last sight, and the lamp."""
        ball, lamp = state.of("ball")[:, 0], state.of("lamp")[:, 0]
        lit = "white" if lamp[0, COLOUR] == WHITE else "black"
        late = "white" if lamp[-1, COLOUR] == WHITE else "black"
        found: Phrases = {
            "lamp": f"{lit} lamp",
            "later": f"{late} lamp",
            "wall": ["grey wall", "wall"],
        }
        ends = [half for half in (ball[:SPLICE], ball[SPLICE:]) if half[:, THERE].any()]
        if ends:
            found["objects"] = [f"{NAMES[int(half[0, COLOUR])]} ball" for half in ends]
            found["actions"] = [_motion(half) for half in ends]
        return found

    def caption(self, state: State, dense: bool = True) -> str:
        """Say what runs where, and which lamp is on the wall."""
        found = self.phrases(state)
        names, actions = listed(found, "objects"), listed(found, "actions")
        if not dense:
            return f"a {names[0]} and a grey wall" if names else "a grey wall and nothing else"
        lamp, later = found["lamp"], found["later"]
        lamps = f"There is a {lamp} on the wall" + (
            f", then a {later}." if lamp != later else " all the time."
        )
        if not names:
            return f"There is a grey wall on an empty strip, and nothing passes by. {lamps}"
        words = f"On a strip with a grey wall a {names[0]} {actions[0]}"
        if len(names) > 1 and (names[0], actions[0]) != (names[1], actions[1]):
            words += f", and past the wall a {names[1]} {actions[1]}"
        return f"{words}. {lamps}"


def _lamp_inks(lamp: tuple[bool, bool]) -> tuple[int, int]:
    """Return the inks of a lamp before and after."""
    first, second = (WHITE if lit else BLACK for lit in lamp)
    return first, second


def _motion(half: Array) -> str:
    """Say which way and in which lane a ball moves."""
    side = "right" if half[-1, X] > half[0, X] else "left"
    lane = "upper" if half[0, 1] < 4 else "lower"
    return f"moves {side} in the {lane} lane"


class FiniteStrip(Strip):
    """The strip with its numbers from lists: 12 settings times (288 balls or none), 3,468 clips."""

    name = "strip_finite"
    finite = True
    lights = (0.08, 0.16, 0.24)
    speeds = (2.2, 2.6, 3.0)
    offsets = (-0.5, -0.2, 0.1, 0.4)

    def draw_property(self, rng: np.random.Generator, prop: str) -> object:
        """Draw one number of a scene from its list."""
        values = {"light": self.lights, "speed": self.speeds, "offset": self.offsets}.get(prop)
        if values is None:
            return super().draw_property(rng, prop)
        return values[choose(rng, len(values))]

    def scenes(self) -> list[tuple[Scene, float]]:
        """Return every scene that gives a clip of its own, and its probability."""
        found = []
        settings = [
            (light, (a, b)) for light in self.lights for a in (False, True) for b in (False, True)
        ]
        balls = [
            (colour, lane, way, speed, offset)
            for colour in range(NUM_COLOURS)
            for lane in range(2)
            for way in range(2)
            for speed in self.speeds
            for offset in self.offsets
        ]
        for light, lamp in settings:
            share = 1 / len(settings)
            none = Scene(False, 0, 0, 0, self.speeds[0], self.offsets[0], light, lamp)
            found.append((none, share * (1 - THERE_SHARE)))
            found += [
                (Scene(True, *ball, light, lamp), share * THERE_SHARE / len(balls))
                for ball in balls
            ]
        return found
