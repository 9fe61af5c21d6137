"""Whether residuals have structure: by budget, size or length, in steps, bends, groups or runs.

Each question is a regression of the residuals on a few columns beside the law's own Jacobian: what
the law could have taken up by other coefficients does not count. Residuals beyond five scales count
as five, so that one odd row makes no structure. Rows of one cluster count as one, as far as their
residuals agree (the design effect of Kish 1965).
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc

from sweeps.fit.forms.base import Array
from sweeps.fit.optimum.solve import Fit

CLIP = 5.0  # scales: a Gaussian residual is that far once in two million
UNLIKELY = 1e-3  # p-value below which structure is said: six questions, one false word in 200
LEAST_EXPLAINED = 0.1  # of the residuals' squares: less moves no forecast
UNEVEN = 4.0  # ratio of scatters: noise that falls with size makes up to 3 in tables on record
BINS = 5  # of a column with more values than MOST_VALUES
MOST_VALUES = 8
LEFT_OVER = 3  # degrees of freedom that a question must leave
EXACT = 1e-7  # a scatter below this is rounding: the rows were made by the form itself
BITS = float(np.log(1 / np.log(2.0)))  # log of (a loss in bits / the same in nats)
# Of the residuals' squares: what explains so much is their cause. A law that bends takes part of a
# bend up by its exponents.
EXPLAINED = {"step": 0.8, "bend": 0.7}
BEND_BUDGETS = 5  # two laws of fewer budgets are one that does not hold
# A cut of n Gaussian residuals in two groups parts their means by 2.7 of the spread within them, of
# uniform ones by 3.5; no real table on record is above 4.0.
TWO_GROUPS, LEAST_SHARE, LEAST_ROWS = 4.5, 0.2, 20


@dataclass(frozen=True)
class Residuals:
    """Hold what is left of log L - log L_hat beside the Jacobian's columns, and what that spent.

    `effect` is the design effect of the clusters; `rows` the count of rows they are worth.
    """

    left: Array  # (R,)
    basis: Array  # (R, P), orthonormal
    effect: float
    rows: float

    @classmethod
    def of(cls, fit: Fit, clusters: Sequence[Hashable]) -> "Residuals | None":
        """Return the residuals of a fit, None where they are rounding or hardly more than it has
        coefficients.
        """
        off = -fit.residuals
        scale = 1.4826 * float(np.median(np.abs(off - np.median(off))))
        free = fit.low < fit.high
        jacobian = fit.form.bind(fit.columns).expand(fit.theta[None]).jacobian[0][free].T
        norms = np.linalg.norm(jacobian, axis=0)
        if scale < EXACT or not np.isfinite(jacobian).all() or len(off) < len(norms) + LEFT_OVER:
            return None
        basis = np.linalg.qr(jacobian[:, norms > 0] / norms[norms > 0])[0]
        off = np.clip(off, -CLIP * scale, CLIP * scale)
        left = off - basis @ (basis.T @ off)
        effect = _design_effect(left, clusters)
        return cls(left, basis, effect, len(left) / effect)

    def beside(self, columns: Array) -> tuple[float, float, float, Array]:
        """Return F, its p-value, the share of squares explained and the slopes of `(R, Q)`."""
        rest = columns - self.basis @ (self.basis.T @ columns)
        u, s, v = np.linalg.svd(rest, full_matrices=False)
        kept = s > 1e-6 * max(float(s[0]), 1e-300)
        u, s, v = u[:, kept], s[kept], v[kept]
        along, total = u.T @ self.left, float(self.left @ self.left)
        count, gain = len(s), float(along @ along)
        spare = self.rows - self.basis.shape[1] - count
        if not count or spare < LEFT_OVER:
            return 0.0, 1.0, 0.0, np.zeros(columns.shape[1])
        whole = len(self.left) - self.basis.shape[1] - count
        f = gain / count / max((total - gain) / whole, 1e-300) / self.effect
        return f, float(fdtrc(count, spare, f)), gain / total, v.T @ (along / s)


def warn_structure(
    fit: Fit, axes: Mapping[str, Array], clusters: Sequence[Hashable]
) -> Iterator[str]:
    """Yield a verdict for each way in which the residuals are not noise.

    Args:
        fit: the law.
        axes: what residuals may lean by, under the words that say it ("size", "budget", "length"),
            `(R,)` each; a step or a bend is looked for along "budget".
        clusters: what each row is resampled with.
    """
    found = Residuals.of(fit, clusters)
    if found is None:
        return
    cause = next(_causes(found, axes), None)
    if cause:
        yield cause
        return  # leans by budget, size and length all come of it
    said = [lean for word, values in axes.items() for lean in _warn_lean(found, word, values)]
    if said:
        said[-1] += " Beyond the runs the law may err by more than its interval says."
    yield from said
    if "size" in axes:
        yield from _warn_uneven(found, axes["size"])


def _causes(found: Residuals, axes: Mapping[str, Array]) -> Iterator[str]:
    """Yield what alone explains most of the residuals."""
    if "budget" in axes:
        yield from _warn_break(found, axes["budget"])
    yield from _warn_two_groups(found)


def _warn_lean(found: Residuals, word: str, values: Array) -> Iterator[str]:
    """Yield that residuals lean by what `values` tell, with the groups that lie farthest off."""
    group, centres = _groups(values)
    if len(centres) < 2:
        return
    f, p, share, _ = found.beside((group[:, None] == np.arange(len(centres))).astype(float))
    if p > UNLIKELY or share < LEAST_EXPLAINED:
        return
    means = np.array([found.left[group == k].mean() for k in range(len(centres))])
    far = np.sort(np.argsort(-np.abs(means), kind="stable")[:3])
    said = ", ".join(f"{100 * means[k]:+.2g} % at {centres[k]:.3g}" for k in far)
    why = "the form does not hold over this range, or recipes differ"
    if word == "size":
        why = "sizes were not tuned alike, or the form does not hold over this range"
        if means[-1] > 0 and means[-1] >= 0.5 * np.abs(means).max():
            why = "the largest sizes, which lie too high, are undertuned, or the form does not hold"
    yield (
        f"Residuals have structure by {word} (F = {f:.1f}, p = {p:.1g}, {100 * share:.0f} % of "
        f"their squares): runs lie {said} beside the law. Likely {why}."
    )


def _warn_uneven(found: Residuals, sizes: Array) -> Iterator[str]:
    """Yield that some sizes scatter far more than others (Levene's test on root residuals)."""
    group, centres = _groups(sizes)
    rows = [group == k for k in range(len(centres))]
    scatter = np.sqrt([np.mean(found.left[r] ** 2) for r in rows])
    count, kinds = len(group), len(centres)
    if kinds < 2 or count - kinds < LEFT_OVER or found.effect > 1.5 or not scatter.min() > 0:
        return
    spread = np.sqrt(np.abs(found.left))  # the root of a Gaussian's size is nearly Gaussian
    means = np.array([spread[r].mean() for r in rows])
    inside = sum(float(np.sum((spread[r] - m) ** 2)) for r, m in zip(rows, means, strict=True))
    across = sum(
        float(r.sum() * (m - spread.mean()) ** 2) for r, m in zip(rows, means, strict=True)
    )
    f = across / (kinds - 1) / (inside / (count - kinds))
    p = float(fdtrc(kinds - 1, count - kinds, f))
    wide, narrow = int(np.argmax(scatter)), int(np.argmin(scatter))
    if p < UNLIKELY and scatter[wide] > UNEVEN * scatter[narrow]:
        yield (
            f"Runs of {centres[wide]:.3g} parameters scatter by {100 * scatter[wide]:.2g} %, those "
            f"of {centres[narrow]:.3g} by {100 * scatter[narrow]:.2g} % (F = {f:.1f}, "
            f"p = {p:.1g}): sizes were not tuned alike, and undertuned rungs lie above the law and "
            "bend it. Fit only the sizes that were tuned, and see what changes."
        )


def _warn_break(found: Residuals, budgets: Array) -> Iterator[str]:
    """Yield the compute at which the law changes, where a step or a bend there explains it all."""
    logs = np.log(budgets)
    known = np.unique(np.round(logs, 3))
    if not 3 <= len(known) <= 4 * MOST_VALUES:
        return
    tried = []
    for at in known[1:]:
        tried.append((*found.beside((logs > at - 1e-2).astype(float)[:, None]), "step", at))
    for at in known[1:-1] if len(known) >= BEND_BUDGETS else ():
        tried.append((*found.beside(np.maximum(0.0, logs - at)[:, None]), "bend", at))
    f, p, share, slope, kind, at = max(tried, key=lambda entry: entry[2])
    if share < EXPLAINED[kind] or p * len(tried) > UNLIKELY:
        return
    figures = f"(t = {np.sqrt(f):.1f}, {100 * share:.0f} % of the residuals' squares)"
    size, where = float(slope[0]), f"{np.exp(at):.3g} FLOPs"
    if kind == "bend":
        yield (
            f"The law bends near {where} {figures}: its slope changes there, or the form does not "
            "hold over this range. Fit the parts by themselves, and forecast from the upper one."
        )
    elif abs(abs(size) / BITS - 1) < 0.1:
        low = "below" if size < 0 else "from"
        yield (
            f"Losses {low} {where} are {np.exp(abs(size)):.2f} times the others {figures}, as if "
            "they were in bits and the others in nats (1.44). Multiply those by 0.693."
        )
    else:
        yield (
            f"The law steps by {100 * np.expm1(size):+.2g} % from {where} on {figures}: another "
            "recipe, data or validation set there? Fit the runs of one recipe, or mark "
            "excluded=true the others."
        )


def _warn_two_groups(found: Residuals) -> Iterator[str]:
    """Yield that the residuals fall in two groups, where they do."""
    values, count = np.sort(found.left), len(found.left)
    if count < LEAST_ROWS or found.effect > 1.5:
        return
    cuts = np.arange(max(2, int(LEAST_SHARE * count)), count - max(1, int(LEAST_SHARE * count)))
    sums, squares = np.cumsum(values), np.cumsum(values**2)
    low = sums[cuts - 1] / cuts
    high = (sums[-1] - sums[cuts - 1]) / (count - cuts)
    within = squares[-1] - cuts * low**2 - (count - cuts) * high**2
    parted = (high - low) / np.sqrt(np.maximum(within, 1e-300) / (count - 2))
    best = int(np.argmax(parted))
    if parted[best] > TWO_GROUPS:
        yield (
            f"Residuals fall in two groups: {count - cuts[best]} of {count} runs lie "
            f"{100 * np.expm1(high[best] - low[best]):.2g} % above the others, {parted[best]:.1f} "
            "times the spread within each. Two recipes in one table, such as runs whose rate was "
            "not decayed? Fit one, or mark excluded=true the other."
        )


def _groups(values: Array) -> tuple[Array, Array]:
    """Return the group of each row and the groups' centres: its values, or fifths of the rows."""
    logs = np.log(values)
    marks = np.round(logs, 2)
    if len(np.unique(marks)) > MOST_VALUES:
        marks = np.searchsorted(np.quantile(logs, np.arange(1, BINS) / BINS), logs).astype(float)
    known = np.unique(marks)
    return np.searchsorted(known, marks).astype(float), np.exp(
        np.array([np.mean(logs[marks == mark]) for mark in known])
    )


def _design_effect(left: Array, clusters: Sequence[Hashable]) -> float:
    """Return 1 + (mean size - 1) times the correlation within clusters, at least 1."""
    names: dict[Hashable, int] = {}
    member = np.array([names.setdefault(c, len(names)) for c in clusters])
    sizes = np.bincount(member).astype(float)
    if len(sizes) == len(left):
        return 1.0
    pairs = float(np.sum(sizes * (sizes - 1)))
    sums = np.bincount(member, weights=left)
    cross = float(np.sum(sums**2) - np.sum(left**2)) / pairs
    within = max(0.0, cross / float(np.mean(left**2)))
    return 1 + (float(np.sum(sizes**2)) / len(left) - 1) * min(within, 1.0)
