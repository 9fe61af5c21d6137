"""Approach 1: the lower envelope of all points, and the line of its sizes in compute.

Hoffmann et al. 2022 take the least loss over sizes at each compute from whole training curves; here
every row is a point (runs, or checkpoints of runs under a constant learning rate).
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from sweeps.fit.forms.base import Array, Flags, Rows
from sweeps.fit.trust.bootstrap import percentile_interval, resample_counts
from sweeps.fit.words import counted

MIN_POINTS = 4  # on the envelope, of at least three sizes


def envelope(flops: Array, loss: Array) -> Rows:
    """Return the rows that no row of at most their compute beats, by rising compute."""
    order = np.lexsort((loss, flops))
    return order[_least_so_far(loss[order])]


def _least_so_far(loss: Array) -> Flags:
    """Say which losses are below all before them."""
    least = np.minimum.accumulate(loss)
    return np.concatenate([[True], least[1:] < least[:-1]])


def approach_1(
    params: Array,
    flops: Array,
    loss: Array,
    clusters: Sequence[Hashable],
    level: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Return N*'s exponent of compute by the envelope, or the reason why there is none.

    The interval redraws runs (clusters), with their envelopes; the envelope of a coarse grid of
    sizes jumps between them, which the interval shows.
    """
    rows = envelope(flops, loss)
    sizes = len(np.unique(params[rows]))
    if len(rows) < MIN_POINTS or sizes < 3:
        reason = (
            f"the envelope holds {counted(len(rows), 'point')} of {counted(sizes, 'size')}: at "
            f"least {MIN_POINTS} points of 3 sizes are needed"
        )
        return {"params": None, "reason": reason}
    slope = _slope(params, flops, rows)
    draws = []
    order = np.lexsort((loss, flops))  # once: a resample is in the same order
    for there in resample_counts(clusters, min(resamples, 1000), seed)[:, order] > 0:
        kept = order[there]
        chosen = kept[_least_so_far(loss[kept])]
        if len(chosen) >= MIN_POINTS and len(set(params[chosen].tolist())) >= 3:
            draws.append(_slope(params, flops, chosen))
    return {
        "params": slope, "interval": percentile_interval(np.array(draws), level),
        "points": len(rows), "sizes": sizes,
    }  # fmt: skip


def _slope(params: Array, flops: Array, rows: Rows) -> float:
    x = np.log(flops[rows])
    x -= x.mean()
    return float(x @ np.log(params[rows]) / (x @ x))
