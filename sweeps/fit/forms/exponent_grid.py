"""What forms that are not sums of powers share: their starts on a grid, and Chinchilla's form."""

from itertools import product

import numpy as np

from sweeps.fit.forms.base import Array
from sweeps.fit.forms.powers import SumOfPowers, Term

BASE = SumOfPowers(
    "chinchilla",
    "L = E + A / params^alpha + B / tokens^beta",
    (Term("E"), Term("A", (("params", "alpha"),)), Term("B", (("tokens", "beta"),))),
)


def exponent_grid(*axes: Array | tuple[float, ...]) -> Array:
    """Return every combination of the axes' values, one a row (rows, axes)."""
    return np.array(list(product(*axes)), dtype=float)
