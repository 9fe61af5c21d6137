"""Build a dataset by the tasks of an array: on a SLURM cluster, or as processes of this machine.

usage: kinescale array COMMAND tasks=N cluster=NAME [cluster.key=value ...] key=value ...
       kinescale COMMAND engine=slurm tasks=N cluster=NAME ...      the same

COMMAND is ingest, worlds, encode or caption; key=value are its own. Each of N tasks (8) does its
share of the parts, and is queued again where its node is lost or it fails (cluster.retries). When
all have ended, the command itself builds what is missing here, and writes index and manifest.

examples:
  kinescale array ingest tasks=16 cluster=slurm input=FOLDER output=datasets/mine
  kinescale encode engine=slurm tasks=8 cluster=SITE data.root=datasets/mine out=datasets/latents

Before: kinescale doctor cluster=NAME. Input and output must be seen by all nodes. Logs and records
of the tasks lie beside the output, in .OUTPUT.jobs. Stopped, the queue keeps its jobs: the same
command watches them again.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from data.shell import USER_ERROR, command
from data.words import counted

if TYPE_CHECKING:
    from launch.local.process import Job

TASKS = 8
DONE = "result.json"


@dataclass(frozen=True)
class Shared:
    """A command that tasks can share: its module, and its keys of the share and the output."""

    module: str
    share: str
    output: str


COMMANDS = {
    "ingest": Shared("data.ingest.ingest", "share", "output"),
    "worlds": Shared("data.worlds.__main__", "ingest.share", "root"),
    "encode": Shared("trainer.encode.encode", "share", "out"),
    "caption": Shared("trainer.captioner.caption", "share", "out"),
}
ENGINES = ("engine=slurm", "ingest.engine=slurm")


def array_words(words: Sequence[str]) -> list[str]:
    """Return the words of this command for those of a command with ``engine=slurm``."""
    rest = [word for word in words if word not in ENGINES]
    chosen = any(word.startswith("cluster=") for word in rest)
    return rest if chosen else [*rest, "cluster=slurm"]


def find_jobs(name: str, words: Sequence[str], tasks: int) -> "list[Job]":
    """Return the tasks of a command. Raises ValueError without an output."""
    from data.command_line import unquoted
    from launch.local.process import Job

    shared = COMMANDS[name]
    given = [word.partition("=")[2] for word in words if word.startswith(f"{shared.output}=")]
    if not given:
        key = shared.output
        raise ValueError(f"{key}=(missing): tasks must agree on a folder. Use {key}=FOLDER.")
    out = Path(unquoted(given[-1]))
    folder = out.absolute().parent / f".{out.name}.jobs" / name
    jobs = []
    for number in range(tasks):
        run_dir = folder / f"{number}-of-{tasks}"
        share = f"{shared.share}={number}/{tasks}"
        argv = [sys.executable, "-m", "launch.array_task", str(run_dir / DONE), shared.module]
        words_of = [*argv, *words, share]
        jobs.append(Job(run_dir.name, run_dir, words_of, 1, 1.0, run_dir / DONE))
    return jobs


def tasks_of(words: Sequence[str]) -> tuple[int, list[str]]:
    """Return the number of tasks, and the other words. Raises ValueError."""
    from data.engine.settings import share_of

    given = [word for word in words if word.startswith("tasks=")]
    text = given[-1].partition("=")[2] if given else str(TASKS)
    if share_of(f"0/{text}") is None:
        raise ValueError(f"tasks={text}: must be at least 1. Use {TASKS}.")
    return int(text), [word for word in words if word not in given]


@command(__doc__, kept="finished parts are kept, the queue keeps its jobs; run the same command")
def main(argv: list[str]) -> int:
    """Run the command as an array, then put its parts together."""
    from launch.config import compose_cluster, split_overrides
    from launch.dispatch import run_on
    from launch.local.run import ProgressPrinter, Status, describe_failures
    from launch.preflight import warn_of_gpus

    name, *words = argv or [""]
    if name not in COMMANDS:
        raise ValueError(
            f"{name or 'COMMAND'}: is no command that tasks share. Use {', '.join(COMMANDS)}."
        )
    about, words = split_overrides(words)
    tasks, words = tasks_of(words)
    cluster = compose_cluster(about)
    jobs = find_jobs(name, words, tasks)
    for warning in warn_of_gpus(cluster):
        print(warning.line(), file=sys.stderr)
    title = f"{name} of {counted(tasks, 'task')}"
    with ProgressPrinter(title) as printer:
        outcomes = run_on(cluster, title, jobs, printer)
    if text := describe_failures(outcomes):
        print(text, file=sys.stderr)
    if not all(outcome.status in (Status.done, Status.skipped) for outcome in outcomes):
        print(f"logs: {jobs[0].run_dir.parent}; the same command tries again", file=sys.stderr)
        return 1
    status: int = import_module(COMMANDS[name].module).main(words)
    if status not in (0, USER_ERROR):
        return status
    for job in jobs:  # of the next array other parts are missing
        job.done_marker.unlink(missing_ok=True)
    if status == 0:
        shutil.rmtree(jobs[0].run_dir.parent)
    return status


if __name__ == "__main__":
    main.run()
