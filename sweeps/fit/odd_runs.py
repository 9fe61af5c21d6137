"""Say what is odd about the runs of a law of (params, tokens), each time with the runs' names.

What holds for the rows of any table is in `trust/odd_rows.py`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sweeps.fit.forms.base import Array
from sweeps.fit.rows.points import points_of
from sweeps.fit.trust.odd_rows import listed, repeats
from sweeps.fit.words import counted

if TYPE_CHECKING:
    from sweeps.fit.result import Law

# Training FLOPs are 6 N D in the textbook. Attention over a pack of S tokens adds a factor
# 1 + S / (6 width): 35 at the longest clips here.
TEXTBOOK = 6.0
OTHER_COUNT = 1.5  # a factor by which FLOPs that are counted alike do not differ
UNITS = {1e3: "thousands", 1e6: "millions", 1e9: "billions", 1e12: "trillions"}
NEIGHBOURS = 9  # in size, whose median says what a run of that size should cost
FAR = 100.0  # a factor that no size explains
# Above this a trained model's cross-entropy in nats does not lie: a uniform guess among 50,000
# tokens has 10.8, 1e8 tokens of training bring every model on record below 7.
MOST_NATS, TRAINED_TOKENS, TRAINED_PARAMS = 7.0, 1e8, 1e6
# A run this many scales off the law, and by more than this part of its loss, is named. The scale
# is that of a Gaussian with the residuals' median: 8 of it never happen by chance.
OUTLIER_SCALES, OUTLIER_SHARE = 8.0, 0.03


def warn_runs(law: "Law") -> Iterator[str]:
    """Yield what is odd about the runs of a law of (params, tokens)."""
    names = [r.name for r in law.runs]
    yield from _warn_repeats(law, names)
    yield from _warn_outliers(law, names)
    yield from _warn_best(law)


def warn_units(law: "Law") -> Iterator[str]:
    """Yield which columns are in another unit than they should be, or are counted otherwise."""
    names = [r.name for r in law.runs]
    yield from _warn_flops(law, names)
    yield from _warn_nominal(law, names)
    loss, tokens, params = (
        float(np.median([getattr(r, c) for r in law.runs])) for c in ("loss", "tokens", "params")
    )
    if loss > MOST_NATS and tokens >= TRAINED_TOKENS and params >= TRAINED_PARAMS:
        yield (
            f"The median loss is {loss:.3g}, more than the cross-entropy of any model after "
            f"{tokens:.2g} tokens: is it a perplexity, or a sum? Give its logarithm (nats a "
            "token): a perplexity follows another law."
        )


def _warn_repeats(law: "Law", names: Sequence[str]) -> Iterator[str]:
    """Yield points and names that several runs share without saying that they belong together."""
    clusters = [r.cluster for r in law.runs]
    points = points_of([law.fit.columns[c] for c in law.fit.form.columns])
    losses = law.fit.target
    pairs = [(first, i) for i, first in enumerate(points) if first != i]
    pairs = [(a, b) for a, b in pairs if losses[a] != losses[b]]
    keys = ", ".join(law.fit.form.columns)
    for together, said in (
        (True, "They are taken as seeds of one point and resampled together; where recipes differ, "
               "fit the rows of one."),
        (False, "Seeds of one point need one `cluster`, else intervals are too narrow."),
    ):  # fmt: skip
        found = [
            f"{names[i]} of {names[first]}"
            for first, i in pairs
            if (clusters[first] is None and clusters[i] is None) == together
            and (together or clusters[first] != clusters[i])
        ]
        if found:
            yield (
                f"Points ({keys}) of another run with another loss, {counted(len(found), 'run')}: "
                f"{listed(found)}. {said}"
            )
    labels = np.unique(names, return_inverse=True)[1][:, None].astype(float)
    same = [
        names[i]
        for first, i in repeats(labels)
        if (clusters[i] is None or clusters[first] != clusters[i])
        and law.runs[first] != law.runs[i]
    ]
    if same:
        yield (
            f"Several rows are called {listed(list(dict.fromkeys(same)))}: checkpoints of one run "
            "need one `cluster`, other runs names of their own."
        )


def _warn_flops(law: "Law", names: Sequence[str]) -> Iterator[str]:
    """Yield runs whose FLOPs do not go with their parameters and tokens."""
    each = np.array([r.flops / (r.params * r.tokens) for r in law.runs])
    middle = float(np.median(each))
    near = _usual(each, np.array([r.params for r in law.runs]))
    other = np.abs(np.log(each / near)) > np.log(OTHER_COUNT)
    other &= np.abs(np.log(each / TEXTBOOK)) > np.log(OTHER_COUNT)
    off = other | (np.abs(np.log(each / middle)) > np.log(FAR))
    if off.any():
        rows = np.flatnonzero(off).tolist()
        said = listed([f"{names[i]} ({each[i]:.2g})" for i in rows])
        factor = float(np.median(each[off] / middle))
        yield (
            f"The FLOPs for each parameter and token of {said} are far from the others' "
            f"{middle:.2g}, by a factor {factor:.2g}: one of params, tokens and flops is "
            f"{_unit(factor)} there. Correct it, or mark excluded=true."
        )
    ratios = each[~off] / TEXTBOOK
    factor = float(np.median(ratios))
    if len(ratios) and abs(np.log(factor)) > np.log(OTHER_COUNT):
        low, high = np.quantile(ratios, [0.05, 0.95])
        spread = f"{factor:.2g} times" if high < 1.2 * low else f"{low:.2g} to {high:.2g} times"
        why = (
            "columns swapped, or another unit" if not 1 / 12 < factor < FAR else "counted otherwise"
        )
        if (unit := _unit(factor)) != OTHERWISE:
            why = f"params or tokens is {unit}"
        yield (
            f"The median run has {middle:.2g} FLOPs for each parameter and token, where 6 are the "
            f"rule: FLOPs are {spread} 6 N D ({why}). Budgets and the frontier count as the table "
            "does; leave the column flops out to count 6 N D."
        )


OTHERWISE = "wrong or in another unit"


def _unit(factor: float) -> str:
    """Return in which unit a column must be that makes FLOPs so many times too large."""
    for size, word in UNITS.items():
        if abs(np.log(factor / size)) < np.log(1.3):
            return f"in {word}"
    return OTHERWISE


def _usual(each: Array, params: Array) -> Array:
    """Return the median of each run's neighbours in size."""
    if len(each) <= NEIGHBOURS:
        return np.full(len(each), np.median(each))
    order = np.argsort(params, kind="stable")
    half = NEIGHBOURS // 2
    windows = np.lib.stride_tricks.sliding_window_view(each[order], NEIGHBOURS)
    middles = np.median(windows, axis=1)
    usual = np.empty_like(each)
    usual[order] = np.pad(middles, half, mode="edge")
    return usual


def _warn_nominal(law: "Law", names: Sequence[str]) -> Iterator[str]:
    """Yield runs whose FLOPs are not those of the budget that they are said to belong to."""
    factors = [
        (r.flops / r.budget, name) for r, name in zip(law.runs, names, strict=True) if r.budget
    ]
    off = [(f, name) for f, name in factors if abs(np.log(f)) > np.log(OTHER_COUNT)]
    if not off:
        return
    said = listed([f"{name} ({f:.2g} times)" for f, name in off])
    yield (
        f"The FLOPs of {len(off)} of {len(factors)} runs are not those of their budget: {said}. "
        "One of budget and flops is counted otherwise."
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
            f"Far off the law, {counted(len(far), 'run')}: {said}; others scatter by "
            f"{100 * scale:.2g} %. Diverged, mislabelled or in another unit? Mark excluded=true "
            "what is wrong."
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
