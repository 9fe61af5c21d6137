"""Paired comparison of two arms: the same seeds, and where there are any the same clips.

A measure is a table of values by seed and clip. What is asked is how the arms differ on other seeds
and other clips, so both are random effects of a crossed design with one value a cell, and the
variance of the mean difference is estimated from its mean squares (Searle, Casella and McCulloch
1992, section 4.7; Satterthwaite 1946 for the degrees of freedom):

    Var(mean) = (MS_seed + MS_clip - MS_rest) / (seeds * clips)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.kinds.arms.table import Value

WHOLE = ""  # the clip of a value that was measured on a whole run


@dataclass(frozen=True)
class Difference:
    """Arm minus reference.

    mean, low, high: of the difference; the interval is nan where fewer than two seeds are paired.
    seeds, clips: how many are paired; degrees: of freedom of the interval.
    """

    mean: float
    low: float
    high: float
    seeds: int
    clips: int
    degrees: float

    @property
    def resolved(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return bool(self.low > 0 or self.high < 0)


def crossed_interval(differences: np.ndarray, level: float) -> tuple[float, float, float, float]:
    """Return (mean, low, high, degrees of freedom) of paired differences (seeds, clips).

    One clip makes it Student's interval over seeds. With one seed nothing is known about other
    seeds, and the interval is nan. The variance is never taken to be less than what the seeds alone
    or the clips alone show, so the interval errs on the wide side where one of them hardly matters.
    """
    seeds, clips = differences.shape
    mean = float(differences.mean())
    if seeds < 2:
        return mean, math.nan, math.nan, math.nan
    by_seed, by_clip = differences.mean(1), differences.mean(0)
    ms_seed = clips * float(by_seed.var(ddof=1))
    if clips < 2:
        return _interval(mean, ms_seed / seeds, seeds - 1, level)
    ms_clip = seeds * float(by_clip.var(ddof=1))
    rest = differences - by_seed[:, None] - by_clip[None, :] + mean
    rest_degrees = (seeds - 1) * (clips - 1)
    ms_rest = float((rest**2).sum()) / rest_degrees
    candidates = [
        (ms_seed, seeds - 1.0),
        (ms_clip, clips - 1.0),
        (ms_seed + ms_clip - ms_rest, _satterthwaite(
            ms_seed + ms_clip - ms_rest,
            [(ms_seed, seeds - 1), (ms_clip, clips - 1), (ms_rest, rest_degrees)],
        )),
    ]  # fmt: skip
    square, degrees = max(candidates)
    return _interval(mean, square / (seeds * clips), degrees, level)


def _satterthwaite(total: float, parts: Sequence[tuple[float, float]]) -> float:
    """Return the degrees of freedom of a sum of mean squares, each with its own."""
    spread = sum(square**2 / degrees for square, degrees in parts)
    return total**2 / spread if spread > 0 else math.inf


def _interval(
    mean: float, variance: float, degrees: float, level: float
) -> tuple[float, float, float, float]:
    from scipy.stats import t as student  # half a second that planning a study does not need

    # Equal differences leave no spread: then the interval is a point, whatever its degrees.
    reach = student.ppf((1 + level) / 2, max(degrees, 1.0)) * math.sqrt(variance)
    return mean, mean - float(reach), mean + float(reach), degrees


def paired_table(values: Sequence[Value]) -> dict[tuple[int, str], float]:
    """Return one arm's values of one measure by (seed, clip)."""
    return {(value.seed, value.clip): value.value for value in values}


def compare(arm: Sequence[Value], reference: Sequence[Value], level: float) -> Difference | None:
    """Compare two arms on one measure, over the seeds and clips that both have; None if none.

    Values that are no numbers leave their seed out: its run diverged.
    """
    one, two = paired_table(arm), paired_table(reference)
    shared = [key for key in one if key in two]
    broken = {seed for seed, clip in shared if not math.isfinite(one[seed, clip] - two[seed, clip])}
    seeds = sorted({seed for seed, _ in shared} - broken)
    clips = sorted({clip for _, clip in shared})
    clips = [clip for clip in clips if all((s, clip) in one and (s, clip) in two for s in seeds)]
    if not seeds or not clips:
        return None
    table = np.array([[one[s, c] - two[s, c] for c in clips] for s in seeds])
    mean, low, high, degrees = crossed_interval(table, level)
    return Difference(mean, low, high, len(seeds), len(clips), degrees)


def spread_over_seeds(values: Sequence[Value]) -> tuple[float, float, int]:
    """Return mean, standard deviation over seeds (nan with one) and number of seeds of an arm."""
    by_seed: dict[int, list[float]] = {}
    for value in values:
        by_seed.setdefault(value.seed, []).append(value.value)
    means = [float(np.mean(found)) for found in by_seed.values()]
    if not means:
        return math.nan, math.nan, 0
    deviation = float(np.std(means, ddof=1)) if len(means) > 1 else math.nan
    return float(np.mean(means)), deviation, len(means)


def noise_floor(spreads: Sequence[tuple[float, int]]) -> float:
    """Pool the (deviation, seeds) of all arms into one standard deviation over seeds."""
    known = [(deviation, n - 1) for deviation, n in spreads if n > 1 and math.isfinite(deviation)]
    total = sum(degrees for _, degrees in known)
    if not total:
        return math.nan
    return math.sqrt(sum(deviation**2 * degrees for deviation, degrees in known) / total)
