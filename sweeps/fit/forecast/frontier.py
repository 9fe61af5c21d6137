"""The frontier of a law that was chosen: what other forms say is part of its intervals."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np

from sweeps.fit.forecast.choice import Choice
from sweeps.fit.forecast.forecaster import FORM_BELIEF, earned
from sweeps.fit.forecast.rolling import NEARBY
from sweeps.fit.forms.base import Array, FlopsPerToken, Interval
from sweeps.fit.minima.frontier import FrontierPoint, compute_optimal
from sweeps.fit.trust.bootstrap import Bootstrap, percentile_interval


def foreseen(
    point: FrontierPoint, choice: Choice | None, boot: Bootstrap, cost: FlopsPerToken
) -> FrontierPoint:
    """Return a point of the frontier as the choice tells it; as it is where a form was named.

    The loss and its interval are the forecaster's where that tells them. All other intervals hold
    the spread of forms: each resample's value is moved by what a form, drawn by its weight, differs
    from the chosen one.
    """
    if choice is None:
        return point
    shifts = _shifts(choice, point.flops, cost)
    draws = dict(zip(("params", "tokens", "loss"), _draws(choice, boot, point, cost), strict=True))
    intervals = {
        name: _mixed(drawn, shifts[name], choice, boot.level) for name, drawn in draws.items()
    }
    if choice.by != NEARBY or choice.forecaster is None:
        return replace(
            point, intervals=intervals | {"loss": _earned(point, intervals, choice, boot)}
        )
    ahead = choice.forecaster.at(point.flops)
    return replace(
        point,
        loss=ahead.loss,
        intervals=intervals | {"loss": ahead.interval},
        loss_of_form=point.loss,
        members=ahead.members,
    )


def _earned(
    point: FrontierPoint, intervals: dict[str, Interval], choice: Choice, boot: Bootstrap
) -> Interval:
    """Return the loss's interval, no narrower than the form's past forecasts let it be."""
    record = next((r for r in choice.records if r.method == choice.form), None)
    low, high = intervals["loss"]
    if record is None or choice.forecaster is None:
        return low, high
    last = float(choice.forecaster.ladder.compute[-1])
    reach = float(np.log(point.flops / last))
    spread = earned(record.past, last, reach, prior=FORM_BELIEF)
    factor = np.exp(spread * NormalDist().inv_cdf((1 + boot.level) / 2))
    return float(min(low, point.loss / factor)), float(max(high, point.loss * factor))


def _draws(
    choice: Choice, boot: Bootstrap, point: FrontierPoint, cost: FlopsPerToken
) -> tuple[Array, Array, Array]:
    """Return N*, D* and the loss of each resample of the chosen form."""
    fit = choice.candidates[choice.form].fit
    with np.errstate(all="ignore"):
        params, tokens, loss, interior = compute_optimal(fit, boot.theta, point.flops, cost)
    return np.where(interior, params, np.nan), np.where(interior, tokens, np.nan), loss


def _shifts(choice: Choice, flops: float, cost: FlopsPerToken) -> dict[str, Array]:
    """Return by quantity the log of what each form says over what the chosen one says, `(F,)`."""
    names = ("params", "tokens", "loss")
    with np.errstate(all="ignore"):
        found = {
            form: np.log([v[0] for v in compute_optimal(c.fit, c.fit.theta, flops, cost)[:3]])
            for form, c in choice.candidates.items()
        }
    away = np.array([found[form] - found[choice.form] for form in choice.candidates])
    return dict(zip(names, away.T, strict=True))


def _mixed(draws: Array, shifts: Array, choice: Choice, level: float) -> Interval:
    """Return the interval of `draws` moved by shifts that are drawn by the forms' weights."""
    weights = np.array(list(choice.weights().values()))
    weights = np.where(np.isfinite(shifts), weights, 0.0)
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(shifts), size=len(draws), p=weights / weights.sum())
    return percentile_interval(draws * np.exp(shifts[chosen]), level)
