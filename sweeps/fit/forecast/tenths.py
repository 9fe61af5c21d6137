"""How forms foresaw runs that share no compute: rolling origin over tenths of the rows.

Such a table has no budgets, and the least loss of a compute is not known in it. What a form says of
the runs themselves can be held against them: it is fitted to the rows of least compute, and the
least of its predictions of a later tenth stands beside the least loss there, which is also how the
largest tenth is held out.
"""

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from sweeps.fit.forecast.rolling import Record, in_order
from sweeps.fit.forms.base import Array
from sweeps.fit.optimum.solve import Fit, refit
from sweeps.fit.rows.check import check_columns
from sweeps.fit.rows.runs import Run, best_loss, columns_of

TENTHS = 10
FIRST = 5  # tenths of the first origin
FORM_BELIEF = 0.002  # error a factor e of compute ahead where no past forecast speaks
FADES = 0.5  # e-folds of compute after which an origin counts half
LEAST = 2.0  # times the largest fitted run: nearer ones tell of noise, not of a forecast


def rolling_tenths(runs: Sequence[Run], fits: Mapping[str, Fit]) -> list[Record]:
    """Return the record of each form, `fits` being those to all runs; refits start from them.

    The compute of a forecast is that of the tenth's run of least loss.
    """
    order = np.argsort([r.flops for r in runs], kind="stable")
    tenths = [[runs[int(i)] for i in rows] for rows in np.array_split(order, TENTHS) if len(rows)]
    found = []
    for name, fit in fits.items():
        errors: list[tuple[float, float, float]] = []
        for count in range(FIRST, len(tenths)):
            known = [run for tenth in tenths[:count] for run in tenth]
            origin = known[-1].flops
            ahead = [t for t in tenths[count:] if compute_of_best(t) >= LEAST * origin]
            for tenth, loss in zip(ahead, _least(fit, known, ahead), strict=False):
                error = float(np.log(loss / best_loss(tenth)))
                errors.append((origin, compute_of_best(tenth), error))
        found.append(Record(name, errors))
    return in_order(found)


def ends_by_tenths(past: Array, reach: float, level: float) -> float:
    """Return how far log loss may miss, `reach` e-folds of compute beyond the runs.

    `past` holds (origin, target, log error) of each forecast, `(F, 3)`. Errors grow with the
    e-folds ahead: their size for each is the root of sum w error^2 / sum w reach^2, in which near
    forecasts, that tell of noise, count little. w halves for every `FADES` e-folds that an origin
    lies below the last one: a form fitted to fewer rows errs more. The sums begin with
    `FORM_BELIEF`, one e-fold ahead.
    """
    if reach <= 0:
        return 0.0
    squares, folds = FORM_BELIEF**2, 1.0
    if len(past):
        origin, target, error = past.T
        weight = 0.5 ** (np.log(origin.max() / origin) / FADES)
        squares += float(np.sum(weight * error**2))
        folds += float(np.sum(weight * np.log(target / origin) ** 2))
    return NormalDist().inv_cdf((1 + level) / 2) * float(np.sqrt(squares / folds)) * reach


def compute_of_best(runs: Sequence[Run]) -> float:
    """Return the FLOPs of the run of least loss."""
    return min(runs, key=lambda run: run.loss).flops


def _least(whole: Fit, known: Sequence[Run], ahead: Sequence[Sequence[Run]]) -> list[float]:
    """Return the least prediction of each group by `whole`'s form; none where it has no fit."""
    columns, loss = columns_of(known)
    try:
        check_columns(whole.form, columns, loss, len(whole.fixed))
    except ValueError:
        return []
    with np.errstate(all="ignore"):  # a form that does not suit may overflow on its way
        fit = refit(whole, columns, loss, whole.objective_of.delta)
        least = [float(fit.predict(columns_of(group)[0]).min()) for group in ahead]
    return least if np.isfinite(least).all() else []
