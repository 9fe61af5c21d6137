"""A brush paints cells, or a mouth bites them away, and what was done stays: interaction.

At the splice brush and remaining path are shared. What may differ is what was done to the canvas
before: whether an early stroke (or bite) was made, and where an old mark lies and of which colour.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data.worlds.tiny.look import cells_of
from data.worlds.tiny.paint import BLACK, NAMES, NUM_COLOURS, TABLE, TILE, WHITE, tiled
from data.worlds.tiny.state import (
    COLOUR,
    HEIGHT,
    SEEN,
    THERE,
    WIDTH,
    Array,
    Frames,
    State,
    X,
    Y,
    blank,
    make_state,
)
from data.worlds.tiny.world import NUM_FRAMES, SPLICE, Phrases, World, choose, coin, listed

SIDE, CELLS = 5, 25
MARKS = 3
EMPTY = NUM_COLOURS  # the icon of a cell without paint; with the brush, NUM_COLOURS + 1 further
COOKIE = range(SIDE, CELLS - SIDE)  # three rows
BITES = 0.4  # share of clips in which a mouth bites instead of a brush painting
PRESSED = 0.75  # share of steps in which brush or mouth does something
KINDS = ("mark",) * CELLS + ("brush",)
NAMES_OF_WAYS = {1: "right", -1: "left", SIDE: "down", -SIDE: "up"}


def neighbours(cell: int) -> list[int]:
    """Return the cells beside a cell."""
    row, column = divmod(cell, SIDE)
    ways = [(row, column + 1), (row, column - 1), (row + 1, column), (row - 1, column)]
    return [r * SIDE + c for r, c in ways if 0 <= r < SIDE and 0 <= c < SIDE]


NEIGHBOURS = [neighbours(cell) for cell in range(CELLS)]


def icons() -> NDArray[np.uint8]:
    """Return a cell of each colour and an empty one, without and with the brush, (14, 4, 4, 3)."""
    plain = np.empty((NUM_COLOURS + 1, TILE, TILE, 3), np.uint8)
    plain[:NUM_COLOURS] = TABLE[:NUM_COLOURS, None, None]
    plain[EMPTY] = TABLE[WHITE]
    brushed = plain.copy()
    brushed[:, 1:3, 1:3] = TABLE[BLACK]
    return np.concatenate([plain, brushed])


ICONS = icons()


@dataclass(frozen=True)
class Scene:
    """What happens to a canvas: old marks, the brush's cells and whether it presses in each."""

    bites: bool
    colour: int
    path: tuple[int, ...]
    pressed: tuple[bool, ...]
    cells: tuple[int, int, int]
    colours: tuple[int, int, int]


class Canvas(World[Scene]):
    """The canvas."""

    name = "canvas"
    size = (SIDE * TILE, SIDE * TILE)
    laws = ("undone", "moved", "recoloured")

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw marks and a path."""
        path = [choose(rng, CELLS)]
        while len(path) < NUM_FRAMES:
            beside = NEIGHBOURS[path[-1]]
            path.append(beside[choose(rng, len(beside))])
        pressed = tuple((rng.random(NUM_FRAMES) < PRESSED).tolist())
        a, b, c = (choose(rng, CELLS) for _ in range(MARKS))
        d, e, f = (choose(rng, NUM_COLOURS) for _ in range(MARKS))
        bites = coin(rng, BITES)
        return Scene(bites, choose(rng, NUM_COLOURS), tuple(path), pressed, (a, b, c), (d, e, f))

    def redraw(self, rng: np.random.Generator, scene: Scene, prop: str) -> Scene:
        """Draw again whether an early step did something, or one old mark's cell or colour."""
        if prop == "undone":
            step = choose(rng, SPLICE - 1)
            pressed = list(scene.pressed)
            pressed[step] = coin(rng, PRESSED)
            return replace(scene, pressed=tuple(pressed))
        if prop == "moved":
            return replace(scene, cells=(*scene.cells[:2], choose(rng, CELLS)))
        return replace(scene, colours=(*scene.colours[:2], choose(rng, NUM_COLOURS)))

    def changes(self, prop: str) -> tuple[str, ...]:
        """Return the field of a scene that a property may change."""
        return ({"undone": "pressed", "moved": "cells", "recoloured": "colours"}[prop],)

    def apart(self, a: Scene, b: Scene, prop: str) -> bool:
        """Ask that what differs is in sight on both sides of the splice."""
        one, other = (self.unroll(scene).bodies[[SPLICE - 1, SPLICE, -1]] for scene in (a, b))
        return bool((one != other).any((1, 2)).all())

    def unroll(self, scene: Scene) -> State:
        """Let the brush act, from the first frame on; it is the path that runs both ways."""
        canvas = np.full(CELLS, EMPTY)
        if scene.bites:
            canvas[list(COOKIE)] = scene.colour
        canvas[list(scene.cells)] = scene.colours
        bodies = blank(NUM_FRAMES, CELLS + 1)
        row, column = np.divmod(np.arange(CELLS), SIDE)
        bodies[:, :CELLS, X], bodies[:, :CELLS, Y] = (column + 0.5) * TILE, (row + 0.5) * TILE
        bodies[:, :CELLS, [WIDTH, HEIGHT]] = TILE
        for frame, (cell, pressed) in enumerate(zip(scene.path, scene.pressed, strict=True)):
            if pressed:
                canvas[cell] = EMPTY if scene.bites else scene.colour
            bodies[frame, :CELLS, COLOUR] = canvas
        bodies[:, :CELLS, THERE] = bodies[:, :CELLS, SEEN] = bodies[:, :CELLS, COLOUR] < EMPTY
        bodies[:, :CELLS, COLOUR] *= bodies[:, :CELLS, THERE]
        put_brush(bodies[:, CELLS], np.array(scene.path))
        return make_state(KINDS, bodies, 1.0, words=steps_of(scene))

    def render(self, state: State) -> Frames:
        """Draw the cells."""
        marks = state.bodies[:, :CELLS]
        cells = np.where(marks[..., THERE] > 0, marks[..., COLOUR], EMPTY).astype(int)
        brush = state.bodies[:, CELLS]
        place = (brush[:, Y] // TILE * SIDE + brush[:, X] // TILE).astype(int)
        cells[np.arange(len(cells)), place] += NUM_COLOURS + 1
        return tiled(ICONS, cells.reshape(-1, SIDE, SIDE))

    def read(self, frames: Frames) -> State:
        """Read every cell as the icon that it is most like."""
        cells = cells_of(frames, ICONS).reshape(len(frames), CELLS)
        bodies = blank(len(frames), CELLS + 1)
        row, column = np.divmod(np.arange(CELLS), SIDE)
        bodies[:, :CELLS, X], bodies[:, :CELLS, Y] = (column + 0.5) * TILE, (row + 0.5) * TILE
        bodies[:, :CELLS, [WIDTH, HEIGHT]] = TILE
        brushed, ink = np.divmod(cells, NUM_COLOURS + 1)
        bodies[:, :CELLS, THERE] = bodies[:, :CELLS, SEEN] = ink < EMPTY
        bodies[:, :CELLS, COLOUR] = np.where(ink < EMPTY, ink, 0)
        put_brush(bodies[:, CELLS], brushed.argmax(1))
        bodies[:, CELLS, THERE] = brushed.any(1)
        return make_state(KINDS, bodies, 1.0, np.nan)

    def phrases(self, state: State) -> Phrases:
        """Name what acts, and which colours lie on the canvas at first and at last."""
        marks = state.bodies[:, :CELLS]
        seen = [
            [NAMES[int(ink)] for ink in np.unique(frame[frame[:, THERE] > 0, COLOUR])]
            for frame in (marks[0], marks[-1])
        ]
        grown = marks[-1, :, THERE].sum() - marks[0, :, THERE].sum()
        return {
            "first": seen[0] or ["no colour"],
            "last": seen[1] or ["no colour"],
            "more": "more paint" if grown > 0 else "less paint" if grown < 0 else "as much paint",
            "steps": sorted({word for word in state.words if word}),
        }

    def caption(self, state: State, dense: bool = True) -> str:
        """Say what lies on the canvas, and what the brush does step by step."""
        found = self.phrases(state)
        first, last = (" and ".join(listed(found, key)) for key in ("first", "last"))
        if not dense:
            return f"a brush on a canvas with {first}"
        steps = ", ".join(word for word in state.words if word)
        return (
            f"On a canvas with {first} a brush goes: {steps}. At the end there is {last}, "
            f"{found['more']} than before."
        )


def steps_of(scene: Scene) -> tuple[str, ...]:
    """Return what the brush does in every frame, the first one's too."""
    act = "bites" if scene.bites else "paints"
    ways = ["", *(NAMES_OF_WAYS[b - a] for a, b in zip(scene.path, scene.path[1:], strict=False))]
    return tuple(
        " and ".join(word for word in (way, act if pressed else "") if word)
        for way, pressed in zip(ways, scene.pressed, strict=True)
    )


def put_brush(body: Array, cells: NDArray[np.int64]) -> None:
    """Fill in the brush, which lies in the middle of a cell; body: (F, FIELDS)."""
    row, column = np.divmod(cells, SIDE)
    body[:, X], body[:, Y] = (column + 0.5) * TILE, (row + 0.5) * TILE
    body[:, [WIDTH, HEIGHT]] = TILE / 2
    body[:, COLOUR] = BLACK
    body[:, [THERE, SEEN]] = 1.0
