"""Margins of crossed pairs, and their intervals over pairs.

With L the squared velocity error of a clip under a noise and times that its whole pair shares,

    m = [L(AB) + L(BA) - L(AA) - L(BB)] / [L(AA) + L(BB)]

Errors are summed over pairs before they are divided, so that m is a ratio of sums. Its standard
error is that of a linearised ratio (Cochran 1977, section 2.11): the spread over pairs of
``(broken - m kept) / mean kept``. Two margins of the same pairs are subtracted pair by pair.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Array = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class PairErrors:
    """Squared errors of pairs, (pairs, strata of t): ``kept`` of AA + BB, ``broken`` of AB + BA."""

    kept: Array
    broken: Array

    def margin(self, stratum: int | None = None) -> "Margin":
        """Return the margin of one stratum of t, or of all of them together."""
        chosen = slice(None) if stratum is None else slice(stratum, stratum + 1)
        kept, broken = self.kept[:, chosen].sum(1), self.broken[:, chosen].sum(1)
        gaps = broken - kept
        value = float(gaps.sum() / kept.sum())
        pulls = (gaps - value * kept) / kept.mean()
        effect = float(gaps.mean() / gaps.std(ddof=1)) if gaps.std() > 0 else 0.0
        return Margin(value, pulls, float((gaps > 0).mean()), effect)

    @property
    def strata(self) -> int:
        """Number of strata of t."""
        return self.kept.shape[1]


@dataclass(frozen=True)
class Margin:
    """A margin, or the difference of two.

    value: a share of L(AA) + L(BB). pulls: (pairs,) how far each pair pulls it, which sum to zero.
    accuracy: share of pairs whose broken clips are the less likely; nan for a difference.
    effect: mean over standard deviation of the pairs' gaps, likewise.
    """

    value: float
    pulls: Array
    accuracy: float = float("nan")
    effect: float = float("nan")

    @property
    def error(self) -> float:
        """Standard error over pairs."""
        return float(self.pulls.std(ddof=1) / np.sqrt(len(self.pulls)))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval over pairs, by Student's t."""
        reach = float(student.ppf((1 + LEVEL) / 2, len(self.pulls) - 1)) * self.error
        return self.value - reach, self.value + reach

    @property
    def z(self) -> float:
        """Standard errors from zero; 0 where there is no spread and no margin."""
        return self.value / self.error if self.error > 0 else 0.0

    def minus(self, other: "Margin") -> "Margin":
        """Subtract a margin of the same pairs."""
        return Margin(self.value - other.value, self.pulls - other.pulls)

    def to_json(self) -> dict[str, Any]:
        """Return value, standard error, interval and z; of a run's own also accuracy and effect."""
        low, high = self.interval
        found = {"value": self.value, "error": self.error, "low": low, "high": high, "z": self.z}
        if np.isnan(self.accuracy):
            return found
        return found | {"accuracy": self.accuracy, "effect": self.effect}


def described(errors: PairErrors, other: PairErrors | None = None) -> dict[str, Any]:
    """Return a margin and its strata as JSON, less those of another where one is given."""

    def of(stratum: int | None) -> dict[str, Any]:
        margin = errors.margin(stratum)
        return (margin if other is None else margin.minus(other.margin(stratum))).to_json()

    return of(None) | {"by_time": [of(stratum) for stratum in range(errors.strata)]}
