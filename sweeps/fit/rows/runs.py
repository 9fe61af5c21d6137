"""Finished runs as the fitters see them: columns, compute budgets, resampling groups, noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweeps.fit.forms.base import Array, FlopsPerToken, Rows

# Runs of one budget differ by the rounding of tokens to whole steps; budgets differ by more.
SAME_BUDGET = 1.15


@dataclass(frozen=True)
class Run:
    """Hold one finished run: a row of the table a law is fitted to.

    `flops` are the run's exact training FLOPs; `loss_noise` the standard deviation of `loss` over
    repeats, in the loss's unit; runs of one `cluster` (the seeds of one point) are resampled
    together; `budget` is the nominal FLOPs it belongs to (grouped by `flops` where absent).
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
    next. No budgets (an empty list) where such a chain drifts over more than a factor 1.5: the
    runs are then not an isoFLOP table. Runs alone at their compute form no budget.
    """
    nominal = all(r.budget is not None for r in runs)
    flops = np.array([r.budget if nominal else r.flops for r in runs], dtype=float)
    order = np.argsort(flops, kind="stable")
    limit = 1e-9 if nominal else np.log(SAME_BUDGET)
    cuts = np.flatnonzero(np.diff(np.log(flops[order])) > limit) + 1
    groups = [g for g in np.split(order, cuts) if nominal or len(g) > 1]
    if any(flops[g].max() > 1.5 * flops[g].min() for g in groups):
        return []
    return [(float(np.exp(np.mean(np.log(flops[g])))), g) for g in groups]


def noise_floor(runs: Sequence[Run]) -> float | None:
    """Return the relative noise of a loss: the larger of the stated and the replicates' own.

    Stated: the median of loss_noise / loss. Replicates: the pooled standard deviation of log loss
    within clusters of several runs. None where neither is known.
    """
    found = []
    stated = [r.loss_noise / r.loss for r in runs if r.loss_noise is not None]
    if stated:
        found.append(float(np.median(stated)))
    clusters: dict[str, list[float]] = {}
    for run in runs:
        if run.cluster is not None:
            clusters.setdefault(run.cluster, []).append(float(np.log(run.loss)))
    repeats = [np.array(v) for v in clusters.values() if len(v) > 1]
    if repeats:
        squares = sum(float(np.sum((v - v.mean()) ** 2)) for v in repeats)
        found.append(float(np.sqrt(squares / sum(len(v) - 1 for v in repeats))))
    return max(found) if found else None


def columns_of(runs: Sequence[Run]) -> tuple[dict[str, Array], Array]:
    """Return the columns (params, tokens, flops) and the losses of `runs`."""
    names = ("params", "tokens", "flops")
    columns = {n: np.array([getattr(r, n) for r in runs], dtype=float) for n in names}
    return columns, np.array([r.loss for r in runs], dtype=float)


def best_loss(runs: Sequence[Run]) -> float:
    """Return the least loss of a point, the mean over its seeds (runs of one cluster).

    The least of single runs would be the lower the more seeds there are.
    """
    points: dict[Any, list[float]] = {}
    for cluster, run in zip(clusters_of(runs), runs, strict=True):
        points.setdefault(cluster, []).append(run.loss)
    return float(min(np.mean(losses) for losses in points.values()))


def clusters_of(runs: Sequence[Run]) -> list[Any]:
    """Return what is resampled together: a run's cluster, or the run alone."""
    return [r.cluster if r.cluster is not None else i for i, r in enumerate(runs)]
