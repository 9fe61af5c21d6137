"""The least loss as a choice tells it: by the nearest budgets, with the form, or by the form."""

from dataclasses import dataclass

import numpy as np

from sweeps.fit.forecast.choice import BOTH, Choice
from sweeps.fit.forecast.forecaster import NO_MORE
from sweeps.fit.forecast.tenths import ends_by_tenths, noise_of
from sweeps.fit.forms.base import Interval


@dataclass(frozen=True)
class Told:
    """Hold a least loss and its interval.

    of_form: what the form alone says; members: those of the median. None where the form alone
    tells.
    """

    loss: float
    interval: Interval
    of_form: float | None = None
    members: dict[str, float] | None = None


def told(choice: Choice, flops: float, loss: float, interval: Interval, level: float) -> Told:
    """Return the least loss at `flops`, where the form says `loss` within `interval`.

    Where the form alone tells it the interval is no narrower than forecasts of tenths have earned.
    """
    if choice.forecaster is not None:
        also = {choice.form: loss} if choice.by == BOTH else NO_MORE
        ahead = choice.forecaster.at(flops, also, choice.past)
        return Told(ahead.loss, ahead.interval, loss, ahead.members)
    noise = noise_of(choice.candidates[choice.form].fit)
    ends = ends_by_tenths(choice.past, noise, float(np.log(flops / choice.last)), level)
    low, high = loss * np.exp([-ends, ends])
    return Told(loss, (float(np.fmin(interval[0], low)), float(np.fmax(interval[1], high))))
