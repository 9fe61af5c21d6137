"""Cancel runs: those that run are given time to save, those that wait leave the queue.

usage: kinescale cancel FOLDER [FOLDER ...] [now=true]

examples:
  kinescale cancel runs/demo
  kinescale cancel runs/smoke-1a2b3c4d5e now=true

Only what this project submitted from these folders is touched. A cancelled run is not started again
by its own job; `kinescale submit FOLDER` takes it up where it saved. now=true does not wait
for a checkpoint.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data.shell import command

if TYPE_CHECKING:
    from launch.run_folder.runs import RunFolder


def cancel_runs(runs: "Sequence[RunFolder]", now: bool) -> tuple[list[str], list[str]]:
    """Cancel the jobs of runs; return those told to save, and those ended at once."""
    from data.files import write_json
    from launch.run_folder.records import CANCELLED_FILE
    from launch.slurm import commands
    from launch.slurm.submit import entries_of

    queue = commands.queue()
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


@command(__doc__, kept="some runs may be cancelled. Run the same command again.")
def main(argv: list[str]) -> int:
    """Parse the command line and cancel."""
    from launch.run_folder.runs import find_runs, split_folders

    folders, settings = split_folders(argv, "now")
    if not folders:
        raise ValueError("folder: must be given. Use for example runs/demo.")
    runs = [run for folder in folders for run in find_runs(folder)]
    told, ended = cancel_runs(runs, settings.get("now") == "true")
    print(f"{len(told)} told to save and leave, {len(ended)} ended; "
          f"{len(runs)} runs looked at")  # fmt: skip
    return 0


if __name__ == "__main__":
    main.run()
