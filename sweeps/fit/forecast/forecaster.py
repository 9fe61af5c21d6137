"""What the least loss of a budget will be, with an interval that past forecasts have earned."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from types import MappingProxyType

import numpy as np

from sweeps.fit.forecast.ladder import Ladder
from sweeps.fit.forecast.nearby import NAMES, median_loss, nearby_losses
from sweeps.fit.forms.base import Array, Interval

MIN_BUDGETS = 3
NO_MORE: Mapping[str, float] = MappingProxyType({})
FURTHEST = 20.0  # times the largest fitted budget: forecasts judged go no further
# The four figures below were set by coverage over the real isoFLOP tables and four synthetic laws,
# and hold 85 to 95 % there at level 0.9 (docs/fit.md has the table).
HALF = 0.5  # octaves after which a past forecast counts half: what small budgets did fades
PAST = 0.3  # of the mean square of past errors: a longer ladder foresees better than a short one
BELIEF = 0.0035  # error a factor e of compute ahead where no past forecast speaks ...
BELIEF_WEIGHT = 0.5  # ... as so many past forecasts would


@dataclass(frozen=True)
class Forecast:
    """Hold the least loss foreseen at `flops`.

    members: what each of `nearby.NAMES` says, and others that were asked; extrapolation_factor:
    `flops` over the last budget's.
    """

    flops: float
    loss: float
    interval: Interval
    members: dict[str, float]
    extrapolation_factor: float


def earned(past: Array, last: float, reach: float, spread: float = 0.0) -> float:
    """Return the standard deviation of log loss that past forecasts give one of this reach.

    Args:
        past: (last fitted compute, target, log error) of each past forecast, `(F, 3)`.
        last: compute of the largest fitted budget; reach: e-folds beyond it.
        spread: of the methods that were asked, which fades as past forecasts come.

    An error counts by its size for each e-fold ahead, and half for every half octave that its
    origin or target lies below `last`.
    """
    if reach <= 0:
        return 0.0
    origin, target, error = past.T
    weight = 0.5 ** (np.log2(last / target) / HALF) * 0.5 ** (np.log2(last / origin) / HALF)
    squares = float(np.sum(weight * (error / np.log(target / origin)) ** 2))
    belief = BELIEF**2 + (spread / reach) ** 2 / (1 + len(past))
    mean = (PAST * squares + BELIEF_WEIGHT * belief) / (float(weight.sum()) + BELIEF_WEIGHT)
    return float(np.sqrt(mean)) * reach


@dataclass(frozen=True)
class Forecaster:
    """Forecast from a ladder of at least `MIN_BUDGETS` budgets.

    The loss is the median of `nearby`'s members. Its interval is Gaussian in log loss around them;
    the standard deviation is the larger of two: that of the median over redraws of the budgets'
    losses within their errors, and what past forecasts have `earned`: those from the smallest
    3, 4, ... budgets for all larger ones.
    """

    ladder: Ladder
    level: float
    resamples: int
    seed: int

    @cached_property
    def past(self) -> Array:
        """Return (last fitted compute, target, log of best loss over forecast), `(F, 3)`."""
        found = []
        compute = self.ladder.compute
        for count in range(MIN_BUDGETS, len(self.ladder)):
            known = self.ladder.below(count).trusted()
            for j in range(count, len(self.ladder)):
                if compute[j] > FURTHEST * compute[count - 1]:
                    break
                foreseen = median_loss(known.compute, known.loss[None], compute[j])[0]
                error = np.log(self.ladder.best[j] / foreseen)
                found.append((compute[count - 1], compute[j], error))
        return np.array(found).reshape(-1, 3)

    def at(
        self, flops: float, also: Mapping[str, float] = NO_MORE, past: Array | None = None
    ) -> Forecast:
        """Return the forecast of the least loss at `flops`.

        Args:
            also: what others say of it, members of the median too.
            past: their forecasts with the nearest budgets', as `earned` takes them.
        """
        known = self.ladder.trusted()
        near = nearby_losses(known.compute, known.loss[None], flops)[0]
        names = (*(NAMES if len(near) > 1 else NAMES[-1:]), *also)
        members = np.array([*near, *also.values()])
        loss = float(np.median(members))
        deviates = np.random.default_rng(self.seed).standard_normal((self.resamples, len(known)))
        drawn = nearby_losses(known.compute, known.loss * np.exp(known.error * deviates), flops)
        others = np.broadcast_to(list(also.values()), (len(drawn), len(also)))
        medians = np.median(np.concatenate([drawn, others], axis=1), axis=1)
        noise = float(np.std(np.log(medians / loss)))
        reach = float(abs(np.log(flops / self.ladder.compute[-1])))
        if flops < self.ladder.compute[-1]:  # between budgets nothing is foreseen
            reach = 0.0
        past = self.past if past is None else past
        beyond = earned(past, self.ladder.compute[-1], reach, float(np.std(np.log(members))))
        ends = max(noise, beyond) * NormalDist().inv_cdf((1 + self.level) / 2)
        return Forecast(
            flops=flops,
            loss=loss,
            interval=(loss * float(np.exp(-ends)), loss * float(np.exp(ends))),
            members=dict(zip(names, members.tolist(), strict=True)),
            extrapolation_factor=flops / float(self.ladder.compute[-1]),
        )
