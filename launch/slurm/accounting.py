"""What SLURM's accounting remembers of runs that have left the queue; reads only.

A run that ended without a word in its folder (a lost node, a folder that its node could not open,
the kernel's out-of-memory killer) is told from it. Clusters without accounting answer nothing.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.run_folder.records import JOB_FILE, SUBMISSION_FILE, read_json
from launch.slurm.commands import SlurmError, run

_FIELDS = ("JobID", "State", "ExitCode", "NodeList")
# sacct's first word of a state; "CANCELLED by 1000" has more.
_WORDS = {
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "it took more memory than it had asked for",
    "TIMEOUT": "it reached its time limit",
    "DEADLINE": "it passed its deadline",
    "PREEMPTED": "it was preempted",
    "BOOT_FAIL": "its node did not start",
    "COMPLETED": "its supervisor ended without an error",
}
# slurmd reports 53 where it cannot open what a batch script needs on its node.
_CANNOT_OPEN = 53
_JOB_ID = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class PastJob:
    """A job that ended. state: sacct's, in one word. status, signal: its exit code's two parts."""

    job: str
    state: str
    status: int
    signal: int
    nodes: str

    def describe(self) -> str:
        """Return how it ended in words."""
        words = _WORDS.get(self.state, "")
        if self.state == "CANCELLED":
            words = "it was cancelled with scancel"
        elif self.signal == _CANNOT_OPEN:
            words = "its node could not open its folder or its log (signal 53)"
        elif not words and self.signal:
            words = f"signal {self.signal} ended it"
        elif not words:
            words = f"exit status {self.status}"
        where = f" on {self.nodes}" if self.nodes not in ("", "None assigned") else ""
        return f"{words}{where}, says SLURM ({self.state})"


def past_jobs(run_dirs: Sequence[Path]) -> dict[Path, PastJob] | None:
    """Return the last job of each submitted run that accounting knows.

    None where there is no accounting, or it does not answer.
    """
    wanted = {run_dir: ids for run_dir in run_dirs if (ids := ids_of(run_dir))}
    if not wanted or shutil.which("sacct") is None:
        return None
    jobs = sorted({job.split("_")[0] for ids in wanted.values() for job in ids}, key=int)
    argv = ["sacct", "--noheader", "--parsable2", "--allocations"]
    argv += [f"--format={','.join(_FIELDS)}", f"--jobs={','.join(jobs)}"]
    try:
        known = parse_past(run(argv, tries=1))
    except SlurmError:
        return None
    found = {}
    for run_dir, ids in wanted.items():
        last = [known[job] for job in ids if job in known]
        if last:
            found[run_dir] = last[-1]
    return found


def parse_past(text: str) -> dict[str, PastJob]:
    """Return the ended jobs of sacct's answer by id; lines that are none are left out."""
    found = {}
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) != len(_FIELDS):
            continue
        job, state, code, nodes = (part.strip() for part in parts)
        word = state.split(" ")[0].rstrip("+")
        status, _, signal = code.partition(":")
        if word in ("PENDING", "RUNNING", "REQUEUED", "SUSPENDED", "") or not status.isdigit():
            continue
        number = int(signal) if signal.isdigit() else 0
        found[job] = PastJob(job, word, int(status), number, nodes)
    return found


def ids_of(run_dir: Path) -> list[str]:
    """Return a run's jobs in the order of their submission, several in a chain."""
    about = read_json(run_dir / SUBMISSION_FILE)
    folder, index = about.get("folder"), about.get("index")
    if not isinstance(folder, str) or not isinstance(index, int):
        return []
    ids = read_json(Path(folder) / JOB_FILE).get("ids")
    if not isinstance(ids, list):
        return []
    numbers = [job for job in ids if isinstance(job, str) and _JOB_ID.fullmatch(job)]
    # A single run is no array; accounting then knows its bare id.
    return [name for job in numbers for name in (job, f"{job}_{index}")]
