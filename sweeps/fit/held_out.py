"""The held-out test: the largest budgets are left out of the fit and predicted."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sweeps.fit.forecast.choice import Choice, choose
from sweeps.fit.forecast.origins import STARTS
from sweeps.fit.forecast.tenths import compute_of_best
from sweeps.fit.forecast.told import told
from sweeps.fit.forms.base import Array, FlopsPerToken, Form, Interval, Rows
from sweeps.fit.forms.catalogue import LOSS_FORMS, form_of
from sweeps.fit.minima.frontier import compute_optimal
from sweeps.fit.optimum.solve import Fit, fit_runs
from sweeps.fit.options import DEFAULTS, FitOptions
from sweeps.fit.rows.runs import (
    Run,
    best_loss,
    clusters_of,
    columns_of,
    group_budgets,
    noise_floor,
    points_in,
)
from sweeps.fit.trust.bootstrap import (
    Bootstrap,
    bootstrap_fit,
    percentile_interval,
    prediction_draws,
)


@dataclass(frozen=True)
class Split:
    """Hold the held-out compute and the runs on either side of it.

    actual: the best loss of the held-out runs; last: that of the largest fitted budget; floor: the
    relative noise of a loss, None where unknown.
    """

    compute: float
    train: list[Run]
    test: list[Run]
    actual: float
    last: float
    floor: float | None


@dataclass(frozen=True)
class HeldOut:
    """Hold the prediction of a budget by a law that has not seen it.

    points: each size's mean over seeds beside its prediction, in rising order of parameters.
    nearer: the same of the other budgets that were left out, by the same fit, in rising order.
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
    points: list[dict[str, Any]] = field(default_factory=list)
    nearer: list["HeldOut"] = field(default_factory=list)
    other_forms: dict[str, dict[str, float | None]] = field(default_factory=dict)


def hold_out(
    runs: Sequence[Run],
    budgets: Sequence[tuple[float, Rows]],
    form: Form | None,
    cost: FlopsPerToken,
    options: FitOptions = DEFAULTS,
) -> tuple[HeldOut | None, str | None]:
    """Fit without the largest budgets and predict each of their runs and their best losses.

    `options.held_out` says how many; the test of the largest holds those of the nearer ones.

    Without a `form` it is chosen anew from the other budgets; `predicted` and its interval are then
    as the choice tells them (`forecast/told.py`), `predicted_frontier` is the form's.

    Where the runs form no budgets the tenth of them with the most compute is left out. `predicted`
    is the least of the predictions at the held-out (N, D), `actual` the least loss there (of a
    point: the mean over its seeds), `predicted_frontier` the law's L*(C). The prediction interval
    of a run is the central `level` of draws  L_hat_k exp(u + v):  L_hat_k one bootstrap refit, u
    one residual of the fit drawn with replacement and widened by sqrt(R / (R - P)) for the degrees
    of freedom spent, v Gaussian with the noise floor. For the best loss it is that of the least of
    the runs' draws. (u already holds the noise of the fitted runs: adding v errs on the wide side.)
    skill = 1 - |predicted - actual| / |best fitted loss of the last fitted budget - actual|.
    Other forms predict too, unless coefficients are fixed: those of other forms are not.

    Returns the test, or None and the reason.
    """
    left = len(budgets) - options.held_out
    if budgets and left < 1:
        few = "one compute budget" if len(budgets) == 1 else f"{len(budgets)} compute budgets"
        return None, f"the runs form {few}, and at least {options.held_out + 1} are needed"
    splits = _splits(runs, budgets, options.held_out)
    train, choice = splits[-1].train, None
    try:
        if form is None:
            choice = choose(train, group_budgets(train), cost, options)
            form = form_of(choice.form)
        fit = fit_runs(form, train, options)
    except ValueError as error:
        return None, f"without the largest {_budgets(options)} {error}"
    resampling = (options.resamples, options.level, options.seed)
    boot = bootstrap_fit(fit, clusters_of(train), *resampling)
    if not len(boot.theta):
        return (
            None,
            f"no bootstrap resample without the largest {_budgets(options)} could be fitted",
        )
    best = [(compute, best_loss([runs[i] for i in rows])) for compute, rows in budgets[:left]]
    found = [_judge(split, fit, boot, cost, options, best, choice) for split in splits]
    return replace(found[-1], nearer=found[:-1]), None


def _budgets(options: FitOptions) -> str:
    return "budget" if options.held_out == 1 else f"{options.held_out} budgets"


def _judge(
    split: Split,
    fit: Fit,
    boot: Bootstrap,
    cost: FlopsPerToken,
    options: FitOptions,
    best: Sequence[tuple[float, float]],
    choice: Choice | None,
) -> HeldOut:
    """Return what a fit foretold of a budget that it has not seen, beside what was measured."""
    draws = _prediction_draws(fit, boot, split.test, split.floor or 0.0, options.seed)
    line = line_through_budgets(best, split.compute)
    forms = {} if options.fixed else _other_forms(fit.form, split, options, choice)
    return HeldOut(
        budget=split.compute,
        runs=_runs(fit, split.test, draws, options.level),
        noise_floor=split.floor,
        extrapolation_factor=split.compute / max(r.flops for r in split.train),
        predicted_frontier=float(compute_optimal(fit, fit.theta, split.compute, cost)[2][0]),
        line_predicted=line,
        line_relative_error=line / split.actual - 1 if line else None,
        line_skill=_skill(line, split)[0] if line else None,
        points=_points(fit, boot, split, options),
        other_forms=forms,
        **_whole(fit, split, draws, options.level, choice),
    )


def _points(fit: Fit, boot: Bootstrap, split: Split, options: FitOptions) -> list[dict[str, Any]]:
    """Return the prediction of each size beside the mean over its seeds.

    The interval is that of a run but for the noise, of which a mean over S seeds has 1 / sqrt(S).
    Its residual is that of one run all the same: a law that is off is off for all seeds alike.
    """
    groups = sorted(points_in(split.test), key=lambda rows: split.test[rows[0]].params)
    first = [split.test[rows[0]] for rows in groups]
    noise = (split.floor or 0.0) / np.sqrt([len(rows) for rows in groups])
    draws = _prediction_draws(fit, boot, first, noise, options.seed)
    predicted = fit.predict(columns_of(first)[0])
    actual = [float(np.mean([split.test[i].loss for i in rows])) for rows in groups]
    return [
        {"params": run.params, "tokens": run.tokens, "seeds": len(rows)}
        | _judged(float(p), a, percentile_interval(d, options.level))
        for run, rows, p, a, d in zip(first, groups, predicted, actual, draws.T, strict=True)
    ]


def _runs(fit: Fit, test: Sequence[Run], draws: Array, level: float) -> list[dict[str, Any]]:
    """Return the prediction of each run beside its loss."""
    predicted = fit.predict(columns_of(test)[0])
    return [
        _judged(float(p), r.loss, percentile_interval(d, level))
        | {"name": r.name, "params": r.params, "tokens": r.tokens, "flops": r.flops}
        for r, p, d in zip(test, predicted, draws.T, strict=True)
    ]


def _whole(
    fit: Fit, split: Split, draws: Array, level: float, choice: Choice | None
) -> dict[str, Any]:
    """Return the prediction of the best loss beside the best loss, and its skill."""
    predicted = float(fit.predict(columns_of(split.test)[0]).min())
    interval = percentile_interval(draws.min(axis=1), level)
    if choice is not None:
        compute = split.compute if choice.forecaster else compute_of_best(split.test)
        ahead = told(choice, compute, predicted, interval, level)
        predicted, interval = ahead.loss, ahead.interval
    whole = _judged(predicted, split.actual, interval)
    skill, why = _skill(predicted, split)
    return whole | {"skill": skill, "skill_reason": why}


def _other_forms(
    form: Form, split: Split, options: FitOptions, choice: Choice | None
) -> dict[str, dict[str, float | None]]:
    """Return prediction, error and skill of each other form that can be fitted."""
    found: dict[str, dict[str, float | None]] = {}
    known = {name: c.fit for name, c in choice.candidates.items()} if choice else {}
    held, _ = columns_of(split.test)
    for name in LOSS_FORMS:
        if name == form.name:
            continue
        try:
            # A form that does not suit the rows may overflow on its way; it then says nothing.
            with np.errstate(all="ignore"):
                fit = known.get(name) or fit_runs(
                    form_of(name), split.train, options, max_starts=STARTS
                )
                predicted = float(fit.predict(held).min())
        except ValueError:  # too few runs for its coefficients
            continue
        if not np.isfinite(predicted):
            continue
        error, skill = predicted / split.actual - 1, _skill(predicted, split)[0]
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


def _splits(runs: Sequence[Run], budgets: Sequence[tuple[float, Rows]], count: int) -> list[Split]:
    """Part the runs into those that are fitted and the largest, by budget, which are predicted."""
    if budgets:
        held = budgets[len(budgets) - count :]
        last = best_loss([runs[i] for i in budgets[-count - 1][1]])
    else:
        order = np.argsort([r.flops for r in runs], kind="stable")
        rows = order[-max(1, len(runs) // 10) :]
        held = [(runs[order[-1]].flops, rows)]
        last = best_loss([runs[i] for i in order[: len(runs) - len(rows)]])
    unseen = {int(i) for _, rows in held for i in rows}
    least = min(runs[i].flops for i in unseen)
    train = [run for i, run in enumerate(runs) if i not in unseen and run.flops < least]
    floor, splits = noise_floor(runs), []
    for compute, rows in held:
        test = [runs[int(i)] for i in rows]
        splits.append(Split(compute, train, test, best_loss(test), last, floor))
    return splits


def _prediction_draws(
    fit: Fit, boot: Bootstrap, test: Sequence[Run], floor: float | Array, seed: int
) -> Array:
    """Return draws of the test runs' losses, `(K, R)`, as `hold_out` describes.

    floor: the relative noise of each, or of all.
    """
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


def _skill(predicted: float, split: Split) -> tuple[float | None, str | None]:
    """Return the skill against "nothing improves", or None and why it is undefined."""
    gain = abs(split.last - split.actual)
    if gain <= 2 * (split.floor or 0.0) * split.actual:
        return None, (
            f"the loss changed by {gain:.3g} from the last fitted budget to the held-out one, "
            "which is not above twice the noise floor"
        )
    return 1 - abs(predicted - split.actual) / gain, None
