"""What the end of an attempt means, and what follows from it: pure functions of what is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.shell import USER_ERROR
from launch.slurm.job import JobView

GIVE_UP = "give up"
WRONG = "exit status 2: something must be mended first, its log says what"
_ALIVE = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "CONFIGURING")


@dataclass(frozen=True)
class Signs:
    """What was found at the end of an attempt.

    code: srun's exit status. done, cancelled: the run folder's markers. told_to_stop: SLURM
    announced the time limit. saved: the trainer left ``stopped.json``. stalled: its watchdog's
    summary. blamed: hosts it names. refused: what a person must mend, by
    ``refused.json``. state, preempted: what the controller says of the job.
    """

    code: int
    done: bool = False
    cancelled: bool = False
    told_to_stop: bool = False
    saved: bool = False
    stalled: str = ""
    blamed: Sequence[str] = ()
    refused: str = ""
    state: str = ""
    preempted: bool = False


@dataclass(frozen=True)
class Ending:
    """How an attempt ended: done, stopped, cancelled, stalled, refused or failed.

    status: the job's exit status if nothing follows.
    """

    outcome: str
    reason: str = ""
    status: int = 0
    blamed: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, signs: Signs) -> "Ending":
        """Judge by what the run left behind; the exit status comes last, it tells the least."""
        status = signs.code if 0 < signs.code < 256 else 1
        if signs.done:
            return cls("done")
        if signs.cancelled:
            return cls("cancelled", "a person cancelled it")
        # An empty state is a controller that does not answer, not one that says no.
        if signs.state and signs.state != "RUNNING" and not signs.preempted:
            return cls("cancelled", f"SLURM says {signs.state}", status)
        if signs.stalled:
            return cls("stalled", signs.stalled, status, list(signs.blamed))
        if signs.preempted:
            return cls("stopped", "preempted", status)
        if signs.told_to_stop:
            return cls("stopped", "told to stop before the time limit", status)
        if signs.saved:
            return cls("stopped", "a signal", status)
        if signs.refused:
            return cls("refused", signs.refused, status)
        if signs.code == 0:
            return cls("failed", "exited 0 without its result", 1)
        if signs.code == USER_ERROR:
            return cls("failed", WRONG, status)
        return cls("failed", f"srun ended with {signs.code}", status)


def judge(ending: Ending, failures: int, retries: int, chain: bool) -> str:
    """Return what follows: nothing, restart (here, at once), requeue, or give up.

    failures: attempts in a row, this one included, since the last new checkpoint.
    """
    if ending.outcome in ("done", "cancelled"):
        return "nothing"
    if ending.reason == WRONG:
        return GIVE_UP  # it would end so again
    preempted = ending.reason == "preempted"
    if ending.outcome == "refused":
        return GIVE_UP  # the next attempt would say the same
    if failures > retries and not preempted:
        return GIVE_UP
    if ending.outcome == "failed":
        return "restart"
    if ending.outcome == "stopped" and chain and not preempted:
        return "nothing"  # the next link goes on
    return "requeue"


def num_failures(launches: Sequence[dict[str, Any]], job_name: str, checkpoint: str) -> int:
    """Return how many of the last attempts of a submission left the run where it is now.

    A new checkpoint ends the count, and so does a preemption, which is nobody's fault. An attempt
    without an end was lost with its node: it counts, since a run may be what kills its nodes.
    """
    count = 0
    mine = [r for r in launches if r.get("job_name") == job_name]
    for number in range(len(mine) - 1, -1, -1):
        record = mine[number]
        if record["event"] != "start":
            continue
        end = mine[number + 1] if number + 1 < len(mine) else {}
        if record.get("checkpoint") != checkpoint or end.get("reason") == "preempted":
            break
        count += 1
    return count


def ended_attempt(
    launches: Sequence[dict[str, Any]], job: str, view: Callable[[str], JobView]
) -> int:
    """Return the number of the trainer's attempt that is over although it may look alive; else 0.

    A process on a node that was cut off goes on and renews its lease. SLURM runs a job once at a
    time, so the attempt of an earlier start of this job, or of a job that has ended, is an orphan.
    Attempts that somebody else made are not covered: they count as alive.
    """
    starts = [r for r in launches if r["event"] == "start"]
    if not starts:
        return 0
    last = starts[-1]
    if not last.get("job"):
        return 0  # a launcher without a queue started it
    if last.get("job") != job:
        state = view(str(last.get("job"))).state
        if not state or state in _ALIVE:
            return 0
    return int(last.get("attempt", -1)) + 1


def blamed_nodes(stalled: dict[str, Any]) -> list[str]:
    """Return the hosts of the ranks that the trainer's watchdog suspects."""
    suspects = stalled.get("suspects")
    known = [s for s in suspects if isinstance(s, dict)] if isinstance(suspects, list) else []
    return sorted({h for s in known if isinstance(h := s.get("host"), str) and h})


def is_fresh(path: Path, begun: float) -> bool:
    """Tell whether a file was written since an attempt began.

    The trainer removes old ones when it starts; the clocks of node and file server may differ by a
    little.
    """
    try:
        return path.stat().st_mtime > begun - 5.0
    except OSError:
        return False
