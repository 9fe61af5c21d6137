"""Approach 2 with splines, as Porian et al. 2024 do it: no shape of the valley is assumed.

Through each budget's losses goes an Akima spline of log loss in log params; its least value on a
fine grid of sizes is the minimum. The losses are redrawn with the noise of a repeated run, which
gives the minimum's spread; the exponent of N* in compute is the slope of a weighted line through
the medians, and its interval that of the lines through single draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.fit.forms.base import Array, Interval
from sweeps.fit.trust.bootstrap import percentile_interval
from sweeps.fit.words import counted

GRID_PER_GAP = 25  # points of the fine grid for each gap between sizes
LEAST_SPREAD = 0.33  # of the gap between sizes: a minimum is not known better than this
MIN_SIZES = 3


@dataclass(frozen=True)
class SplineMinimum:
    """Hold one budget's minimum over sizes; `draws` are the redrawn minima that are interior."""

    budget: float
    log_params: float | None
    spread: float | None
    loss: float | None
    draws: Array
    reason: str | None


@dataclass(frozen=True)
class SplineLaw:
    """Hold N* = coefficient C^exponent through the minima, with the exponent's interval."""

    exponent: float
    coefficient: float
    interval: Interval
    minima: list[SplineMinimum]
    draws: Array  # (K, 2): exponent and log coefficient of each draw
    r2: float

    def params(self, flops: float, level: float) -> tuple[float, Interval]:
        """Return N* at `flops` with its interval."""
        drawn = np.exp(self.draws[:, 0] * np.log(flops) + self.draws[:, 1])
        return float(self.coefficient * flops**self.exponent), percentile_interval(drawn, level)


def spline_law(
    tables: Sequence[tuple[float, Array, Array]],
    noise: float,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> SplineLaw:
    """Fit N* = coefficient C^exponent to the minima of `tables`, (FLOPs, params, loss) by budget.

    `noise` is the standard deviation of a repeated run's loss, in the loss's unit.

    Raises:
        ValueError: fewer than two budgets have an interior minimum.
    """
    rng = np.random.default_rng(seed)
    minima = [_minimum(flops, params, loss, noise, draws, rng) for flops, params, loss in tables]
    known = [m for m in minima if m.log_params is not None]
    if len(known) < 2:
        raise ValueError(
            f"budgets={len(known)}: at least 2 with an interior minimum are needed. Add sizes on "
            "either side of the best of each budget."
        )
    x = np.log([m.budget for m in known])
    y = np.array([m.log_params for m in known])
    weights = 1 / np.array([m.spread for m in known]) ** 2
    line = _line(x, y[:, None], weights)[0]
    # Budgets lose different shares of their draws (no interior minimum): as many as all have left.
    num = min(len(m.draws) for m in known)
    lines = _line(x, np.stack([m.draws[:num] for m in known]), weights)
    error = y - line[0] * x - line[1]
    return SplineLaw(
        exponent=float(line[0]),
        coefficient=float(np.exp(line[1])),
        interval=percentile_interval(lines[:, 0], level),
        minima=minima,
        draws=lines,
        r2=float(1 - np.sum(error**2) / np.sum((y - y.mean()) ** 2)),
    )


def _minimum(
    flops: float, params: Array, loss: Array, noise: float, draws: int, rng: np.random.Generator
) -> SplineMinimum:
    """Return one budget's minimum, or its refusal with the reason."""
    from scipy.interpolate import Akima1DInterpolator  # half a second that no other form needs

    sizes = np.unique(params)
    best = np.array([loss[params == size].min() for size in sizes])

    def refused(reason: str) -> SplineMinimum:
        return SplineMinimum(flops, None, None, None, np.zeros(0), reason)

    if len(sizes) < MIN_SIZES:
        return refused(f"{counted(len(sizes), 'size')}: a spline needs at least {MIN_SIZES}")
    x = np.log(sizes)
    grid = np.linspace(x[0], x[-1], GRID_PER_GAP * (len(x) - 1))
    last = len(grid) - 1
    if not 0 < int(np.argmin(Akima1DInterpolator(x, np.log(best))(grid))) < last:
        return refused("the best size is at an end of those tried")
    redrawn = best[:, None] + noise * rng.standard_normal((len(best), draws))
    values = Akima1DInterpolator(x, np.log(redrawn), axis=0)(grid)  # (G, K)
    where = np.argmin(values, axis=0)
    interior = (where > 0) & (where < last)
    if interior.sum() < draws // 2:
        share = 100 * (1 - interior.mean())
        return refused(f"in {share:.0f} % of redraws within the noise there is no minimum")
    stars = grid[where[interior]]
    least = LEAST_SPREAD * GRID_PER_GAP * (grid[1] - grid[0])
    spread = max(float(np.std(stars)), least) / interior.mean()
    height = float(np.median(values[where, np.arange(draws)][interior]))
    return SplineMinimum(
        flops, float(np.median(stars)), float(spread), float(np.exp(height)), stars, None
    )


def _line(x: Array, y: Array, weights: Array) -> Array:
    """Return (slope, intercept) of the weighted line through each column of `y`, `(K, 2)`."""
    share = weights / weights.sum()
    middle = share @ x
    slope = (share * (x - middle)) @ y / (share @ (x - middle) ** 2)
    return np.stack([slope, share @ y - slope * middle], axis=1)
