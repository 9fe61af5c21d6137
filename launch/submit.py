"""Submit one run, or every unfinished run of a folder, to a cluster; or run them here.

usage: kinescale submit cluster=NAME [cluster.key=value ...] key=value ...    one run
       kinescale submit cluster=NAME [cluster.key=value ...] FOLDER ...       frozen runs

examples:
  kinescale submit cluster=slurm experiment=cpu_demo horizon.flops=1e11
  kinescale submit cluster=slurm cluster.slurm.partition=gpu cluster.slurm.minutes=240 \\
      model=w256d12 horizon.flops=1e16 parallel.processes=16
  kinescale submit cluster=slurm experiment=vae_tiny data.root=datasets/demo/video
  kinescale submit cluster=slurm cluster.slurm.array_throttle=4 runs/demo
  kinescale run study=demo cluster=slurm      a whole study: every phase is one array

Prints one line a run and returns; `kinescale status` shows what becomes of them. Submitting
twice is harmless: what is finished or in the queue is left alone. A run that was cancelled starts
again. Where the queue takes no more of your jobs now (MaxSubmitJobs), it waits, and goes on as the
queue empties. check=true looks whether they would go, tries one step of the largest here, and
submits nothing (kinescale train --help). dry=true prints the script (here: the command), starts
nothing and leaves nothing behind.
Keys: docs/config.md; clusters: launch/conf/cluster.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from data.shell import command
from data.words import counted

if TYPE_CHECKING:
    from data.checks import Check
    from launch.config import ClusterConfig
    from launch.local.process import Job
    from launch.run_folder.reader import Facts
    from launch.slurm.submit import Submitted


_OWN = ("dry=true", "check=true")


def find_jobs(words: Sequence[str], dry: bool = False) -> "list[Job]":
    """Return the jobs of a command line: frozen runs of folders, or one run that it composes.

    The composed run is frozen, unless ``dry``. Raises ValueError.
    """
    from launch.run_folder.reader import Facts
    from launch.run_folder.runs import find_runs, refuse_study
    from trainer.kinds import compose_any, folder_of, freeze_any, processes_of, start_command
    from trainer.preflight import refuse_unready

    refuse_study(words, "run cluster=slurm")
    folders = [word for word in words if "=" not in word]
    if folders and len(folders) < len(words):
        other = next(word for word in words if "=" in word)
        raise ValueError(f"{other}: a frozen run has its config. Give folders, or key=value.")
    if folders:
        return [_frozen(run.path) for folder in folders for run in find_runs(Path(folder))]
    run = compose_any(list(words))
    if not dry and not (folder_of(run) / "result.json").exists():
        refuse_unready(run)
    folder = folder_of(run) if dry else freeze_any(run)
    goal = _goal(Facts(asdict(run), "", _refuse))
    return [_job(folder, start_command(run, folder), processes_of(run), goal)]


def _refuse(problem: str) -> None:
    raise ValueError(f"{problem}. Correct the config.")


def _frozen(folder: Path) -> "Job":
    """Return the job of a frozen run of any kind (they differ in schema, not in how they start)."""
    from launch.run_folder.reader import FolderReader
    from trainer.run.start import start_processes

    reader = FolderReader(folder)
    config = reader.read("config.yaml")
    processes = config.section("parallel").count("processes") or 1 if config else 1
    goal = _goal(config) if config else ("flops", 0.0)
    if config is None or reader.problems:
        wrong = (reader.problems or ["config.yaml: is missing"])[0]
        raise ValueError(f"folder={folder}: {wrong}. Mend the file, or leave this run out.")
    return _job(folder, start_processes(processes, folder), processes, goal)


def _goal(config: "Facts") -> tuple[str, float]:
    """Return which count of metrics.jsonl tells a run's end, and its value there."""
    horizon = config.section("horizon")
    for key in ("flops", "tokens"):
        if whole := horizon.number(key, most=1e40):
            return key, whole
    return "step", float(horizon.count("steps") or config.count("steps"))


def _job(folder: Path, argv: list[str], processes: int, goal: tuple[str, float]) -> "Job":
    from launch.local.process import Job

    cost = goal[1] if goal[0] == "flops" and goal[1] else 1.0
    return Job(folder.name, folder, argv, processes, cost, folder / "result.json", goal)


def _submit(title: str, jobs: "list[Job]", cluster: "ClusterConfig") -> int:
    from launch.slurm.room import Submission

    submission, fresh, told = Submission(title, jobs, cluster), 0, False
    while True:
        for found in submission.advance():
            print(_describe(found), flush=True)
            fresh += found.fresh
        if not submission.num_waiting:
            break
        if not told:
            print(submission.describe(), file=sys.stderr)
        told = True
        time.sleep(cluster.poll_seconds)
    print(f"{fresh} of {counted(len(jobs), 'run')} submitted. See: kinescale status "
          f"{jobs[0].run_dir if len(jobs) == 1 else jobs[0].run_dir.parent}")  # fmt: skip
    return 0


def _describe(found: "Submitted") -> str:
    what = "submitted" if found.fresh else "in the queue already" if found.job else "finished"
    note = f"; {found.note}" if found.note else ""
    return f"{found.run_dir}  {what}{' as ' if found.job else ''}{found.job}{note}"


def _show(title: str, jobs: "list[Job]", cluster: "ClusterConfig") -> int:
    """Print the scripts that would be submitted, without asking a controller."""
    from launch.slurm.commands import DEFAULT_MAX_ARRAY, OLDEST, Site
    from launch.slurm.plan import make_plans
    from launch.slurm.render import render

    root = jobs[0].run_dir.resolve().parent / ".slurm"
    site = Site(OLDEST, DEFAULT_MAX_ARRAY)
    for plan in make_plans(title, jobs, cluster, site, root, root / "code", sys.executable):
        print(render(plan))
    return 0


def _run_here(title: str, jobs: "list[Job]", cluster: "ClusterConfig") -> int:
    from launch.dispatch import run_on
    from launch.local.run import ProgressPrinter, Status, describe_failures

    with ProgressPrinter(title) as printer:
        outcomes = run_on(cluster, title, jobs, printer)
    if text := describe_failures(outcomes):
        print(text, file=sys.stderr)
    ended = (Status.done, Status.skipped)
    return 0 if all(outcome.status in ended for outcome in outcomes) else 1


def _check(words: list[str], cluster: "ClusterConfig", as_json: bool) -> int:
    from data.checks import tell
    from launch.preflight import look_at_runs
    from launch.run_folder.runs import find_runs, refuse_study
    from trainer.kinds import compose_any, load_any

    refuse_study(words, "run check=true")
    folders = [word for word in words if "=" not in word]
    found = [run.path for folder in folders for run in find_runs(Path(folder))]
    runs = [load_any(folder) for folder in found] if folders else [compose_any(words)]
    return tell(look_at_runs(runs, cluster), as_json)


def _warn_of_first(jobs: "list[Job]", cluster: "ClusterConfig") -> "list[Check]":
    """Return what the first job would not get; the others' configs differ in other things."""
    from launch.config import ClusterKind
    from launch.preflight import warn_of_kept_back
    from trainer.kinds import load_any

    if cluster.kind is not ClusterKind.slurm:
        return []
    return list(warn_of_kept_back(load_any(jobs[0].run_dir), cluster))


def _clusters() -> str:
    names = sorted(path.stem for path in (Path(__file__).parent / "conf/cluster").glob("*"))
    return "clusters: " + ", ".join(names)


@command(
    __doc__,
    also=_clusters,
    kept="what runs or waits is left alone; the same command submits the rest",
)
def main(argv: list[str]) -> int:
    """Parse the command line and submit."""
    from launch.config import ClusterKind, compose_cluster, split_overrides
    from launch.preflight import warn_of_gpus

    about, words = split_overrides(argv)
    dry = "dry=true" in words
    cluster = compose_cluster(about)
    if "check=true" in words:
        return _check([w for w in words if w not in (*_OWN, "--json")], cluster, "--json" in words)
    jobs = find_jobs([word for word in words if word not in _OWN], dry)
    for warning in [*warn_of_gpus(cluster), *([] if dry else _warn_of_first(jobs, cluster))]:
        print(warning.line(), file=sys.stderr)
    title = jobs[0].name if len(jobs) == 1 else jobs[0].run_dir.resolve().parent.name
    local = cluster.kind is ClusterKind.local
    if dry and local:
        print(*(shlex.join(job.argv) for job in jobs), sep="\n")
        return 0
    start = _run_here if local else _show if dry else _submit
    return start(title, jobs, cluster)


if __name__ == "__main__":
    main.run()
