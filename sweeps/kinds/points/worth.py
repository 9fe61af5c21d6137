"""What a setting is worth in compute: how many times the first setting's FLOPs reach its loss.

From the shortest to the longest runs of the first setting its loss falls as C^-b, with
b = log(L_short / L_long) / log(C_long / C_short). A setting i whose loss lies
g = log(L_first / L_i) below the first one's at the same FLOPs is worth

    m = exp(g / b),

1 of the first setting itself. At the longest runs that extends the first one's fall by m beyond
what it was trained for. Interval: with s the relative deviation over seeds, pooled over all
settings, and n the seeds of a mean, log m has to first order the variance s^2 sum c^2 / n over the
means that it is made of, c the derivative to the logarithm of each. The intervals of all settings
at a length hold at once (Bonferroni).
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.kinds.points.noise import Spread

Means = Mapping[tuple[str, float], tuple[float, int]]  # (setting, FLOPs) -> mean loss, seeds


@dataclass(frozen=True)
class Worth:
    """A factor of compute with its interval; low and high are nan where no two seeds tell noise."""

    factor: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether it differs from 1 by more than noise."""
        return self.low > 1 or self.high < 1


def worths(
    means: Means, first: str, spread: Spread | None, level: float
) -> dict[tuple[str, float], Worth]:
    """Return what settings are worth beside the first, at every length that both have.

    Empty where the first has one length, or its loss does not fall by more than noise over them.
    """
    lengths = sorted(length for name, length in means if name == first)
    if len(lengths) < 2:
        return {}
    ends = [(first, lengths[0]), (first, lengths[-1])]
    span = math.log(lengths[-1] / lengths[0])
    fall = {ends[0]: 1 / span, ends[1]: -1 / span}  # b by logarithms of losses
    b = _sum(means, fall)
    others = sum(name != first for name, length in means if length == lengths[-1])
    reach = _quantile(spread, level, max(1, others))
    if b <= 0 or b <= reach * _deviation(means, fall):  # never, where no noise is known (nan)
        return {}
    found = {}
    for (name, length), _ in means.items():
        if name == first or length not in lengths:
            continue
        gap = {(first, length): 1.0, (name, length): -1.0}
        g, parts = _sum(means, gap), defaultdict[tuple[str, float], float](float)
        for key, c in gap.items():
            parts[key] += c / b
        for key, c in fall.items():
            parts[key] -= g / b**2 * c
        half = reach * _deviation(means, parts)
        found[name, length] = Worth(*(math.exp(g / b + x) for x in (0.0, -half, half)))
    return found


def worth_sentences(
    found: Mapping[tuple[str, float], Worth], first: str, level: float
) -> Sequence[str]:
    """Say at the largest FLOPs what each setting is worth, the most first."""
    if not found:
        return []
    longest = max(length for _, length in found)
    ranked = sorted(
        ((name, worth) for (name, length), worth in found.items() if length == longest),
        key=lambda item: -item[1].factor,
    )
    parts = [
        f"{name} {worth.factor:.3g}x ({worth.low:.3g} to {worth.high:.3g}"
        f"{'' if worth.told else ', which noise may be'})"
        for name, worth in ranked
    ]
    return [
        f"At {longest:g} FLOPs the loss is that of {first} at so many times the compute "
        f"({100 * level:.0f} % intervals, all at once): {', '.join(parts)}."
    ]


def _sum(means: Means, parts: Mapping[tuple[str, float], float]) -> float:
    return math.fsum(c * math.log(means[key][0]) for key, c in parts.items())


def _deviation(means: Means, parts: Mapping[tuple[str, float], float]) -> float:
    """Return the deviation of a sum of logarithms of means, in units of one run's."""
    return math.sqrt(math.fsum(c * c / means[key][1] for key, c in parts.items()))


def _quantile(spread: Spread | None, level: float, count: int) -> float:
    if spread is None:
        return math.nan
    from scipy.stats import t as student  # as in noise.py

    return float(student.ppf(1 - (1 - level) / 2 / count, spread.degrees)) * spread.relative
