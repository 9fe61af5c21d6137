"""Forms of whole runs that are not sums of powers: Kaplan's, a broken power, repeated data."""

from itertools import product

import numpy as np

from sweeps.fit.forms.base import Array
from sweeps.fit.forms.powers import SumOfPowers, Term

BASE = SumOfPowers(
    "chinchilla",
    "L = E + A / params^alpha + B / tokens^beta",
    (Term("E"), Term("A", (("params", "alpha"),)), Term("B", (("tokens", "beta"),))),
)


def _grid(*axes: Array | tuple[float, ...]) -> Array:
    return np.array(list(product(*axes)), dtype=float)
