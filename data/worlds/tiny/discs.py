"""Worlds of plain discs: how all of them are drawn and read."""

from collections.abc import Sequence

import numpy as np

from data.worlds.tiny.look import FAINT, clumps, diameter, inks_of, light_of, middle, shares
from data.worlds.tiny.paint import Canvas, disc, ground, put, to_frames
from data.worlds.tiny.state import Array, Frames, State, Z, blank, make_state

MOST_CLUMPS = 4


def paint_discs(state: State, size: tuple[int, int], kind: str) -> Canvas:
    """Paint the discs of a kind on their ground, the nearest last."""
    canvas = ground(state.light, *size)
    bodies = state.of(kind)
    depths = bodies[:, :, Z]
    if depths.any():
        order = np.argsort(depths, axis=1, kind="stable")
        bodies = np.take_along_axis(bodies, order[:, :, None], 1)
    for number in range(bodies.shape[1]):
        disc(canvas, bodies[:, number])
    return canvas


def render_discs(state: State, size: tuple[int, int], kind: str) -> Frames:
    """Draw the discs of a kind."""
    return to_frames(paint_discs(state, size, kind))


def read_discs(frames: Frames, kind: str, apart: bool = False) -> State:
    """Read discs of up to three colours; ``apart`` looks for several of one colour.

    Depth is not read.
    """
    inks, light = inks_of(frames), light_of(frames)
    found = shares(frames, inks, light)
    most = MOST_CLUMPS if apart else 1
    bodies = blank(len(frames), most * len(inks))
    for number, ink in enumerate(inks.tolist()):
        for frame in range(len(frames)):
            share = found[frame, number]
            parts = _largest(clumps(share), most) if apart else [share]
            for part, pixels in enumerate(parts):
                if pixels.sum() > FAINT:
                    x, y, area = middle(pixels)
                    body = bodies[frame : frame + 1, most * number + part]
                    put(body, x, y, diameter(area), ink)
    return make_state((kind,) * (most * len(inks)), bodies, light, np.nan)


def _largest(parts: Sequence[Array], most: int) -> list[Array]:
    return sorted(parts, key=lambda share: -float(share.sum()))[:most]
