"""Finished runs as the fitters see them: columns, compute budgets, resampling groups, noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweeps.fit.forms.base import Array, FlopsPerToken, Rows
from sweeps.fit.rows.points import points_of

# Runs of one budget differ by the rounding of tokens to whole steps; budgets differ by more.
SAME_BUDGET = 1.15
# Runs of one cluster are seeds of one point where their logs of parameters and tokens differ by no
# more than this (packing rounds tokens by some 0.1 %); checkpoints of one run differ by more.
SAME_POINT = 0.05
BUDGET_SIZES = 3  # that make runs of one compute a budget
EQUAL_BUDGET = 1.05  # on a grid of sizes by lengths, where some agree within 15 % by chance


@dataclass(frozen=True)
class Run:
    """Hold one finished run: a row of the table a law is fitted to.

    `flops` are the run's exact training FLOPs; `loss_noise` the standard deviation of `loss` over
    repeats, in the loss's unit; runs of one `cluster` (the seeds of one point, the checkpoints of
    one run) are resampled together; `budget` is the nominal FLOPs it belongs to (grouped by
    `flops` where absent).
    """

    name: str
    params: float
    tokens: float
    flops: float
    loss: float
    loss_noise: float | None = None
    cluster: str | None = None
    budget: float | None = None


def interpolated_flops_per_token(runs: Sequence[Run]) -> FlopsPerToken:
    """Return flops/tokens as a function of params: log-log linear between the runs' sizes.

    Beyond the sizes it continues from the last one with the log-log slope of the three sizes
    nearest that end (1 for a single size). Runs of one size that differ count by their mean log.
    """
    groups: dict[float, list[float]] = {}
    for run in runs:
        groups.setdefault(run.params, []).append(float(np.log(run.flops / run.tokens)))
    sizes = np.log(sorted(groups))
    costs = np.array([np.mean(groups[size]) for size in sorted(groups)])
    alone = len(sizes) == 1
    below = 1.0 if alone else float(np.polyfit(sizes[:3], costs[:3], 1)[0])
    above = 1.0 if alone else float(np.polyfit(sizes[-3:], costs[-3:], 1)[0])

    def flops_per_token(params: Array) -> Array:
        x = np.log(params)
        inside = np.interp(x, sizes, costs)
        outside = below * np.minimum(x - sizes[0], 0) + above * np.maximum(x - sizes[-1], 0)
        return np.asarray(np.exp(inside + outside))

    return flops_per_token


def group_budgets(runs: Sequence[Run]) -> list[tuple[float, Rows]]:
    """Return (FLOPs, run indices) of each compute budget, ascending.

    By `Run.budget` where every run has one; else runs whose sorted FLOPs are within 15 % of the
    next. No budgets (an empty list) where the runs are then not an isoFLOP table: where such a
    chain drifts over more than a factor 1.5, or where most runs are at the compute of fewer than
    three sizes (on a grid of sizes by lengths within 5 %). Runs alone at their compute form no
    budget.
    """
    nominal = all(r.budget is not None for r in runs)
    flops = np.array([r.budget if nominal else r.flops for r in runs], dtype=float)
    order = np.argsort(flops, kind="stable")
    limit = 1e-9 if nominal else np.log(SAME_BUDGET)
    cuts = np.flatnonzero(np.diff(np.log(flops[order])) > limit) + 1
    groups = [g for g in np.split(order, cuts) if nominal or len(g) > 1]
    if any(flops[g].max() > 1.5 * flops[g].min() for g in groups):
        return []
    if not nominal:
        sizes = _distinct([r.params for r in runs])
        spread = EQUAL_BUDGET if sizes_by_lengths(runs) else np.inf
        inside = sum(
            len(g)
            for g in groups
            if len(np.unique(sizes[g])) >= BUDGET_SIZES and flops[g].max() < spread * flops[g].min()
        )
        if 2 * inside < len(runs):
            return []
    return [(float(np.exp(np.mean(np.log(flops[g])))), g) for g in groups]


def sizes_by_lengths(runs: Sequence[Run]) -> tuple[int, int] | None:
    """Return how many sizes and lengths there are where the runs are a grid of both, else None."""
    sizes, lengths = (_distinct([getattr(r, c) for r in runs]) for c in ("params", "tokens"))
    points = len(np.unique(np.stack([sizes, lengths], axis=1), axis=0))
    across, along = len(np.unique(sizes)), len(np.unique(lengths))
    filled = 2 * points >= across * along and 2 * max(across, along) <= points
    return (across, along) if filled else None


def _distinct(values: Sequence[float]) -> Array:
    """Return for each value which of the distinct ones it is, to some 0.1 %."""
    logs = np.log(values)
    order = np.argsort(logs, kind="stable")
    number = np.zeros(len(logs), dtype=float)
    number[order] = np.concatenate([[0], np.cumsum(np.diff(logs[order]) > 1e-3)])
    return number


def noise_floor(runs: Sequence[Run]) -> float | None:
    """Return the relative noise of a loss: the larger of the stated and the replicates' own.

    Stated: the median of loss_noise / loss. Replicates: the pooled standard deviation of log loss
    over the seeds of each point. None where neither is known.
    """
    found = []
    stated = [r.loss_noise / r.loss for r in runs if r.loss_noise is not None]
    if stated:
        found.append(float(np.median(stated)))
    if (own := seed_spread(runs)) is not None:
        found.append(own)
    return max(found) if found else None


def seed_spread(runs: Sequence[Run]) -> float | None:
    """Return the pooled standard deviation of log loss over seeds; None where none is repeated."""
    repeats = [np.log([runs[i].loss for i in rows]) for rows in points_in(runs)]
    repeats = [v for v in repeats if np.ptp(v) > 0]  # equal ones are one run, entered twice
    if not repeats:
        return None
    squares = sum(float(np.sum((v - v.mean()) ** 2)) for v in repeats)
    return float(np.sqrt(squares / sum(len(v) - 1 for v in repeats)))


def columns_of(runs: Sequence[Run]) -> tuple[dict[str, Array], Array]:
    """Return the columns (params, tokens, flops) and the losses of `runs`."""
    names = ("params", "tokens", "flops")
    columns = {n: np.array([getattr(r, n) for r in runs], dtype=float) for n in names}
    return columns, np.array([r.loss for r in runs], dtype=float)


def best_loss(runs: Sequence[Run]) -> float:
    """Return the least loss of a point, the mean over its seeds.

    The least of single runs would be the lower the more seeds there are.
    """
    return min(float(np.mean([runs[i].loss for i in rows])) for rows in points_in(runs))


def clusters_of(runs: Sequence[Run]) -> list[Any]:
    """Return what is resampled together: a run's cluster, or the runs of its (params, tokens)."""
    points = points_of([np.array([getattr(r, c) for r in runs]) for c in ("params", "tokens")])
    return [r.cluster if r.cluster is not None else p for r, p in zip(runs, points, strict=True)]


def points_in(runs: Sequence[Run]) -> list[list[int]]:
    """Return the rows of each point: of a cluster, unless it holds the checkpoints of one run."""
    groups: dict[Any, list[int]] = {}
    for i, cluster in enumerate(clusters_of(runs)):
        groups.setdefault(cluster, []).append(i)
    found: list[list[int]] = []
    for rows in groups.values():
        sizes, lengths = (np.log([getattr(runs[i], c) for i in rows]) for c in ("params", "tokens"))
        together = max(np.ptp(sizes), np.ptp(lengths)) < SAME_POINT
        found += [rows] if together else [[i] for i in rows]
    return found
