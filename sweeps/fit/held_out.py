"""The held-out test: the largest budget is left out of the fit and predicted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sweeps.fit.forms.base import Array, FlopsPerToken, Interval, Rows
from sweeps.fit.minima.frontier import compute_optimal
from sweeps.fit.optimum.solve import Fit
from sweeps.fit.rows.runs import Run, best_loss, clusters_of, columns_of, noise_floor
from sweeps.fit.trust.bootstrap import (
    Bootstrap,
    bootstrap_fit,
    percentile_interval,
    prediction_draws,
)

Fitting = Callable[[Sequence[Run]], Fit]


@dataclass(frozen=True)
class HeldOut:
    """Hold the prediction of the largest budget by a law that has not seen it.

    other_forms: what laws of other forms predict from the same runs: how much rests on the form.
    line_predicted, line_relative_error, line_skill: of the best loss by
    :func:`line_through_budgets`, a check that assumes less; None below three fitted budgets.
    """

    budget: float
    runs: list[dict[str, Any]]
    predicted: float
    actual: float
    relative_error: float
    interval: Interval
    inside: bool
    noise_floor: float | None
    skill: float | None
    skill_reason: str | None
    extrapolation_factor: float
    predicted_frontier: float
    line_predicted: float | None = None
    line_relative_error: float | None = None
    line_skill: float | None = None
    other_forms: dict[str, dict[str, float | None]] = field(default_factory=dict)


def hold_out(
    runs: Sequence[Run],
    budgets: Sequence[tuple[float, Rows]],
    fitting: Fitting,
    cost: FlopsPerToken,
    level: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    others: Mapping[str, Fitting] | None = None,
) -> tuple[HeldOut | None, str | None]:
    """Fit without the largest budget and predict each of its runs and its best loss.

    Where the runs form no budgets the tenth of them with the most compute is left out. `fitting`
    fits the runs it is given; `others` do so with other forms. `predicted` is the least of the
    predictions at the held-out (N, D), `actual` the least loss there (of a point: the mean over its
    seeds), `predicted_frontier` the law's L*(C). The prediction interval of a run is the central
    `level` of draws  L_hat_k exp(u + v):  L_hat_k one bootstrap refit, u one
    residual of the fit drawn with replacement and widened by sqrt(R / (R - P)) for the degrees of
    freedom spent, v Gaussian with the noise floor. For the best loss it is that of the least of the
    runs' draws. (u already holds the noise of the fitted runs: adding v errs on the wide side.)
    skill = 1 - |predicted - actual| / |best fitted loss of the last fitted budget - actual|.
    Returns the test, or None and the reason.
    """
    if len(budgets) == 1:
        return None, "1 compute budgets, at least 2 are needed"
    top, test_rows, last = _split(runs, budgets)
    least = min(runs[i].flops for i in test_rows)
    train = [r for i, r in enumerate(runs) if i not in test_rows and r.flops < least]
    test = [runs[i] for i in test_rows]
    try:
        fit = fitting(train)
    except ValueError as error:
        return None, f"without the largest budget {error}"
    boot = bootstrap_fit(fit, clusters_of(train), resamples, level, seed)
    if not len(boot.theta):
        return None, "no bootstrap resample without the largest budget could be fitted"
    floor = noise_floor(runs)
    draws = _prediction_draws(fit, boot, test, floor or 0.0, seed)
    held, _ = columns_of(test)
    predicted = fit.predict(held)
    rows = [
        _judged(float(p), r.loss, percentile_interval(d, level))
        | {"name": r.name, "params": r.params, "tokens": r.tokens, "flops": r.flops}
        for r, p, d in zip(test, predicted, draws.T, strict=True)
    ]
    actual = best_loss(test)
    whole = _judged(float(predicted.min()), actual, percentile_interval(draws.min(axis=1), level))
    line = line_through_budgets(
        [(compute, best_loss([runs[i] for i in rows])) for compute, rows in budgets[:-1]], top
    )
    skill, why = _skill(whole["predicted"], actual, last, floor)
    return HeldOut(
        budget=top,
        runs=rows,
        noise_floor=floor,
        skill=skill,
        skill_reason=why,
        extrapolation_factor=top / max(r.flops for r in train),
        predicted_frontier=float(compute_optimal(fit, fit.theta, top, cost)[2][0]),
        line_predicted=line,
        line_relative_error=line / actual - 1 if line else None,
        line_skill=_skill(line, actual, last, floor)[0] if line else None,
        other_forms=_other_forms(others or {}, train, held, (actual, last, floor)),
        **whole,
    ), None


def _other_forms(
    others: Mapping[str, Fitting],
    train: Sequence[Run],
    held: dict[str, Array],
    known: tuple[float, float, float | None],
) -> dict[str, dict[str, float | None]]:
    """Return prediction, error and skill of each form that can be fitted."""
    found: dict[str, dict[str, float | None]] = {}
    for name, fitting in others.items():
        try:
            # A form that does not suit the rows may overflow on its way; it then says nothing.
            with np.errstate(all="ignore"):
                predicted = float(fitting(train).predict(held).min())
        except ValueError:  # too few runs for its coefficients
            continue
        if not np.isfinite(predicted):
            continue
        error, skill = predicted / known[0] - 1, _skill(predicted, *known)[0]
        found[name] = {"predicted": predicted, "relative_error": error, "skill": skill}
    return found


def line_through_budgets(best: Sequence[tuple[float, float]], compute: float) -> float | None:
    """Return L(C) by a power law without E through each budget's (C, best loss), by least squares.

    It uses one number a budget and no parameters or tokens; None below three budgets.
    """
    if len(best) < 3:
        return None
    x, y = np.log(np.array(best)).T
    slope, offset = np.polyfit(x - x.mean(), y, 1)
    return float(np.exp(offset + slope * (np.log(compute) - x.mean())))


def _split(
    runs: Sequence[Run], budgets: Sequence[tuple[float, Rows]]
) -> tuple[float, list[int], float]:
    """Return the held-out compute, its rows, and the best loss of the compute below it."""
    if budgets:
        top, rows = budgets[-1]
        return top, [int(i) for i in rows], best_loss([runs[i] for i in budgets[-2][1]])
    order = np.argsort([r.flops for r in runs], kind="stable")
    num = max(1, len(runs) // 10)
    below = order[: len(runs) - num]
    return (
        runs[order[-1]].flops,
        [int(i) for i in order[-num:]],
        best_loss([runs[i] for i in below]),
    )


def _prediction_draws(
    fit: Fit, boot: Bootstrap, test: Sequence[Run], floor: float, seed: int
) -> Array:
    """Return draws of the test runs' losses, `(K, R)`, as `hold_out` describes."""
    rng = np.random.default_rng((seed, 1))
    law = prediction_draws(fit, boot, columns_of(test)[0])
    count = len(fit.residuals)
    widen = np.sqrt(count / max(count - fit.num_free, 1))
    misfit = -widen * rng.choice(fit.residuals, size=law.shape)
    return np.asarray(law * np.exp(misfit + floor * rng.standard_normal(law.shape)))


def _judged(predicted: float, actual: float, interval: Interval) -> dict[str, Any]:
    """Return a prediction beside what happened."""
    return {
        "predicted": predicted,
        "actual": actual,
        "relative_error": predicted / actual - 1,
        "interval": interval,
        "inside": bool(interval[0] <= actual <= interval[1]),
    }


def _skill(
    predicted: float, actual: float, last: float, floor: float | None
) -> tuple[float | None, str | None]:
    """Return the skill against "nothing improves", or None and why it is undefined."""
    gain = abs(last - actual)
    if gain <= 2 * (floor or 0.0) * actual:
        return None, (
            f"the loss changed by {gain:.3g} from the last fitted budget to the held-out one, "
            "which is not above twice the noise floor"
        )
    return 1 - abs(predicted - actual) / gain, None
