"""Cancel runs: those that run are given time to save, those that wait leave the queue.

usage: kinescale cancel FOLDER [FOLDER ...] [now=true]

examples:
  kinescale cancel runs/demo
  kinescale cancel runs/smoke-1a2b3c4d5e now=true

Only what this project submitted from these folders is touched, and what this machine runs in them
without a queue: its first process is told by a signal. For a run on another host the host is named.
A cancelled run is not started again by its own job or launcher; `kinescale submit FOLDER` takes it
up where it saved. now=true does not wait for a checkpoint.
"""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.shell import command
from data.words import counted

if TYPE_CHECKING:
    from launch.run_folder.runs import RunFolder
    from launch.slurm.commands import QueueEntry


def cancel_runs(
    runs: "Sequence[RunFolder]", now: bool, queue: "Sequence[QueueEntry] | None" = None
) -> tuple[list[str], list[str]]:
    """Cancel the queue's jobs of runs; return those told to save, and those ended at once.

    queue: as it is now; None asks for it. Raises SlurmError where it does not answer.
    """
    from data.files import write_json
    from launch.run_folder.records import CANCELLED_FILE
    from launch.slurm import commands
    from launch.slurm.submit import entries_of

    queue = commands.queue() if queue is None else queue
    running: list[str] = []
    waiting: list[str] = []
    for run in runs:
        mine = entries_of(run.path, queue)
        if not mine:
            continue
        # First the mark: a supervisor whose ranks end must find it.
        write_json(run.path / CANCELLED_FILE, {"time": time.time()})
        for entry in mine:
            gentle = entry.state == "RUNNING" and not now
            (running if gentle else waiting).append(entry.job)
    if waiting:
        commands.cancel(waiting)
    if running:
        commands.cancel(running, "USR1")
    return running, waiting


def _queue_of(runs: "Sequence[RunFolder]") -> "tuple[list[QueueEntry], str]":
    """Return the queue's jobs, and why it is not known; it is not asked for runs of no queue."""
    from launch.slurm import commands

    if not any(_is_submitted(run.path) for run in runs):
        return [], ""
    if shutil.which("squeue") is None:
        return [], "there is no squeue"
    try:
        return commands.queue(), ""
    except commands.SlurmError as error:
        return [], str(error)


def _is_submitted(run_dir: Path) -> bool:
    from launch.run_folder.records import SUBMISSION_FILE

    return (run_dir / SUBMISSION_FILE).exists()


@command(__doc__, kept="some runs may be cancelled. Run the same command again.")
def main(argv: list[str]) -> int:
    """Parse the command line and cancel."""
    from launch.local.cancel import cancel_here
    from launch.run_folder.runs import find_runs, split_folders
    from launch.slurm.submit import entries_of

    folders, settings = split_folders(argv, "now")
    if not folders:
        raise ValueError("folder: must be given. Use for example runs/demo.")
    runs = [run for folder in folders for run in find_runs(folder)]
    now = settings.get("now") == "true"
    queue, unknown = _queue_of(runs)
    told, ended = cancel_runs(runs, now, queue)
    remedies = []
    for run in runs:
        if run.is_done or entries_of(run.path, queue):
            continue
        found = cancel_here(run.path, now, time.time())
        told += [run.name] * found.told
        ended += [run.name] * found.ended
        if found.remedy:
            remedies.append(found.remedy)
        elif unknown and not (found.told or found.ended) and _is_submitted(run.path):
            remedies.append(
                f"{run.path}: was submitted, and the queue is not known here ({unknown}). Use "
                f"kinescale cancel {run.path} where squeue answers."
            )
    print(f"{len(told)} told to save and leave, {len(ended)} ended; "
          f"{counted(len(runs), 'run')} looked at")  # fmt: skip
    for remedy in remedies:
        print(remedy, file=sys.stderr)
    return 1 if remedies else 0


if __name__ == "__main__":
    main.run()
