"""Which law would have foreseen the budgets so far: rolling origin (Tashman 2000) over a table.

Each method is fitted to the smallest budgets and asked for the best loss of each larger one, from
every origin. The methods: `nearby` (`nearby.py`), the forms of (params, tokens), Chinchilla's form
on runs near their budget's best, and laws of compute alone through the budgets' minima or bests.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sweeps.fit.forecast.forecaster import FURTHEST, MIN_BUDGETS
from sweeps.fit.forecast.ladder import Ladder
from sweeps.fit.forecast.nearby import floor_loss, median_loss, nearby_losses
from sweeps.fit.forecast.origins import Origins
from sweeps.fit.forms.base import Array, FlopsPerToken, Rows
from sweeps.fit.forms.catalogue import form_of
from sweeps.fit.minima.frontier import compute_optimal
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.check import near_best
from sweeps.fit.rows.runs import Run, group_budgets

NEARBY = "nearby"
CLOSE = 0.02  # of the budget's best: the runs that Chinchilla's form is also fitted to alone
MOST_ORIGINS = 8  # the latest: what ten budgets ago was foreseen from four says little

# (runs of the fitted budgets, their ladder, target FLOPs) -> least losses there; None: no law.
Predict = Callable[[Sequence[Run], Ladder, Sequence[float]], list[float] | None]


@dataclass(frozen=True)
class Record:
    """Hold how a method foresaw the budgets of a table.

    errors: (origin, target, log of foreseen over best loss) of each forecast.
    """

    method: str
    errors: list[tuple[float, float, float]]

    @property
    def past(self) -> Array:
        """Return the errors as `forecaster.earned` takes them, `(F, 3)`."""
        return np.array(self.errors).reshape(-1, 3)

    @property
    def size(self) -> float:
        """Return the root mean square error for each e-fold of compute ahead."""
        each = [error / np.log(target / origin) for origin, target, error in self.errors]
        return float(np.sqrt(np.mean(np.square(each)))) if each else float("inf")

    def to_dict(self) -> dict[str, float | int | str | None]:
        """Return the record as a row of the table, errors relative."""
        off = np.expm1([error for *_, error in self.errors])
        following: dict[float, float] = {}
        for (origin, _, _), miss in zip(self.errors, off, strict=True):
            following.setdefault(origin, float(abs(miss)))
        if not len(off):
            return {"method": self.method, "forecasts": 0, "mean_absolute_error": None,
                    "next_budget_error": None, "bias": None, "worst": None}  # fmt: skip
        return {
            "method": self.method,
            "forecasts": len(off),
            "mean_absolute_error": float(np.mean(np.abs(off))),
            "next_budget_error": float(np.mean(list(following.values()))),
            "bias": float(np.mean(off)),
            "worst": float(off[np.argmax(np.abs(off))]),
        }


def rolling_origin(
    runs: Sequence[Run],
    budgets: Sequence[tuple[float, Rows]],
    ladder: Ladder,
    cost: FlopsPerToken,
    options: FitOptions,
    forms: Iterable[str],
) -> list[Record]:
    """Return the record of each method over the ladder, the one that erred least first.

    `forms` are asked besides the simple methods, by fits that have seen no later run.
    """
    first = max(MIN_BUDGETS, len(ladder) - MOST_ORIGINS)
    records: dict[str, list[tuple[float, float, float]]] = {}
    methods = dict(_methods(cost, options, list(forms)))
    for count in range(first, len(ladder)):
        origin = float(ladder.compute[count - 1])
        ahead = [j for j in range(count, len(ladder)) if ladder.compute[j] <= FURTHEST * origin]
        known = [runs[int(i)] for _, rows in budgets[:count] for i in rows]
        targets = [float(ladder.compute[j]) for j in ahead]
        for name, predict in methods.items():
            foreseen = predict(known, ladder.below(count), targets) if targets else None
            for j, loss in zip(ahead, foreseen or (), strict=False):
                error = float(np.log(loss / ladder.best[j]))
                records.setdefault(name, []).append((origin, float(ladder.compute[j]), error))
    return in_order([Record(name, records.get(name, [])) for name in methods])


def in_order(records: Sequence[Record]) -> list[Record]:
    """Return the records with the most forecasts first, of these the one that erred least."""
    return sorted(records, key=lambda record: (-len(record.errors), record.size))


def joined(form: Record, ladder: Ladder) -> Record:
    """Return the record of the median of `nearby`'s members and of what a form foresaw."""
    errors = []
    for origin, target, error in form.errors:
        known = ladder.below(int(np.searchsorted(ladder.compute, origin)) + 1).trusted()
        best = float(ladder.best[np.searchsorted(ladder.compute, target)])
        members = nearby_losses(known.compute, known.loss[None], target)[0]
        foreseen = float(np.median([*members, best * np.exp(error)]))
        errors.append((origin, target, float(np.log(foreseen / best))))
    return Record(f"{NEARBY} and {form.method}", errors)


def _methods(
    cost: FlopsPerToken, options: FitOptions, forms: Sequence[str]
) -> Iterator[tuple[str, Predict]]:
    yield NEARBY, _nearby
    yield "E + A C^-a, minima", _minima
    yield "E + A C^-a, bests", _bests
    yield "A C^-a, bests", _power
    for name in forms:
        yield name, partial(_form, Origins(form_of(name), options), cost)
    if "chinchilla" in forms:
        near = Origins(form_of("chinchilla"), options)
        yield f"chinchilla, runs within {100 * CLOSE:g} %", partial(_close, near, cost)


def _nearby(runs: Sequence[Run], ladder: Ladder, targets: Sequence[float]) -> list[float]:
    known = ladder.trusted()
    return [float(median_loss(known.compute, known.loss[None], c)[0]) for c in targets]


def _minima(runs: Sequence[Run], ladder: Ladder, targets: Sequence[float]) -> list[float] | None:
    kept = ladder.interior.astype(bool)
    if kept.sum() < MIN_BUDGETS:
        return None
    return [float(floor_loss(ladder.compute[kept], ladder.loss[None, kept], c)[0]) for c in targets]


def _bests(runs: Sequence[Run], ladder: Ladder, targets: Sequence[float]) -> list[float]:
    return [float(floor_loss(ladder.compute, ladder.best[None], c)[0]) for c in targets]


def _power(runs: Sequence[Run], ladder: Ladder, targets: Sequence[float]) -> list[float]:
    x = np.log(ladder.compute)
    slope, offset = np.polyfit(x - x.mean(), np.log(ladder.best), 1)
    return [float(np.exp(offset + slope * (np.log(c) - x.mean()))) for c in targets]


def _close(
    origins: Origins,
    cost: FlopsPerToken,
    runs: Sequence[Run],
    ladder: Ladder,
    targets: Sequence[float],
) -> list[float] | None:
    close, _ = near_best(runs, group_budgets(runs), CLOSE)
    return _form(origins, cost, close, ladder, targets)


def _form(
    origins: Origins,
    cost: FlopsPerToken,
    runs: Sequence[Run],
    ladder: Ladder,
    targets: Sequence[float],
) -> list[float] | None:
    """Return the least losses by the form fitted to `runs`; None where it cannot be."""
    fit = origins.fit(runs)
    if fit is None:
        return None
    with np.errstate(all="ignore"):  # a form that does not suit may overflow on its way
        losses = [float(compute_optimal(fit, fit.theta, c, cost)[2][0]) for c in targets]
    return losses if np.isfinite(losses).all() else None
