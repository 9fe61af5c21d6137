"""Discs and boxes with soft edges, and tiles of four pixels, drawn by numpy.

A disc of radius r covers a pixel whose centre is d away by clip(r + 1/2 - d, 0, 1), so that it
covers pi (r^2 + 1/12) pixels in all. A box covers the product of two overlaps, which is exact.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data.worlds.tiny.state import COLOUR, HEIGHT, SEEN, THERE, WIDTH, Array, Frames, X, Y

Canvas = NDArray[np.float32]  # (F, H, W, 3), 0 to 255
# The first six are of bodies. No mix of two of them, or of one and a grey, comes near a third, as
# some of palette.COLOURS do: a soft edge is never taken for another body.
INKS: dict[str, tuple[int, int, int]] = {
    "red": (235, 50, 50),
    "yellow": (245, 215, 50),
    "green": (50, 195, 70),
    "blue": (60, 95, 245),
    "pink": (235, 80, 225),
    "teal": (50, 215, 225),
    "grey": (128, 128, 128),
    "white": (245, 245, 245),
    "black": (12, 12, 12),
    "brown": (125, 80, 40),
}
NAMES = tuple(INKS)
NUM_COLOURS = 6
GREY, WHITE, BLACK, BROWN = (NAMES.index(name) for name in ("grey", "white", "black", "brown"))
TABLE = np.array(list(INKS.values()), np.float32)  # (I, 3)
LIGHTS = (0.08, 0.3)  # of the ground: dark enough for every colour to stand out
TILE = 4


@lru_cache
def grid(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the centres of pixels, (1, H, 1) and (1, 1, W)."""
    y, x = (np.arange(n, dtype=np.float32) + 0.5 for n in (height, width))
    return y[None, :, None], x[None, None, :]


def ground(light: Array, height: int, width: int) -> Canvas:
    """Return plain grey frames."""
    grey = np.asarray(light * 255, np.float32)[:, None, None, None]
    return np.broadcast_to(grey, (len(light), height, width, 3)).copy()


def disc(canvas: Canvas, body: Array) -> None:
    """Paint a disc in every frame in which it is there; body: (F, FIELDS)."""
    y, x = grid(*canvas.shape[1:3])
    columns = np.asarray(body.T[[X, Y, WIDTH, THERE]], np.float32)[:, :, None, None]
    across, down = x - columns[0], y - columns[1]
    cover = columns[2] / 2 + np.float32(0.5) - np.sqrt(across * across + down * down)
    blend(canvas, np.clip(cover, 0, columns[3]), body)


def box(canvas: Canvas, body: Array) -> None:
    """Paint a box in every frame in which it is there; body: (F, FIELDS)."""
    y, x = grid(*canvas.shape[1:3])
    columns = np.asarray(body.T[[X, Y, WIDTH, HEIGHT, THERE]], np.float32)[:, :, None, None]
    across = overlap(x, columns[0], columns[2])  # (F, 1, W)
    down = overlap(y, columns[1], columns[3])  # (F, H, 1)
    blend(canvas, across * down * columns[4], body)


def overlap(
    pixel: NDArray[np.float32], middle: NDArray[np.float32], side: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return how much of each pixel a side covers."""
    half = np.float32(0.5)
    stop = np.minimum(pixel + half, middle + side / 2)
    found: NDArray[np.float32] = np.clip(stop - np.maximum(pixel - half, middle - side / 2), 0, 1)
    return found


def blend(canvas: Canvas, cover: NDArray[np.float32], body: Array) -> None:
    """Lay a body's colour over a canvas where it covers it."""
    ink = TABLE[body[:, COLOUR].astype(int)][:, None, None]  # (F, 1, 1, 3)
    canvas += cover[..., None] * (ink - canvas)


def to_frames(canvas: Canvas) -> Frames:
    """Round to bytes."""
    return (canvas + np.float32(0.5)).astype(np.uint8)


def tiled(icons: NDArray[np.uint8], cells: NDArray[np.int64]) -> Frames:
    """Lay icons (I, 4, 4, 3) out as cells (F, h, w) say."""
    num_frames, rows, columns = cells.shape
    tiles = icons[cells].transpose(0, 1, 3, 2, 4, 5)  # (F, h, 4, w, 4, 3)
    return tiles.reshape(num_frames, rows * TILE, columns * TILE, 3)


def put(body: Array, x: Array | float, y: Array | float, size: float, colour: int) -> None:
    """Fill in a body that is there and in sight; body: (F, FIELDS)."""
    body[:, X], body[:, Y] = x, y
    body[:, WIDTH] = body[:, HEIGHT] = size
    body[:, COLOUR] = colour
    body[:, [THERE, SEEN]] = 1.0


def show_inside(bodies: Array, height: int, width: int) -> None:
    """Reduce what is seen of bodies to what lies in the frame; bodies: (..., FIELDS)."""
    shown = np.ones(bodies.shape[:-1])
    for axis, side, length in ((X, WIDTH, width), (Y, HEIGHT, height)):
        half = bodies[..., side] / 2
        low, high = bodies[..., axis] - half, bodies[..., axis] + half
        inside = np.minimum(high, length) - np.maximum(low, 0)
        shown *= np.clip(inside / np.maximum(2 * half, 1e-9), 0, 1)
    bodies[..., SEEN] *= shown * bodies[..., THERE]
