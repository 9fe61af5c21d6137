"""Where a run's wall time went: useful steps, and what the rest was lost to.

    queue   from being submitted to the first start
    requeue from being put back into the queue to the next start
    detect  from the last sign of progress to the moment the attempt was known to have ended
    end     from the last step to the end of an attempt that ended in good order
    start   from a start to the first step: imports, rendezvous, building, compiling; without load
    load    reading the checkpoint
    save    that training waited for checkpoints
    repeat  steps that a later attempt did again

Goodput is useful seconds over all seconds, as Google's ML Goodput (2024) defines it; validation and
waiting for data count as useful: they are part of the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launch.run_folder.reader import Note
from launch.run_folder.records import read_launches
from trainer.run.attempt import read_timelines, repeated_share, useful_seconds

CAUSES = ("queue", "requeue", "detect", "start", "load", "save", "repeat", "end")
_IN_ORDER = ("done", "stopped", "cancelled", "interrupted")


@dataclass
class Goodput:
    """Seconds of a run, all attempts together.

    wall: since it was submitted, or first started; computing: that its processes were held.
    told: whether its trainer told its phases; those of small networks do not.
    """

    wall: float = 0.0
    useful: float = 0.0
    computing: float = 0.0
    lost: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    told: bool = False

    @property
    def share(self) -> float | None:
        """Useful over all seconds; None before the first."""
        return self.useful / self.wall if self.wall > 0 else None


def measure(run_dir: Path, now: float, note: Note | None = None) -> Goodput:
    """Measure a run from what it and its launcher wrote; ``now`` ends an attempt that still runs.

    Moments come from the clocks of the nodes: seconds of difference between them are taken for
    time spent, never for less than none. note: is told what could not be read.
    """
    return account(read_launches(run_dir, note), read_timelines(run_dir, note), now)


def account(
    launches: Sequence[dict[str, Any]], timelines: Sequence[dict[str, Any]], now: float
) -> Goodput:
    """Attribute wall time; see the head of this file."""
    found = Goodput(told=bool(timelines))
    spans = _spans(launches, timelines, now)
    for number, span in enumerate(spans):
        before = spans[number - 1] if number else None
        following = next((s for s in spans[number + 1 :] if s.timeline), None)
        _add_wait(found, span, before)
        _add_attempt(found, span, following.timeline if following else None)
    if spans:
        begun = spans[0].queued or spans[0].begun
        found.wall = max(spans[-1].ended - begun, 0.0)
    return found


@dataclass
class _Span:
    """One attempt: when it was queued (0: unknown), began and was known to have ended.

    moved: its last sign of progress. running: it still runs. good: it ended as it should.
    """

    queued: float
    begun: float
    ended: float
    moved: float
    timeline: dict[str, Any]
    running: bool = False
    good: bool = False


def _spans(
    launches: Sequence[dict[str, Any]], timelines: Sequence[dict[str, Any]], now: float
) -> list[_Span]:
    """Join each start with its end and with the timeline that its trainer wrote."""
    starts = [(i, r) for i, r in enumerate(launches) if r["event"] == "start"]
    if not starts:  # started by launch.local.run or by hand: the trainer's word alone
        return [
            _Span(0.0, t["started"], t["written"], t["moved"], t)
            for t in timelines
        ]  # fmt: skip
    spans = []
    for position, (index, start) in enumerate(starts):
        following = starts[position + 1][1] if position + 1 < len(starts) else None
        until = following["time"] if following else float("inf")
        mine = [t for t in timelines if start["time"] <= t["started"] < until]
        timeline = mine[-1] if mine else {}
        end = launches[index + 1] if index + 1 < len(launches) else None
        moved = timeline.get("moved", start["time"])
        running = good = False
        if end is not None and end["event"] == "end":
            ended, good = end["time"], end.get("outcome") in _IN_ORDER
        elif following is not None:  # lost with its node: known when SLURM queued it again
            ended = min(max(following.get("submitted") or moved, moved), following["time"])
        else:
            ended, running = now, timeline.get("phase") != "ended"
        queued = 0.0 if start.get("in_place") else start.get("submitted") or 0.0
        spans.append(_Span(queued, start["time"], ended, moved, timeline, running, good))
    return spans


def _add_wait(found: Goodput, span: _Span, before: _Span | None) -> None:
    """Add the time before an attempt."""
    if before is None:
        found.lost["queue"] += max(span.begun - span.queued, 0.0) if span.queued else 0.0
    else:
        found.lost["requeue"] += max(span.begun - before.ended, 0.0)


def _add_attempt(found: Goodput, span: _Span, following: dict[str, Any] | None) -> None:
    """Add an attempt's own time."""
    found.computing += max(span.ended - span.begun, 0.0)
    seconds = dict(span.timeline.get("seconds", {}))
    if span.running:  # else the last phase may have hung
        phase = span.timeline.get("phase", "start")
        seconds[phase] = seconds.get(phase, 0.0) + span.timeline.get("phase_seconds", 0.0)
    useful = useful_seconds(seconds)
    repeated = useful * repeated_share(span.timeline, following)
    found.useful += useful - repeated
    found.lost["repeat"] += repeated
    found.lost["load"] += seconds.get("load", 0.0)
    found.lost["save"] += seconds.get("checkpoint", 0.0)
    detect = 0.0 if span.running else max(span.ended - span.moved, 0.0)
    found.lost["end" if span.good else "detect"] += detect
    known = useful + seconds.get("load", 0.0) + seconds.get("checkpoint", 0.0) + detect
    found.lost["start"] += max(span.ended - span.begun - known, 0.0)
