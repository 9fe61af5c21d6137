"""How fast a run is now and how fast it usually is, from the last lines of its metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from launch.run_folder.reader import Facts

_MOST_COUNT = 1e40  # of FLOPs and tokens
_LEAST_SECONDS = 1e-6
# So much slower than usual is told; windows of a few steps vary by less.
_SLOW = 1.5


@dataclass(frozen=True)
class Pace:
    """Speed over the last window, which is from one line of training to the next.

    step_seconds: of one step; usual: the median of the windows that were read; flops_per_second,
    tokens_per_second: None where a run does not count them. highest: steps a second, 0 where that
    is not known.
    """

    step_seconds: float | None = None
    usual: float | None = None
    flops_per_second: float | None = None
    tokens_per_second: float | None = None
    highest: float = 0.0

    @property
    def slower(self) -> float | None:
        """Return how many times slower than usual it is, where that is worth a word."""
        if not self.step_seconds or not self.usual:
            return None
        times = self.step_seconds / self.usual
        return times if times >= _SLOW else None


def pace_of(lines: Sequence[Facts]) -> Pace:
    """Return the pace that lines show, by their counts: a first line's window is since the start.

    Counts and not what a line says of speed: lines of before 2026-12 say that since the start.
    """
    clocked = [(r, s) for r in lines if (s := r.number("seconds") or 0.0) > _LEAST_SECONDS]
    if not clocked:
        return Pace()
    windows = [
        (b[0].count("step") - a[0].count("step"), b[1] - a[1], a[0], b[0])
        for a, b in pairwise(clocked)
        if b[0].count("step") > a[0].count("step") and b[1] - a[1] > _LEAST_SECONDS
    ]
    first, seconds = clocked[-1]
    if not windows:
        windows = [(max(first.count("step"), 1), seconds, Facts({}, "", lambda _: None), first)]
    steps, passed, before, last = windows[-1]
    times = [window[1] / window[0] for window in windows]
    whole = clocked[-1][0].count("step") / clocked[-1][1]
    return Pace(
        step_seconds=passed / steps,
        usual=median(times),
        flops_per_second=_rate(before, last, "flops", passed),
        tokens_per_second=_rate(before, last, "tokens", passed),
        highest=max(whole, 1.0 / min(times)),
    )


def _rate(before: Facts, last: Facts, key: str, seconds: float) -> float | None:
    """Return how much of a count a second came; of small networks nobody counts FLOPs."""
    count = last.number(key, most=_MOST_COUNT)
    if not count:
        return None
    return max(count - (before.number(key, most=_MOST_COUNT) or 0.0), 0.0) / seconds
