"""How far the answer would move had other runs been drawn.

Pairs bootstrap (Efron 1979): runs, or whole clusters of runs that share their randomness, are
drawn with replacement; each resample is refitted from the full fit's optimum and from its own
variable-projection start, the better end kept (the second start is dropped after a first chunk in
which it never helped); percentiles of the ends are the interval.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweeps.fit.forms import Array, FlopsPerToken, Points, compute_optimal, six_n
from sweeps.fit.solve import ANNEAL, Fit, parabola_minimum, polish, variable_projection

Interval = tuple[float, float]
# Resamples are refitted this many (resample, run) pairs at a time, to stay in cache.
CHUNK_ELEMENTS = 24_000
MIN_SIZES = 4  # a parabola through three points has no residual to judge it by


@dataclass(frozen=True)
class FrontierPoint:
    """Hold the best split of `flops` into N* and D*, and its loss, each with its interval.

    `textbook` is the same law's optimum were every token to cost 6 N FLOPs.
    """

    flops: float
    params: float
    tokens: float
    loss: float
    intervals: dict[str, Interval]
    interior: bool
    extrapolation_factor: float
    textbook: dict[str, float]


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


@dataclass(frozen=True)
class Bootstrap:
    """Hold the refitted parameters of the resamples that could be fitted.

    `failed` is the share of resamples left out: too few distinct points or sizes for five
    coefficients, or no convergence. `weights` are the counts of each run in each kept resample.
    """

    theta: Array  # (K, P)
    weights: Array  # (K, R)
    resamples: int
    failed: float
    level: float

    def of(self, quantity: Callable[[Array], Array]) -> Interval:
        """Return the percentile interval of `quantity(theta)`, one value for each resample."""
        return percentile_interval(quantity(self.theta), self.level)


def percentile_interval(draws: Array, level: float) -> Interval:
    """Return the central interval holding `level` of the finite draws (NaN when there are none)."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return float("nan"), float("nan")
    tails = [50 * (1 - level), 50 * (1 + level)]
    low, high = np.percentile(finite, tails)
    return float(low), float(high)


def resample_counts(clusters: Sequence[Hashable], resamples: int, seed: int) -> Array:
    """Return how often each run occurs in each resample of whole clusters, `(K, R)`."""
    names: dict[Hashable, int] = {}
    member = np.array([names.setdefault(c, len(names)) for c in clusters])
    rng = np.random.default_rng(seed)
    share = np.full(len(names), 1 / len(names))
    return rng.multinomial(len(names), share, size=resamples)[:, member].astype(float)


def bootstrap_fit(
    fit: Fit,
    points: Points,
    clusters: Sequence[Hashable],
    resamples: int = 1000,
    level: float = 0.9,
    seed: int = 0,
    delta: float = 1e-3,
) -> Bootstrap:
    """Refit `resamples` resamples of the runs; the same seed gives the same intervals."""
    counts = resample_counts(clusters, resamples, seed)
    counts = counts[_can_be_fitted(points, counts, len(fit.theta))]
    if not len(counts):
        return Bootstrap(np.zeros((0, len(fit.theta))), counts, resamples, 1.0, level)
    chunk = max(1, CHUNK_ELEMENTS // len(points.loss))
    parts, fresh_helps = [], True
    for start in range(0, len(counts), chunk):
        theta, norm, helped = _refit(fit, points, counts[start : start + chunk], delta, fresh_helps)
        parts.append((theta, norm))
        fresh_helps = fresh_helps and helped
    theta, norm = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    # A resample's end needs only to be right to its percentile: delta times the runs is the scale
    # of the gradient, and 1e-6 of that moves no printed digit.
    good = norm <= 1e-6 * delta * len(points.loss)
    failed = 1 - np.sum(good) / resamples
    return Bootstrap(theta[good], counts[good], resamples, float(failed), level)


def _refit(
    fit: Fit, points: Points, counts: Array, delta: float, fresh_too: bool
) -> tuple[Array, Array, bool]:
    """Return the refitted theta, its gradient norm, and whether any fresh start was better."""
    phi = fit.form.features(points.params, points.tokens)
    log_target = np.log(points.loss)
    warm = np.repeat(fit.theta[None], len(counts), axis=0)
    theta, value, norm = polish(fit.form, phi, log_target, counts, warm, delta, 400)
    if not fresh_too:
        return theta, norm, False
    fresh = variable_projection(fit.form, points, counts, grid=7, keep=1)[:, 0]
    for widening in ANNEAL[1::2]:
        fresh = polish(fit.form, phi, log_target, counts, fresh, widening * delta, 10)[0]
    other = polish(fit.form, phi, log_target, counts, fresh, delta, 100)
    better = other[1] < value * (1 - 1e-6)
    theta = np.where(better[:, None], other[0], theta)
    return theta, np.where(better, other[2], norm), bool(better.any())


def _can_be_fitted(points: Points, counts: Array, num_parameters: int) -> Array:
    """Say which resamples hold enough distinct points, sizes and token counts for the form."""
    there = counts > 0
    pairs = np.stack([points.params, points.tokens], axis=1)
    enough = np.ones(len(counts), dtype=bool)
    needs = ((pairs, num_parameters), (points.params, 3), (points.tokens, 3))
    for values, least in needs:
        _, group = np.unique(values, axis=0, return_inverse=True)
        group = group.reshape(-1)
        distinct = np.zeros((len(counts), group.max() + 1), dtype=bool)
        for run, column in enumerate(group):
            distinct[:, column] |= there[:, run]
        enough &= distinct.sum(axis=1) >= least
    return enough


def frontier_draws(
    fit: Fit, boot: Bootstrap, flops: float, flops_per_token: FlopsPerToken
) -> tuple[Array, Array, Array]:
    """Return N*, D*, L* at `flops` for each resample; NaN where no minimum is interior."""
    params, tokens, loss, interior = compute_optimal(fit.form, boot.theta, flops, flops_per_token)
    params, tokens = np.where(interior, params, np.nan), np.where(interior, tokens, np.nan)
    return params, tokens, loss


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


def frontier_point(
    fit: Fit, boot: Bootstrap, flops: float, cost: FlopsPerToken, largest: float
) -> FrontierPoint:
    """Return N*, D*, L* at `flops` along the exact iso-FLOP line, with bootstrap intervals."""
    params, tokens, loss, interior = compute_optimal(fit.form, fit.theta, flops, cost)
    draws = frontier_draws(fit, boot, flops, cost)
    names = ("params", "tokens", "loss")
    book = compute_optimal(fit.form, fit.theta, flops, six_n)
    return FrontierPoint(
        flops=flops,
        params=float(params[0]),
        tokens=float(tokens[0]),
        loss=float(loss[0]),
        intervals={
            n: percentile_interval(d, boot.level) for n, d in zip(names, draws, strict=True)
        },
        interior=bool(interior[0]),
        extrapolation_factor=flops / largest,
        textbook={n: float(v[0]) for n, v in zip(names, book[:3], strict=True)},
    )


def isoflop_minima(
    tables: Sequence[tuple[float, Array, Array]],
    noise: float,
    cost: FlopsPerToken,
    level: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
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
        return replace(refused, reason=f"{sizes} sizes: a parabola needs at least {MIN_SIZES}")
    vertex, value, curvature = (float(v[0]) for v in parabola_minimum(x, y))
    best = float(x[np.argmin(y)])
    if curvature <= 0:
        return replace(refused, reason="loss does not curve upwards in log params")
    if best in (x.min(), x.max()) or not x.min() < vertex < x.max():
        end = "smallest" if min(best, vertex) <= x.min() else "largest"
        return replace(refused, reason=f"the best size is at the {end} end of those tried")
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
