"""How forms foresaw runs that share no compute: rolling origin over tenths of the rows.

Such a table has no budgets, and the least loss of a compute is not known in it. What a form says of
the runs themselves can be held against them: it is fitted to the rows of least compute, and the
least of its predictions of a later tenth stands beside the least loss there, which is also how the
largest tenth is held out.
"""

from collections.abc import Iterable, Sequence
from statistics import NormalDist

import numpy as np

from sweeps.fit.forecast.origins import Origins
from sweeps.fit.forecast.rolling import Record, in_order
from sweeps.fit.forms.base import Array
from sweeps.fit.forms.catalogue import form_of
from sweeps.fit.optimum.solve import Fit
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.runs import Run, best_loss, columns_of

TENTHS = 10
FIRST = 5  # tenths of the first origin
FORM_BELIEF = 0.002  # error a factor e of compute ahead where no past forecast speaks
# These two were set by coverage over synthetic tables of two laws (docs/log.md, 2026-11-30).
FADES = 1.0  # e-folds of compute after which an origin counts half
FEW = 1.2  # times the squares beyond the noise: forecasts of a table share their origins and rows
LEAST = 2.0  # times the largest fitted run: nearer ones tell of noise, not of a forecast


def rolling_tenths(runs: Sequence[Run], options: FitOptions, forms: Iterable[str]) -> list[Record]:
    """Return the record of each form, by fits that have seen no later run.

    The compute of a forecast is that of the tenth's run of least loss.
    """
    order = np.argsort([r.flops for r in runs], kind="stable")
    tenths = [[runs[int(i)] for i in rows] for rows in np.array_split(order, TENTHS) if len(rows)]
    found = []
    for name in forms:
        origins = Origins(form_of(name), options)
        errors: list[tuple[float, float, float]] = []
        for count in range(FIRST, len(tenths)):
            known = [run for tenth in tenths[:count] for run in tenth]
            origin = known[-1].flops
            ahead = [t for t in tenths[count:] if compute_of_best(t) >= LEAST * origin]
            foreseen = _least(origins, known, ahead) if ahead else []
            for tenth, loss in zip(ahead, foreseen, strict=False):
                error = float(np.log(loss / best_loss(tenth)))
                errors.append((origin, compute_of_best(tenth), error))
        found.append(Record(name, errors))
    return in_order(found)


def ends_by_tenths(past: Array, noise: float, reach: float, level: float) -> float:
    """Return how far log loss may miss, `reach` e-folds of compute beyond the runs.

    `past` holds (origin, target, log error) of each forecast, `(F, 3)`; `noise` is the standard
    deviation of a run's log loss. Errors beyond the noise grow with the e-folds ahead, the noise of
    the loss they are held against does not: their size for each e-fold is the root of
    sum w (error^2 - noise^2) / sum w reach^2, in which near forecasts count little. w halves for
    every `FADES` e-folds that an origin lies below the last one: a form fitted to fewer rows errs
    more. The sums begin with `FORM_BELIEF`, one e-fold ahead.
    """
    if reach <= 0:
        return 0.0
    squares, folds = FORM_BELIEF**2, 1.0
    if len(past):
        origin, target, error = past.T
        weight = 0.5 ** (np.log(origin.max() / origin) / FADES)
        squares += FEW * max(0.0, float(np.sum(weight * (error**2 - noise**2))))
        folds += float(np.sum(weight * np.log(target / origin) ** 2))
    return NormalDist().inv_cdf((1 + level) / 2) * float(np.sqrt(squares / folds)) * reach


def noise_of(fit: Fit) -> float:
    """Return the noise of a run's log loss: the residuals' scale, which stray runs move little."""
    scale = 1.4826 * float(np.median(np.abs(fit.residuals)))
    count = len(fit.residuals)
    return scale * float(np.sqrt(count / max(count - fit.num_free, 1)))


def compute_of_best(runs: Sequence[Run]) -> float:
    """Return the FLOPs of the run of least loss."""
    return min(runs, key=lambda run: run.loss).flops


def _least(origins: Origins, known: Sequence[Run], ahead: Sequence[Sequence[Run]]) -> list[float]:
    """Return the least prediction of each group by the form; none where it has no fit."""
    fit = origins.fit(known)
    if fit is None:
        return []
    with np.errstate(all="ignore"):  # a form that does not suit may overflow on its way
        least = [float(fit.predict(columns_of(group)[0]).min()) for group in ahead]
    return least if np.isfinite(least).all() else []
