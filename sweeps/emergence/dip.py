"""The dip test of unimodality (Hartigan and Hartigan 1985, Annals of Statistics 13, 70).

The dip of n values is the least distance, over all unimodal distributions G, of their empirical
distribution function F to G. G is convex below its mode and concave above: the algorithm closes in
on the modal interval, from which the greatest convex minorant of F runs down and the least concave
majorant runs up. The p-value counts samples of the uniform distribution with a larger dip, which is
the least favourable unimodal one.
"""

from collections.abc import Sequence

import numpy as np

from sweeps.emergence.finding import Array

DRAWS = 2000  # of uniform samples behind a p-value, whose standard error at 0.05 is 0.005


def dip(values: Sequence[float] | Array) -> float:
    """Return the dip of values, from 1 / (2 n) up to 1/4. Raises ValueError on fewer than four."""
    x = np.sort(np.asarray(values, dtype=np.float64))
    n = len(x)
    if n < 4:
        raise ValueError(f"values={n}: must be at least 4 for a dip. Run more seeds.")
    if x[0] == x[-1]:
        return 1 / (2 * n)
    # Ranks run from 0 to n - 1; distances between F's steps are counted in 1 / n.
    low, high, largest = 0, n - 1, 1.0
    while True:
        minorant, majorant = _hull(x, low, high, 1), _hull(x, low, high, -1)
        gap, new_low, new_high = _widest(x, minorant, majorant)
        if gap <= largest:
            break
        # Outside of the modal interval G follows the hulls: how far F is from them there.
        below = _outside(x, [k for k in minorant if k <= new_low], 1)
        above = _outside(x, [k for k in majorant if k >= new_high], -1)
        largest = max(largest, below, above)
        if (new_low, new_high) == (low, high):
            break
        low, high = new_low, new_high
    return float(largest / (2 * n))


def _hull(x: Array, low: int, high: int, turn: int) -> list[int]:
    """Return the ranks that the convex minorant (turn 1) or concave majorant (-1) touches."""
    found: list[int] = []
    for rank in range(low, high + 1):
        while len(found) > 1:
            a, b = found[-2], found[-1]
            cross = (x[b] - x[a]) * (rank - a) - (x[rank] - x[a]) * (b - a)
            if turn * cross > 0:  # b lies on the inner side
                break
            found.pop()
        found.append(rank)
    return found


def _on(x: Array, hull: list[int], place: Array) -> Array:
    """Return the height of a hull at places, ties at its lower or upper end alike."""
    found: Array = np.interp(place, x[hull], np.array(hull, dtype=np.float64))
    return found


def _widest(x: Array, minorant: list[int], majorant: list[int]) -> tuple[float, int, int]:
    """Return the widest gap between the hulls, and the modal interval that it leaves."""
    at_minor = _on(x, majorant, x[minorant]) - np.array(minorant) + 1
    at_major = np.array(majorant) - _on(x, minorant, x[majorant]) + 1
    if at_minor.max() >= at_major.max():
        low = minorant[int(at_minor.argmax())]
        high = next(k for k in majorant if k >= low)
        return float(at_minor.max()), low, high
    high = majorant[len(majorant) - 1 - int(at_major[::-1].argmax())]
    low = max(k for k in minorant if k <= high)
    return float(at_major.max()), low, high


def _outside(x: Array, hull: list[int], turn: int) -> float:
    """Return how far the steps of F are from a hull beyond the modal interval, in 1 / n."""
    if len(hull) < 2:
        return 1.0
    ranks = np.arange(hull[0], hull[-1] + 1)
    away = turn * (ranks - _on(x, hull, x[ranks]))
    return float(away.max()) + 1.0


def dip_p(values: Sequence[float] | Array, draws: int = DRAWS, seed: int = 0) -> float:
    """Return the share of uniform samples of the same size whose dip is at least as large."""
    own, rng = dip(values), np.random.default_rng([0xD19, seed])
    null = [dip(rng.random(len(values))) for _ in range(draws)]
    return float((np.sum(np.array(null) >= own - 1e-12) + 1) / (draws + 1))
