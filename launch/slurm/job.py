"""The job that a supervisor runs in: its ids, what the controller says of it, queueing it again."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

_SECONDS = 60.0


@dataclass(frozen=True)
class JobView:
    """What the controller says: state ('' if it does not answer) and two moments, 0 if unknown.

    submitted: when it was queued, or queued again, as seconds of the epoch. preempted: likewise.
    restarts: how often it was queued again.
    """

    state: str = ""
    submitted: float = 0.0
    preempted: float = 0.0
    restarts: int = 0


def job_id(environ: Mapping[str, str]) -> str:
    """Return this job's id as scontrol takes it: 12, or 12_3 in an array."""
    if "SLURM_ARRAY_TASK_ID" in environ:
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ["SLURM_JOB_ID"]


def view(job: str) -> JobView:
    """Ask the controller about a job; one that it has forgotten is in state GONE."""
    code, text = _scontrol(["-o", "show", "job", job])
    if code:
        return JobView("GONE" if "Invalid job id" in text else "")
    return parse_view(text)


def parse_view(text: str) -> JobView:
    """Return the view of a one-line answer of ``scontrol show job``.

    Its first words hold no spaces; a comment, which may hold any text, comes after them.
    """
    lines = text.splitlines()
    found: dict[str, str] = {}
    for word in lines[0].split() if lines else []:
        key, _, value = word.partition("=")
        found.setdefault(key, value)
    return JobView(
        found.get("JobState", ""),
        _seconds(found.get("SubmitTime", "")),
        _seconds(found.get("PreemptTime", "")),
        int(found.get("Restarts", "0")),
    )


def requeue(job: str, seconds: float, exclude: Sequence[str]) -> str:
    """Put the own job back into the queue; return why that failed, or ''.

    seconds: not before so long. exclude: nodes not to use again. The supervisor must ignore SIGTERM
    by then, as the commands do that inherit it: SLURM ends the old job at once, and its last words
    are these.
    """
    code, answer = _scontrol(["requeue", job])
    if code:
        return answer.strip() or f"scontrol requeue ended with {code}"
    changes = [f"StartTime=now+{round(seconds)}"] * (seconds >= 1)
    changes += [f"ExcNodeList={','.join(exclude)}"] * bool(exclude)
    if changes:
        code, answer = _scontrol(["update", f"JobId={job}", *changes])
        if code:
            print(f"[launch] requeued, but {changes} failed: {answer.strip()}", flush=True)
    return ""


def _scontrol(arguments: Sequence[str]) -> tuple[int, str]:
    """Run scontrol; return its status and what it said."""
    try:
        done = subprocess.run(
            ["scontrol", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            env=dict(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout if done.returncode == 0 else done.stdout or "no answer"


def _seconds(text: str) -> float:
    """Return a moment of scontrol, in the node's own zone, as seconds of the epoch; 0 if none."""
    try:
        return time.mktime(datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").timetuple())
    except ValueError:
        return 0.0
