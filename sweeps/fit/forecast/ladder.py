"""The ladder of an isoFLOP table: each budget's least loss, read near its best run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.fit.forms.base import Array, Flags
from sweeps.fit.minima.isoflop import MIN_SIZES

# Only near its lowest point is a budget's loss a parabola in log N: runs above this are left out.
NEAR = 0.05


@dataclass(frozen=True)
class Ladder:
    """Hold the rungs of a table by rising compute.

    compute: FLOPs of each budget; loss: its least loss; error: the standard error of log loss;
    best: the loss of its best point as measured; interior: whether a parabola gave `loss`, or the
    best point did because it is at an end of the sizes. Each `(B,)`.
    """

    compute: Array
    loss: Array
    error: Array
    best: Array
    interior: Array

    def __len__(self) -> int:
        return len(self.compute)

    def below(self, count: int) -> "Ladder":
        """Return the ladder of the `count` smallest budgets."""
        return self._of(np.arange(len(self)) < count)

    def trusted(self) -> "Ladder":
        """Return the rungs of which the best size was found, with the last one whatever it is.

        All of them where fewer than four were found.
        """
        kept = self.interior.astype(bool)
        kept[-1] = True
        if kept.sum() < MIN_SIZES:
            return self
        return self._of(kept)

    def _of(self, kept: Flags) -> "Ladder":
        """Return the rungs that are kept."""
        return Ladder(**{name: value[kept] for name, value in vars(self).items()})


def ladder_of(tables: Sequence[tuple[float, Array, Array]], noise: float) -> Ladder:
    """Return the ladder of (FLOPs, params, loss) by budget, where a size is there once a seed.

    A parabola of log loss in log N goes through the points within `NEAR` of the budget's best (at
    least four, those nearest in size). Its height at the vertex is the budget's least loss where
    the best point is inside the sizes. `noise` is the relative noise of a run; the noise of log
    loss is the larger of it and the parabolas' pooled scatter.
    """
    fits = [_near_best(params, loss) for _, params, loss in tables]
    squares = sum(f.squares for f in fits)
    left = sum(f.left for f in fits)
    sigma = max(np.sqrt(squares / left) if left else 0.0, noise)
    return Ladder(
        compute=np.array([c for c, _, _ in tables]),
        loss=np.exp([f.height for f in fits]),
        error=sigma * np.array([f.leverage for f in fits]),
        best=np.exp([f.best for f in fits]),
        interior=np.array([f.interior for f in fits], dtype=float),
    )


@dataclass(frozen=True)
class _Valley:
    """Hold one budget's lowest point: log loss, its standard error over that of a run, scatter."""

    height: float
    leverage: float
    best: float
    interior: bool
    squares: float = 0.0
    left: int = 0


def _near_best(params: Array, loss: Array) -> _Valley:
    """Return the lowest point of one budget."""
    sizes, group, seeds = np.unique(np.log(params), return_inverse=True, return_counts=True)
    mean = np.bincount(group, np.log(loss)) / seeds  # a point counts by the mean over its seeds
    at = int(np.argmin(mean))
    alone = _Valley(float(mean[at]), float(seeds[at] ** -0.5), float(mean[at]), False)
    if len(sizes) < MIN_SIZES or at in (0, len(sizes) - 1):
        return alone
    near = mean <= mean[at] + NEAR
    if near.sum() < MIN_SIZES:
        nearest = np.argsort(np.abs(sizes - sizes[at]), kind="stable")[:MIN_SIZES]
        near = np.isin(np.arange(len(sizes)), nearest)
    x, y, weight = sizes[near] - sizes[at], mean[near], np.sqrt(seeds[near])
    design = np.stack([np.ones_like(x), x, x * x], axis=1)
    inverse = np.linalg.pinv(design * weight[:, None])
    c, b, a = inverse @ (y * weight)
    if a <= 0 or not x.min() < -b / (2 * a) < x.max():
        return alone
    vertex = -b / (2 * a)
    row = np.array([1.0, vertex, vertex * vertex])
    return _Valley(
        height=float(row @ (c, b, a)),
        leverage=float(np.linalg.norm(row @ inverse)),
        best=float(mean[at]),
        interior=True,
        squares=float(np.sum((weight * (design @ (c, b, a) - y)) ** 2)),
        left=len(x) - 3,
    )
