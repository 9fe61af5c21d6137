"""The frontier of a law that was chosen: what other forms say is part of its intervals."""

from dataclasses import replace

import numpy as np

from sweeps.fit.forecast.choice import Choice
from sweeps.fit.forecast.told import told
from sweeps.fit.forms.base import Array, FlopsPerToken, Interval
from sweeps.fit.minima.frontier import Draws, FrontierPoint, compute_optimal
from sweeps.fit.trust.bootstrap import percentile_interval


def foreseen(
    point: FrontierPoint, choice: Choice | None, draws: Draws, level: float, cost: FlopsPerToken
) -> FrontierPoint:
    """Return a point of the frontier as the choice tells it; as it is where a form was named.

    `draws` are the resamples' N*, D* and loss by the chosen form. The loss is as `told`. All
    intervals hold the spread of forms: each resample's value is moved by what a form, drawn by its
    weight, differs from the chosen one.
    """
    if choice is None:
        return point
    shifts = _shifts(choice, point.flops, cost)
    intervals = {
        name: _mixed(drawn, shifts[name], choice, level)
        for name, drawn in zip(("params", "tokens", "loss"), draws, strict=True)
    }
    ahead = told(choice, point.flops, point.loss, intervals["loss"], level)
    return replace(
        point,
        loss=ahead.loss,
        intervals=intervals | {"loss": ahead.interval},
        loss_of_form=ahead.of_form,
        members=ahead.members,
    )


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
