"""Rows that share a point: the seeds of one (params, tokens), whatever their last digits."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from sweeps.fit.forms.base import Array

# Seeds of one point differ by the rounding of tokens to whole steps and of parameters in a table;
# the nearest designs on record (sizes spaced by 1.02, checkpoints) by more than ten times this.
CELL = 3e-4  # of a logarithm


def points_of(columns: Sequence[Array]) -> list[int]:
    """Return for each row the first row at its point: equal in every column to some 1e-4.

    Two rows within half a cell of each other in every column share a cell of at least one of the
    grids that lie half a cell apart.
    """
    count = len(columns[0]) if columns else 0
    logs = [
        np.log(np.maximum(c, 1e-300)) / CELL if _varies(c) else np.zeros(count) for c in columns
    ]
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for shifts in product((0.0, 0.5), repeat=len(logs)):
        cells = np.stack([np.floor(x + s) for x, s in zip(logs, shifts, strict=True)], axis=1)
        seen: dict[bytes, int] = {}
        for i, cell in enumerate(np.ascontiguousarray(cells)):
            first, other = sorted((root(seen.setdefault(cell.tobytes(), i)), root(i)))
            parent[other] = first
    return [root(i) for i in range(count)]


def _varies(column: Array) -> bool:
    return bool(len(column)) and bool(np.ptp(column) > 0)
