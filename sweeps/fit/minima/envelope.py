"""Approach 1: the lower envelope of all points, and the line of its sizes in compute.

Hoffmann et al. 2022 take the least loss over sizes at each compute from whole training curves; here
every row is a point (runs, or checkpoints of runs under a constant learning rate).
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from sweeps.fit.forms.base import Array, Rows
from sweeps.fit.trust.bootstrap import percentile_interval, resample_counts

MIN_POINTS = 4  # on the envelope, of at least three sizes


def envelope(flops: Array, loss: Array) -> Rows:
    """Return the rows that no row of at most their compute beats, by rising compute."""
    order = np.lexsort((loss, flops))
    least = np.minimum.accumulate(loss[order])
    first = np.concatenate([[True], least[1:] < least[:-1]])
    return order[first & (loss[order] == least)]


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
            f"the envelope holds {len(rows)} points of {sizes} sizes: at least {MIN_POINTS} points "
            "of 3 sizes are needed"
        )
        return {"params": None, "reason": reason}
    slope = _slope(params, flops, rows)
    draws = []
    for counts in resample_counts(clusters, min(resamples, 1000), seed):
        there = np.flatnonzero(counts > 0)
        chosen = there[envelope(flops[there], loss[there])]
        if len(chosen) >= MIN_POINTS and len(np.unique(params[chosen])) >= 3:
            draws.append(_slope(params, flops, chosen))
    return {
        "params": slope, "interval": percentile_interval(np.array(draws), level),
        "points": len(rows), "sizes": sizes,
    }  # fmt: skip


def _slope(params: Array, flops: Array, rows: Rows) -> float:
    x = np.log(flops[rows])
    return float(np.polyfit(x - x.mean(), np.log(params[rows]), 1)[0])
