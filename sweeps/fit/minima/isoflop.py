"""Approach 2: the minimum over sizes of each compute budget, and the line through the minima.

Hoffmann et al. 2022 put a parabola of log loss in log params through each budget; Porian et al.
2024 an Akima spline (`splines.py`). A budget whose best size is at an end of those tried has no
minimum to speak of and is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweeps.fit.forms.base import Array, FlopsPerToken, Interval
from sweeps.fit.minima.frontier import compute_optimal
from sweeps.fit.optimum.solve import Fit
from sweeps.fit.options import DEFAULTS
from sweeps.fit.trust.bootstrap import Bootstrap, percentile_interval
from sweeps.fit.words import counted

MIN_SIZES = 4  # a parabola through three points has no residual to judge it by


@dataclass(frozen=True)
class IsoflopMinimum:
    """Hold the minimum over sizes of one budget (approach 2); None where it is refused."""

    budget: float
    params: float | None
    tokens: float | None
    loss: float | None
    interval: Interval | None
    loss_interval: Interval | None
    interior: bool
    reason: str | None
    sizes: int


def parabola_minimum(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Fit y = c + b x + a x^2 by least squares to each row of `y` `(K, R)` over `x` `(R,)`.

    Returns the vertex -b / 2a, the value there and the curvature 2a, each `(K,)`; where the
    curvature is not positive there is no minimum and the first two are NaN.
    """
    middle = x.mean()
    design = np.stack([np.ones_like(x), x - middle, (x - middle) ** 2], axis=1)
    c, b, a = np.linalg.lstsq(design, np.atleast_2d(y).T, rcond=None)[0]
    open_up = a > 0
    half = np.divide(b, 2 * a, out=np.full_like(a, np.nan), where=open_up)
    return middle - half, c - a * half**2, 2 * a


def parabola_draws(
    x: Array, y: Array, sigma: float, resamples: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Redraw `y` with Gaussian noise `sigma` and return each parabola's vertex and value, `(K,)`.

    Runs are not resampled here: of five sizes, most resamples hold too few to bend a parabola.
    NaN where a draw has no minimum, or one beyond the sizes by more than their whole range.
    """
    noisy = y + sigma * rng.standard_normal((resamples, len(y)))
    where, value, _ = parabola_minimum(x, noisy)
    reach = np.ptp(x)
    near = (where > x.min() - reach) & (where < x.max() + reach)
    return np.where(near, where, np.nan), np.where(near, value, np.nan)


def isoflop_minima(
    tables: Sequence[tuple[float, Array, Array]],
    noise: float,
    cost: FlopsPerToken,
    level: float = DEFAULTS.level,
    resamples: int = DEFAULTS.resamples,
    seed: int = DEFAULTS.seed,
) -> tuple[list[IsoflopMinimum], Array]:
    """Find each budget's minimum: a parabola of log L in log N (Hoffmann et al. 2022, approach 2).

    `tables` holds (FLOPs, params, loss) of each budget, `noise` the relative noise floor. The
    noise of log L is pooled: the larger of the floor and the parabolas' residual scatter over all
    budgets; the interval is over redraws of the losses with it. Returns the minima and the draws
    of log N*, `(budgets, resamples)`, NaN where a budget is refused.
    """
    logs = [(np.log(params), np.log(loss)) for _, params, loss in tables]
    squares, left = 0.0, 0
    for x, y in logs:
        if len(np.unique(x)) >= MIN_SIZES:
            squares += float(np.sum((y - np.polyval(np.polyfit(x - x[0], y, 2), x - x[0])) ** 2))
            left += len(x) - 3
    sigma = max(np.sqrt(squares / left) if left else 0.0, noise)
    rng = np.random.default_rng(seed)
    minima, draws = [], np.full((len(tables), resamples), np.nan)
    for row, ((flops, _, _), (x, y)) in enumerate(zip(tables, logs, strict=True)):
        where, height = parabola_draws(x, y, sigma, resamples, rng)
        minima.append(_minimum(flops, x, y, where, height, cost, level))
        if minima[-1].interior:
            draws[row] = where
    return minima, draws


def _minimum(
    flops: float, x: Array, y: Array, where: Array, height: Array, cost: FlopsPerToken, level: float
) -> IsoflopMinimum:
    """Return one budget's minimum, or its refusal with the reason."""
    sizes = len(np.unique(x))
    refused = IsoflopMinimum(flops, None, None, None, None, None, False, None, sizes)
    if sizes < MIN_SIZES:
        return replace(
            refused, reason=f"{counted(sizes, 'size')}: a parabola needs at least {MIN_SIZES}"
        )
    vertex, value, curvature = (float(v[0]) for v in parabola_minimum(x, y))
    each = np.unique(x)  # a size counts by the mean over its seeds
    best = float(each[np.argmin([y[x == size].mean() for size in each])])
    if curvature <= 0:
        return replace(refused, reason="loss does not curve upwards in log params")
    if best in (x.min(), x.max()):
        end = "smallest" if best == x.min() else "largest"
        by = ", by the mean over its seeds," if len(x) > sizes else ""
        return replace(refused, reason=f"the best size{by} is at the {end} end of those tried")
    if not x.min() < vertex < x.max():
        end = "below the smallest" if vertex <= x.min() else "above the largest"
        place = int(np.searchsorted(each, best)) + 1
        reason = (
            f"the parabola's minimum lies {end} size tried, but the best size is number {place} of "
            f"{sizes}"
        )
        return replace(refused, reason=reason)
    open_share = float(np.mean(~np.isfinite(where)))
    if open_share > 1 - level:
        reason = f"in {100 * open_share:.0f} % of redraws within the noise there is no minimum"
        return replace(refused, reason=reason)
    params = float(np.exp(vertex))
    return IsoflopMinimum(
        budget=flops,
        params=params,
        tokens=flops / float(cost(np.array([params]))[0]),
        loss=float(np.exp(value)),
        interval=percentile_interval(np.exp(where), level),
        loss_interval=percentile_interval(np.exp(height), level),
        interior=True,
        reason=None,
        sizes=sizes,
    )


def slope_of(budgets: Array, log_params: Array) -> Array:
    """Return the slope of log N* in log C for each column of `log_params` `(B, K)`."""
    x = np.log(budgets)
    return np.asarray(np.polyfit(x - x.mean(), log_params, 1)[0])


def parabola_bias(
    fit: Fit, tables: Sequence[tuple[float, Array, Array]], cost: FlopsPerToken
) -> dict[str, float] | None:
    """Return what approach 2 gets wrong on this grid of sizes if approach 3's law were true.

    The law's own losses at the runs' sizes, without noise, go through the same parabolas; log N*
    and its exponent in compute are compared with the law's. (The loss is no parabola in log N: the
    bias grows with the grid's width and offset, and with the difference of alpha and beta.)
    None where fewer than two budgets have an interior minimum.
    """
    budgets, found, true = [], [], []
    for flops, params, _ in tables:
        if len(np.unique(params)) < MIN_SIZES:
            continue
        tokens = flops / cost(params)
        loss = fit.predict({"params": params, "tokens": tokens, "unique_tokens": tokens})
        vertex = float(parabola_minimum(np.log(params), np.log(loss))[0][0])
        best, _, _, interior = compute_optimal(fit, fit.theta, flops, cost)
        if np.isfinite(vertex) and interior[0] and params.min() < np.exp(vertex) < params.max():
            budgets.append(flops)
            found.append(vertex)
            true.append(float(np.log(best[0])))
    if len(budgets) < 2:
        return None
    both = slope_of(np.array(budgets), np.array([found, true]).T)
    return {
        "params_factor": float(np.exp(np.mean(np.array(found) - np.array(true)))),
        "exponent": float(both[0] - both[1]),
    }


def exponents_of(
    fit: Fit, boot: Bootstrap, minima: Sequence[IsoflopMinimum], draws: Array
) -> dict[str, dict[str, Any]]:
    """Return N*'s exponent of compute by approach 3 and by approach 2.

    Under 6 N D FLOPs: beta / (alpha + beta), for Kaplan's form (1 / alpha_N) / (1 / alpha_N + 1 /
    alpha_D) with alpha_N / alpha_D and 1 as the inner exponents.
    """

    def parametric(theta: Array) -> Array:
        found = fit.form.coefficients(theta)
        if "alpha_N" in found:
            n, d = found["alpha_N"] / found["alpha_D"], np.ones_like(found["alpha_D"])
        else:
            n = found["alpha"] if "alpha" in found else found["eta"]
            d = found.get("beta", n)
        total = n + d
        return np.divide(d, total, out=np.full_like(total, np.nan), where=total > 0)

    three = {"params": float(parametric(fit.theta[None])[0]), "interval": boot.of(parametric)}
    kept = [i for i, m in enumerate(minima) if m.interior]
    if len(kept) < 2:
        reason = f"{len(kept)} interior minima, at least 2 are needed"
        return {"approach_3": three, "approach_2": {"params": None, "reason": reason}}
    budgets = np.array([minima[i].budget for i in kept])
    sizes = np.log([[minima[i].params or 1.0] for i in kept])
    whole = draws[kept][:, np.isfinite(draws[kept]).all(axis=0)]
    slopes = slope_of(budgets, whole)
    two = {
        "params": float(slope_of(budgets, sizes)[0]),
        "interval": percentile_interval(slopes, boot.level),
    }
    return {"approach_3": three, "approach_2": two}
