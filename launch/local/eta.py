"""When a list of jobs will have ended, learned from those that run and ran.

A step of a tiny network takes a time of its own whatever the width, so that of two runs with equal
FLOPs the smaller takes several times as long; and every run pays for its start, its validations
and its end:

    seconds = start + job + tokens * per_token + FLOPs * per_flop + end

Start and end are means. The others are fitted to what was seen between a job's first and last step;
none is negative. What is left is dealt to the slots as the launcher will deal it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from statistics import fmean

# Weights of two guesses, in shares of one usual job's seconds: that as much of them goes by tokens
# as by FLOPs, and that nothing is the same for every job.
_EVEN, _NOTHING = 0.1, 0.02


@dataclass(frozen=True)
class Amount:
    """Work: jobs, their tokens (0 where nobody knows them) and FLOPs."""

    jobs: float
    tokens: float
    flops: float

    def share(self, part: float) -> "Amount":
        """Return a part of it; nothing for a negative one."""
        part = max(part, 0.0)
        return Amount(self.jobs * part, self.tokens * part, self.flops * part)


@dataclass(frozen=True)
class Observation:
    """What was seen of one job: seconds of its steps and which work they were; seconds before the
    first and after the last, None where that was not seen."""

    seconds: float
    amount: Amount
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Speed:
    """What a job takes: seconds for its start and its end, and of its steps for any job, for a
    token, for a FLOP."""

    start: float
    end: float
    job: float
    token: float
    flop: float

    def steps(self, amount: Amount) -> float:
        """Return the seconds of some steps."""
        return amount.jobs * self.job + amount.tokens * self.token + amount.flops * self.flop


@dataclass
class Track:
    """One job as its launcher sees it. Times are seconds of one clock.

    work: all of the job. slots: that it takes. done: the part of it that its metrics tell.
    begun: when this attempt started, None while it waits; before: what was done then.
    first, last: when this attempt was first and last seen to get on, and how much was done then.
    over: it is not waited for any more.
    """

    work: Amount
    slots: int
    done: float = 0.0
    begun: float | None = None
    before: float = 0.0
    first: tuple[float, float] | None = None
    last: tuple[float, float] | None = None
    over: bool = False

    def start(self, now: float) -> None:
        """Note that an attempt starts."""
        self.begun, self.before, self.first, self.last = now, self.done, None, None

    def advance(self, now: float, done: float) -> None:
        """Note how much is done; an attempt that is behind what was done before does not get on."""
        if done > self.done:
            self.done, self.last = done, (now, done)
            self.first = self.first or self.last

    def seen(self) -> Observation | None:
        """Return what was seen of the attempt that runs; None before its first step."""
        if self.begun is None or self.first is None or self.last is None:
            return None
        (since, had), (until, has) = self.first, self.last
        return Observation(until - since, self.work.share(has - had), start=since - self.begun)

    def end(self, now: float) -> Observation | None:
        """Note that the attempt ended well; return what was seen of it."""
        begun, seen, last = self.begun, self.seen(), self.last
        self.begun = None
        if begun is None:
            return None
        if seen is None or last is None or seen.seconds <= 0:  # it was never seen between
            return Observation(now - begun, self.work.share(1 - self.before))
        return Observation(seen.seconds, seen.amount, seen.start, now - last[0])

    def stop(self) -> None:
        """Note that the attempt ended otherwise."""
        self.begun = None

    def seconds_left(self, speed: Speed, now: float) -> float:
        """Return how long the job will go on, or take once it starts."""
        rest = speed.steps(self.work.share(1 - self.done)) + speed.end
        if self.begun is None:
            return speed.start + rest
        if self.last is None:
            return max(speed.start - (now - self.begun), 0.0) + rest
        return max(rest - (now - self.last[0]), 0.0)


def seconds_left(
    tracks: Sequence[Track], seen: Sequence[Observation], slots: int, now: float
) -> float | None:
    """Return the seconds until all jobs have ended, None before anything was seen.

    tracks: in the order in which those that wait will start. seen: jobs that ended, of this list or
        earlier.
    """
    speed = learn_speed([*seen, *(o for o in (track.seen() for track in tracks) if o is not None)])
    if speed is None:
        return None
    left = [track for track in tracks if not track.over]
    running = [(t.seconds_left(speed, now), t.slots) for t in left if t.begun is not None]
    waiting = [(t.seconds_left(speed, now), t.slots) for t in left if t.begun is None]
    return makespan(running, waiting, slots)


def learn_speed(seen: Sequence[Observation]) -> Speed | None:
    """Return the speed that fits what was seen, None where no steps were.

    Least squares with errors that grow as the root of the seconds.
    """
    import numpy as np
    from scipy.optimize import nnls

    steps = [o for o in seen if o.seconds > 0 and o.amount.jobs > 0]
    if not steps:
        return None
    work = np.array([[o.amount.jobs, o.amount.tokens, o.amount.flops] for o in steps])
    seconds = np.array([o.seconds for o in steps])
    unit = work.mean(axis=0)
    unit[unit == 0] = 1.0
    weights, size = seconds**-0.5, seconds.mean() ** 0.5
    rows = [*(work / unit * weights[:, None]), np.array([_NOTHING / size, 0.0, 0.0])]
    targets = [*(seconds * weights), 0.0]
    if work[:, 1].any():
        rows.append(np.array([0.0, _EVEN / size, -_EVEN / size]))
        targets.append(0.0)
    found = nnls(np.array(rows), np.array(targets))[0] / unit
    starts, ends = [o.start for o in seen if o.start is not None], [o.end for o in seen if o.end]
    return Speed(fmean(starts or [0.0]), fmean(ends or [0.0]), *map(float, found))


def makespan(
    running: Iterable[tuple[float, int]], waiting: Iterable[tuple[float, int]], slots: int
) -> float:
    """Return the seconds until jobs, given as (seconds, slots that they take), have ended.

    Of those that wait the first that fits starts next; one that is wider than all slots runs alone.
    """
    ends, queue, now, last = list(running), list(waiting), 0.0, 0.0
    heapify(ends)
    free = slots - sum(width for _, width in ends)
    while ends or queue:
        fits = (i for i, (_, width) in enumerate(queue) if min(width, slots) <= free)
        index = next(fits, None)
        if index is None:
            now, width = heappop(ends)
            free, last = free + width, max(last, now)
            continue
        seconds, width = queue.pop(index)
        free -= min(width, slots)
        heappush(ends, (now + seconds, min(width, slots)))
    return last
