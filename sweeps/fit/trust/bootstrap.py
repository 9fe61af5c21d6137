"""How far the answer would move had other runs been drawn.

Pairs bootstrap (Efron 1979): runs, or whole clusters of runs that share their randomness, are
drawn with replacement; each resample is refitted from the full fit's optimum and from its own
variable-projection start, the better end kept (the second start is dropped after a first chunk in
which it never helped); percentiles of the ends are the interval.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.fit.forms.base import Array, Columns, Interval
from sweeps.fit.optimum.solve import ANNEAL, Fit, polish, scale_of
from sweeps.fit.optimum.starts import variable_projection
from sweeps.fit.options import DEFAULTS

# Resamples are refitted this many (resample, run) pairs at a time, to stay in cache.
CHUNK_ELEMENTS = 24_000
# A resample's end needs only to be right to its percentile: a gradient this small, relative to the
# largest possible one, moves no printed digit.
TOLERANCE, CONVERGED = 1e-8, 1e-6
FRESH_GRID = 49  # shapes that a resample's own start is chosen from


@dataclass(frozen=True)
class Bootstrap:
    """Hold the refitted parameters of the resamples that could be fitted.

    `failed` is the share of resamples left out: too few distinct points or values for the
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


def resample_counts(
    clusters: Sequence[Hashable],
    resamples: int,
    seed: int,
    strata: Sequence[Hashable] | None = None,
) -> Array:
    """Return how often each run occurs in each resample of whole clusters, `(K, R)`.

    Within each of `strata`, where they are given, as many clusters are drawn as it has.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros((resamples, len(clusters)))
    parts: dict[Hashable, list[int]] = {}
    for row, stratum in enumerate(strata or [None] * len(clusters)):
        parts.setdefault(stratum, []).append(row)
    for rows in parts.values():
        names: dict[Hashable, int] = {}
        member = np.array([names.setdefault(clusters[i], len(names)) for i in rows])
        share = np.full(len(names), 1 / len(names))
        counts[:, rows] = rng.multinomial(len(names), share, size=resamples)[:, member]
    return counts


def bootstrap_fit(
    fit: Fit,
    clusters: Sequence[Hashable],
    resamples: int = DEFAULTS.resamples,
    level: float = DEFAULTS.level,
    seed: int = DEFAULTS.seed,
    strata: Sequence[Hashable] | None = None,
) -> Bootstrap:
    """Refit `resamples` resamples of the fit's rows; the same seed gives the same intervals."""
    counts = resample_counts(clusters, resamples, seed, strata)
    counts = counts[_can_be_fitted(fit, counts)]
    if not len(counts):
        return Bootstrap(np.zeros((0, len(fit.theta))), counts, resamples, 1.0, level)
    chunk = max(1, CHUNK_ELEMENTS // len(fit.target))
    parts, fresh_helps = [], True
    for start in range(0, len(counts), chunk):
        theta, norm, helped = _refit(fit, counts[start : start + chunk], fresh_helps)
        parts.append((theta, norm))
        fresh_helps = fresh_helps and helped
    theta, norm = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    good = norm <= CONVERGED * scale_of(fit.objective_of)
    failed = 1 - np.sum(good) / resamples
    return Bootstrap(theta[good], counts[good], resamples, float(failed), level)


def _refit(fit: Fit, counts: Array, fresh_too: bool) -> tuple[Array, Array, bool]:
    """Return the refitted theta, its gradient norm, and whether any fresh start was better."""
    problem, delta = fit.objective_of, fit.objective_of.delta
    weights = counts * problem.unit
    box = fit.low, fit.high
    warm = np.repeat(fit.theta[None], len(counts), axis=0)
    theta, value, norm = polish(problem, weights, warm, *box, delta, 400, TOLERANCE)
    if not fresh_too:
        return theta, norm, False
    index = fit.form.shape_index
    shapes = np.clip(fit.form.shape_grid(7), fit.low[index], fit.high[index])
    shapes = shapes[:: max(1, len(shapes) // FRESH_GRID)]
    fresh = variable_projection(fit.form, fit.columns, fit.target, counts, shapes, keep=1)[:, 0]
    for widening in ANNEAL[1::2] if np.isfinite(delta) else ():
        fresh = polish(problem, weights, fresh, *box, widening * delta, 10)[0]
    other = polish(problem, weights, fresh, *box, delta, 100, TOLERANCE)
    better = other[1] < value * (1 - 1e-6)
    theta = np.where(better[:, None], other[0], theta)
    return theta, np.where(better, other[2], norm), bool(better.any())


def least_values(fit: Fit) -> dict[str, int]:
    """Return how many distinct values each column needs: one more than its exponents and scales.

    Two for the exponent and amplitude of a power of that column, one for a floor it has to part.
    """
    has_floor = any(p.kind == "floor" for p in fit.form.parameters)
    if "curve" in fit.form.columns:
        return {}
    plain = (c for c in fit.form.columns if c not in ("unique_tokens", *fit.form.labels))
    return dict.fromkeys(plain, 2 + has_floor)


def _can_be_fitted(fit: Fit, counts: Array) -> Array:
    """Say which resamples hold enough distinct rows and values for the form."""
    there = counts > 0
    rows = np.stack([fit.columns[c] for c in fit.form.columns], axis=1)
    needs: list[tuple[Array, int]] = [(rows, fit.num_free)]
    needs += [(fit.columns[c], least) for c, least in least_values(fit).items()]
    if fit.fixed:
        needs = needs[:1]
    enough = np.ones(len(counts), dtype=bool)
    for values, least in needs:
        _, group = np.unique(values, axis=0, return_inverse=True)
        group = group.reshape(-1)
        distinct = np.zeros((len(counts), group.max() + 1), dtype=bool)
        for run, column in enumerate(group):
            distinct[:, column] |= there[:, run]
        enough &= distinct.sum(axis=1) >= least
    return enough


def coefficient_intervals(fit: Fit, boot: Bootstrap) -> dict[str, Interval]:
    """Return the bootstrap interval of every coefficient."""
    draws = fit.form.coefficients(boot.theta)
    return {k: percentile_interval(v, boot.level) for k, v in draws.items()}


def prediction_draws(fit: Fit, boot: Bootstrap, columns: Columns) -> Array:
    """Return L_hat on other rows for each resample, `(K, R)`."""
    with np.errstate(over="ignore"):
        return np.exp(fit.form.bind(columns).log_prediction(boot.theta))
