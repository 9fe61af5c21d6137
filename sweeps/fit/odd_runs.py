"""Say what is odd about the runs of a law of (params, tokens), each time with the runs' names.

What holds for the rows of any table is in `trust/odd_rows.py`.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sweeps.fit.trust.odd_rows import listed, repeats

if TYPE_CHECKING:
    from sweeps.fit.result import Law

# Training FLOPs per (parameter, token): 6 in the textbook, .8 to 1 times that for tiny models
# here; attention over a pack of S tokens adds a factor 1 + S / (6 width), 35 at the longest clips.
FLOPS_PER_PARAM_TOKEN = (1.0, 1000.0)
OTHER_UNIT = 100.0  # a row's FLOPs per (parameter, token) over that of the others
# A run this many scales off the law, and by more than this part of its loss, is named. The scale
# is that of a Gaussian with the residuals' median: 8 of it never happen by chance.
OUTLIER_SCALES, OUTLIER_SHARE = 8.0, 0.03


def warn_runs(law: "Law") -> Iterator[str]:
    """Yield what is odd about the runs of a law of (params, tokens)."""
    names = [r.name for r in law.runs]
    yield from _warn_repeats(law, names)
    yield from _warn_units(law, names)
    yield from _warn_outliers(law, names)
    yield from _warn_best(law)


def _warn_repeats(law: "Law", names: Sequence[str]) -> Iterator[str]:
    """Yield points and names that several runs share without sharing a cluster."""
    clusters: list[Hashable] = [
        r.cluster if r.cluster is not None else i for i, r in enumerate(law.runs)
    ]
    points = np.stack([law.fit.columns[c] for c in law.fit.form.columns], axis=1)
    losses = law.fit.target
    apart = [
        f"{names[i]} of {names[first]}"
        for first, i in repeats(points)
        if clusters[first] != clusters[i] and losses[first] != losses[i]
    ]
    if apart:
        yield (
            f"{len(apart)} runs repeat the point ({', '.join(law.fit.form.columns)}) of another "
            f"with another loss: {listed(apart)}. Seeds of one point need one `cluster`, else "
            "intervals are too narrow."
        )
    labels = np.unique(names, return_inverse=True)[1][:, None].astype(float)
    same = [
        names[i]
        for first, i in repeats(labels)
        if clusters[first] != clusters[i] and law.runs[first] != law.runs[i]
    ]
    if same:
        yield (
            f"Several rows are called {listed(list(dict.fromkeys(same)))}: checkpoints of one run "
            "need one `cluster`, other runs names of their own."
        )


def _warn_units(law: "Law", names: Sequence[str]) -> Iterator[str]:
    """Yield runs whose FLOPs do not go with their parameters and tokens."""
    each = np.array([r.flops / (r.params * r.tokens) for r in law.runs])
    middle = float(np.median(each))
    low, high = FLOPS_PER_PARAM_TOKEN
    if not low / 2 < middle < high:
        yield (
            f"The median run has {middle:.2g} FLOPs for each parameter and token, where 6 are the "
            "rule: columns swapped, or params, tokens or flops in another unit."
        )
    off = np.flatnonzero(np.abs(np.log(each / middle)) > np.log(OTHER_UNIT))
    if len(off):
        said = listed([f"{names[i]} ({each[i]:.2g})" for i in off.tolist()])
        yield (
            f"The FLOPs for each parameter and token of {said} are far from the others' "
            f"{middle:.2g}: one of params, tokens and flops is in another unit there."
        )


def _warn_outliers(law: "Law", names: Sequence[str]) -> Iterator[str]:
    """Yield runs that lie far off the law."""
    residuals = law.fit.residuals
    scale = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))
    least = max(OUTLIER_SCALES * max(scale, law.noise_floor or 0.0), OUTLIER_SHARE)
    far = [i for i in np.argsort(-np.abs(residuals)).tolist() if abs(residuals[i]) > least]
    if far:
        said = listed([f"{names[i]} ({100 * np.expm1(-residuals[i]):+.2g} %)" for i in far])
        yield (
            f"{len(far)} runs lie far off the law: {said}; others scatter by {100 * scale:.2g} %. "
            "Diverged, mislabelled or in another unit? Mark excluded=true what is wrong."
        )


def _warn_best(law: "Law") -> Iterator[str]:
    """Yield the budgets whose best loss is worse than that of a smaller one, beyond the noise."""
    slack = 1 + 2 * (law.noise_floor or 0.0)
    least = [float(law.fit.target[rows].min()) for _, rows in law.budgets]
    worse = [i for i in range(1, len(least)) if least[i] > min(least[:i]) * slack]
    if worse:
        said = listed([f"{least[i]:.4g} at {law.budgets[i][0]:.3g}" for i in worse])
        yield (
            f"The best loss rises with compute, from {min(least[: worse[0]]):.4g} at fewer FLOPs "
            f"to {said}: more compute must not be worse, look at the recipe of those runs."
        )
