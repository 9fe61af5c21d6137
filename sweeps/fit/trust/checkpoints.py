"""Rows that are checkpoints of one run and do not say so."""

from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from sweeps.fit.optimum.solve import Fit
from sweeps.fit.trust.structure import Residuals

# Neighbours on a grid of runs of their own agree by 0.04 in a clean table, checkpoints by 0.4 to
# 0.9 in those on record.
AGREE, SURE = 0.3, 3.0  # correlation, and its t
LEAST_LENGTHS = 4  # of a size that may be one run's


def warn_checkpoints(fit: Fit, clusters: Sequence[Hashable]) -> Iterator[str]:
    """Yield that rows look like checkpoints of one run each which no `cluster` holds together.

    Rows of one size at rising lengths are that, where neighbours' residuals agree.
    """
    runs = chains(fit, clusters)
    found = Residuals.of(fit, range(len(fit.target)))
    if not runs or found is None:
        return
    pairs = np.array([pair for run in runs for pair in pairwise(run)])
    agree = float(np.mean(found.left[pairs[:, 0]] * found.left[pairs[:, 1]]))
    agree /= float(np.mean(found.left**2))
    t = agree * np.sqrt(len(pairs))
    if agree > AGREE and t > SURE:
        yield (
            f"{sum(map(len, runs))} rows at rising tokens of {len(runs)} sizes have residuals that "
            f"agree from row to row (correlation {agree:.2f}, t = {t:.1f}): they look like "
            "checkpoints of one run a size, and each counts as a run of its own, so that intervals "
            "are too narrow. Name the runs, as by columns.cluster=params; if they are runs of "
            "their own, the form misses something."
        )


def chains(fit: Fit, clusters: Sequence[Hashable]) -> list[list[int]]:
    """Return the rows of each size in the order of their tokens, where most have four lengths.

    Empty where rows are held together by clusters.
    """
    if len(set(clusters)) < 0.75 * len(clusters):
        return []
    rows: dict[float, list[int]] = {}
    for i in np.argsort(fit.columns["tokens"], kind="stable").tolist():
        rows.setdefault(float(fit.columns["params"][i]), []).append(i)
    long = [run for run in rows.values() if len(run) >= LEAST_LENGTHS]
    return long if 2 * sum(map(len, long)) > len(clusters) else []
