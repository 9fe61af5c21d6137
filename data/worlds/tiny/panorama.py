"""A window moves over a street and back: what a place looked like while it was not seen.

The splice is where the window turns. Houses out of sight there must look on the way back as they
did on the way out. ``unseen_frames`` tells for how long each was away.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data.worlds.tiny.paint import LIGHTS, NAMES, NUM_COLOURS, TABLE, show_inside
from data.worlds.tiny.state import (
    COLOUR,
    HEIGHT,
    SEEN,
    THERE,
    WIDTH,
    Frames,
    State,
    X,
    Y,
    blank,
    make_state,
)
from data.worlds.tiny.world import NUM_FRAMES, SPLICE, Phrases, World, choose, listed, uniform

SIDE = 16
HOUSES, HOUSE = 16, 4
LOW, TALL = 4, 13  # heights, pixels
SPEEDS = (3, 4, 5, 6, 7, 8)
TURN = SPLICE - 1  # the frame in which the window is farthest
LEAST_CHANGED = 2  # houses of a pair


@dataclass(frozen=True)
class Scene:
    """A ring of houses and the window at its turn; ``sky`` is its grey before and after."""

    colours: tuple[int, ...]
    heights: tuple[int, ...]
    turn: int
    speed: int
    direction: int
    sky: tuple[float, float]


def window(turn: int, speed: int, direction: int) -> NDArray[np.int64]:
    """Return the window's left edge in every frame, not wrapped."""
    away = np.abs(np.arange(NUM_FRAMES) - TURN)
    return turn + (1, -1)[direction] * speed * away


def unseen_frames(state: State) -> NDArray[np.int64]:
    """Return for every house the frames between its last sight before the turn and its next.

    0 for a house that is in sight at the turn, or not on both sides of it.
    """
    seen = state.of("house")[:, :, SEEN] > 0  # (F, N)
    found = np.zeros(seen.shape[1], np.int64)
    for house in range(seen.shape[1]):
        frames = np.flatnonzero(seen[:, house])
        before, after = frames[frames < TURN], frames[frames > TURN]
        if len(before) and len(after) and not seen[TURN, house]:
            found[house] = after[0] - before[-1] - 1
    return found


class Panorama(World[Scene]):
    """The street."""

    name = "panorama"
    size = (SIDE, SIDE)
    laws = ("place", "colour")
    free = ("sky",)

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a street and a way over it."""
        return Scene(
            *self._houses(rng),
            choose(rng, HOUSES * HOUSE),
            SPEEDS[choose(rng, len(SPEEDS))],
            choose(rng, 2),
            (uniform(rng, *LIGHTS), uniform(rng, *LIGHTS)),
        )

    @staticmethod
    def _houses(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
        colours = (rng.random(HOUSES) * NUM_COLOURS).astype(int)
        heights = LOW + (rng.random(HOUSES) * (TALL - LOW + 1)).astype(int)
        return tuple(colours.tolist()), tuple(heights.tolist())

    def redraw(self, rng: np.random.Generator, scene: Scene, prop: str) -> Scene:
        """Draw the houses that are out of sight at the turn again, or their colours alone."""
        if prop == "sky":
            return replace(scene, sky=(uniform(rng, *LIGHTS), uniform(rng, *LIGHTS)))
        colours, heights = self._houses(rng)
        away = self._out_of_sight(scene)
        found = replace(scene, colours=_mixed(scene.colours, colours, away))
        return (
            found
            if prop == "colour"
            else replace(found, heights=_mixed(scene.heights, heights, away))
        )

    @staticmethod
    def _out_of_sight(scene: Scene) -> list[bool]:
        left = (np.arange(HOUSES) * HOUSE - scene.turn) % (HOUSES * HOUSE)
        return [bool(SIDE <= edge <= HOUSES * HOUSE - HOUSE) for edge in left]

    def changes(self, prop: str) -> tuple[str, ...]:
        """Return the fields of a scene that a property may change."""
        return {"place": ("colours", "heights"), "colour": ("colours",)}.get(prop, (prop,))

    def matters(self, scene: Scene, prop: str) -> bool:
        """A house must leave the window and come back."""
        return prop == "sky" or bool((unseen_frames(self.unroll(scene)) > 0).any())

    def apart(self, a: Scene, b: Scene, prop: str) -> bool:
        """Ask of a pair that two houses that come back differ."""
        if prop == "sky":
            # Both halves must differ, and by little: halves that are exchanged are equally bright.
            return all(0.03 < abs(x - y) < 0.09 for x, y in zip(a.sky, b.sky, strict=True))
        back = unseen_frames(self.unroll(a)) > 0
        return int((back & (np.array(a.colours) != b.colours)).sum()) >= LEAST_CHANGED

    def unroll(self, scene: Scene) -> State:
        """Move the window from the turn to both ends."""
        edge = window(scene.turn, scene.speed, scene.direction)
        ring = HOUSES * HOUSE
        left = (np.arange(HOUSES) * HOUSE - edge[:, None] + HOUSE) % ring - HOUSE  # (F, N)
        bodies = blank(NUM_FRAMES, HOUSES)
        height = np.array(scene.heights, np.float64)
        bodies[..., X], bodies[..., Y] = left + HOUSE / 2, SIDE - height / 2
        bodies[..., WIDTH], bodies[..., HEIGHT] = HOUSE, height
        bodies[..., COLOUR] = scene.colours
        bodies[..., [THERE, SEEN]] = 1.0
        show_inside(bodies, *self.size)
        light = np.where(np.arange(NUM_FRAMES) < SPLICE, *scene.sky)
        return make_state(("house",) * HOUSES, bodies, light, edge.astype(np.float64))

    def render(self, state: State) -> Frames:
        """Draw what the window shows."""
        columns, rows = np.arange(SIDE), np.arange(SIDE)[:, None]
        bodies = state.bodies
        left = (bodies[..., X] - HOUSE / 2).astype(int)  # (F, N)
        over = (columns >= left[..., None]) & (columns < left[..., None] + HOUSE)  # (F, N, W)
        house = over.argmax(1)  # (F, W)
        frames = np.arange(len(bodies))[:, None]
        top = SIDE - bodies[frames, house, HEIGHT]  # (F, W)
        ink = TABLE[bodies[frames, house, COLOUR].astype(int)][:, None]  # (F, 1, W, 3)
        sky = np.round(state.light * 255)[:, None, None, None]
        wall = np.where((left[frames, house] == columns)[:, None, :, None], ink * 0.7, ink)
        found = np.where((rows >= top[:, None])[..., None], wall, sky)
        return found.astype(np.uint8)

    def read(self, frames: Frames) -> State:
        """Read houses by their left edges, which are darker; the window's place is not read."""
        bodies = blank(len(frames), SIDE // HOUSE + 1)
        inks = TABLE[:NUM_COLOURS]
        for index, frame in enumerate(frames.astype(np.float64)):
            foot = frame[-1]  # (W, 3): every house stands on the ground
            plain = np.abs(foot[:, None] - inks).max(-1)  # (W, 6)
            edge = np.abs(foot[:, None] - inks * 0.7).max(-1)
            start = int(edge.min(1).reshape(-1, HOUSE).sum(0).argmin())
            for number, left in enumerate(range(start - HOUSE, SIDE, HOUSE)):
                shown = slice(max(left + 1, 0), min(left + HOUSE, SIDE))
                if shown.stop <= shown.start:
                    continue
                ink = int(plain[shown].sum(0).argmin())
                column = frame[:, shown].mean(1)
                sky = frames[index, 0, shown].astype(np.float64).mean(0)
                near = np.abs(column - inks[ink]).sum(1) < np.abs(column - sky).sum(1)
                height = float(near.sum())
                body = bodies[index, number]
                body[[X, Y, WIDTH, HEIGHT]] = left + HOUSE / 2, SIDE - height / 2, HOUSE, height
                body[[COLOUR, THERE, SEEN]] = ink, 1.0, (shown.stop - shown.start) / HOUSE
        light = frames[:, 0].reshape(len(frames), -1).mean(1) / 255
        return make_state(("house",) * bodies.shape[1], bodies, light, np.nan)

    def phrases(self, state: State) -> Phrases:
        """Name the houses of the first frame from left to right, and the way."""
        first = state.bodies[0][state.bodies[0, :, SEEN] >= 0.5]
        first = first[np.argsort(first[:, X])]
        names = [
            f"{'tall' if h > 8 else 'low'} {NAMES[int(c)]} house"
            for h, c in first[:, [HEIGHT, COLOUR]]
        ]
        side = "right" if state.camera[TURN] > state.camera[0] else "left"
        pace = "quickly" if abs(state.camera[1] - state.camera[0]) > 5 else "slowly"
        return {"objects": names, "camera": f"moves {pace} to the {side}"}

    def caption(self, state: State, dense: bool = True) -> str:
        """Say which houses the window leaves and comes back to."""
        found = self.phrases(state)
        names = listed(found, "objects")
        if not dense:
            return f"a window past a {names[0]} and back"
        return (
            f"A window over a street shows a {', then a '.join(names)}. It {found['camera']} over "
            "houses next to them, turns round and comes back to where it was."
        )


def _mixed(old: tuple[int, ...], new: tuple[int, ...], changed: list[bool]) -> tuple[int, ...]:
    """Take the new values where they changed."""
    return tuple(n if c else o for o, n, c in zip(old, new, changed, strict=True))
