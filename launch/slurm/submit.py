"""Submit runs once, whatever happens: none is lost, none is queued twice.

Before sbatch is called, the submission's folder and each run's ``submission.json`` say what is
about to happen, under a name that is used once. Whoever comes later, after a crash or a time-out in
between, asks the queue for that name: it tells whether the job exists.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.files import write_json, write_text
from data.secrets import refuse_secrets
from launch.config import ClusterConfig
from launch.local.process import Job, refuse_keys_of
from launch.run_folder.records import (
    CANCELLED_FILE,
    JOB_FILE,
    SUBMISSION_FILE,
    read_json,
)
from launch.slurm import commands
from launch.slurm.commands import NoRoomError, QueueEntry, SlurmError
from launch.slurm.plan import PLAN_FILE, RUNS_FILE, SubmitPlan, Task, make_plans, part_of
from launch.slurm.render import dependency, environment, render
from launch.slurm.snapshot import describe_code, snapshot, write_code

SCRIPT = "job.sh"
_FOLDER = ".slurm"
_TRIES = 5


@dataclass(frozen=True)
class Submitted:
    """What became of a run that was to be submitted.

    job: its id, such as 12 or 12_3; '' when it is finished, or waits for room in the queue. fresh:
    whether this call submitted it. waits: why it could not be submitted yet. note: what else a
    person should know.
    """

    name: str
    run_dir: Path
    job: str
    fresh: bool
    waits: str = ""
    note: str = ""


def submit_jobs(title: str, jobs: Sequence[Job], cluster: ClusterConfig) -> list[Submitted]:
    """Submit what is neither finished nor in the queue; return all, in the order of ``jobs``.

    Where a person may not have so many jobs, those that cost most go first, and the others say that
    they wait; see room.py. Raises ValueError for what cannot be submitted, SlurmError when the
    controller does not answer.
    """
    if not jobs:
        return []
    site = commands.site()
    root = jobs[0].run_dir.resolve().parent / _FOLDER
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / ".lock"):
        entries = commands.queue()
        found = {job.run_dir: _existing(job, entries) for job in jobs}
        missing = [job for job in jobs if found[job.run_dir] is None]
        if missing:
            code = snapshot(root)
            _prepare_runs(missing, code)
            python = cluster.slurm.python or sys.executable
            folders = {job.run_dir.resolve(): job.run_dir for job in missing}
            full = ""
            for plan in make_plans(title, missing, cluster, site, root, code, python):
                for submitted in _submit_what_fits(plan, full):
                    found[folders[submitted.run_dir]] = submitted
                    full = full or submitted.waits
    done = [found[job.run_dir] for job in jobs]
    return [submitted for submitted in done if submitted is not None]


def entries_of(run_dir: Path, entries: Sequence[QueueEntry]) -> list[QueueEntry]:
    """Return a run's places in the queue, several in a chain; what runs comes first."""
    about = read_json(run_dir / SUBMISSION_FILE)
    key = (about.get("job_name"), about.get("index"))
    return sorted((e for e in entries if (e.name, e.index) == key), key=_is_waiting)


def entry_of(run_dir: Path, entries: Sequence[QueueEntry]) -> QueueEntry | None:
    """Return a run's place in the queue: the one that runs, else the first that waits."""
    return next(iter(entries_of(run_dir, entries)), None)


def _is_waiting(entry: QueueEntry) -> bool:
    return entry.state == "PENDING"


def _existing(job: Job, entries: Sequence[QueueEntry]) -> Submitted | None:
    if job.done_marker.exists():
        return Submitted(job.name, job.run_dir, "", False)
    entry = entry_of(job.run_dir, entries)
    return Submitted(job.name, job.run_dir, entry.job, False) if entry else None


def _prepare_runs(jobs: Sequence[Job], code: Path) -> None:
    """Note the code in each run folder, and forget that a person cancelled it."""
    about, diff = describe_code(code, os.environ)
    for job in jobs:
        job.run_dir.mkdir(parents=True, exist_ok=True)
        refuse_keys_of([job], os.environ)
        write_code(job.run_dir, about, diff)
        (job.run_dir / CANCELLED_FILE).unlink(missing_ok=True)


def _submit_what_fits(plan: SubmitPlan, full: str) -> list[Submitted]:
    """Submit a plan, or in parts as much of it as the queue has room for.

    full: why nothing more fits, if that is known. How many jobs a person may have is not asked for:
    there are limits of users, accounts and partitions, each on its own or shared.
    """
    if full:
        return [Submitted(task.name, task.run_dir, "", False, full) for task in plan.tasks]
    try:
        return _submit_plan(plan)
    except NoRoomError as error:
        reason = str(error)
        if len(plan.tasks) == 1 or not error.of_person:
            return _submit_what_fits(plan, reason)
    half = (len(plan.tasks) + 1) // 2
    first = _submit_what_fits(part_of(plan, plan.tasks[:half]), "")
    return first + _submit_what_fits(part_of(plan, plan.tasks[half:]), first[-1].waits)


def _submit_plan(plan: SubmitPlan) -> list[Submitted]:
    """Write down what is about to happen, let it happen, write down that it did.

    Raises NoRoomError, after which nothing of it is left.
    """
    script = render(plan)
    refuse_secrets({"cluster.slurm": script}, os.environ)
    plan.folder.mkdir(parents=True)
    write_json(plan.folder / PLAN_FILE, plan.to_dict())
    write_text(plan.folder / RUNS_FILE, "".join(f"{task.run_dir}\n" for task in plan.tasks))
    write_text(plan.folder / SCRIPT, script)
    for index, task in enumerate(plan.tasks):
        about = {"job_name": plan.job_name, "index": index, "folder": str(plan.folder)}
        write_json(task.run_dir / SUBMISSION_FILE, about)
    ids, note = _submit_chain(plan)
    single = len(plan.tasks) == 1
    return [
        Submitted(t.name, t.run_dir, ids[0] if single else f"{ids[0]}_{i}", True, note=note)
        for i, t in enumerate(plan.tasks)
    ]


def _submit_chain(plan: SubmitPlan) -> tuple[list[str], str]:
    """Submit the links of a chain, one without a chain; return their ids, and a note on them."""
    ids: list[str] = []
    links = plan.cluster.slurm.chain_length
    for _ in range(links):
        try:
            ids.append(_submit_once(plan, ids))
        except NoRoomError as error:
            if not ids:
                _forget(plan.folder, plan.tasks)
                raise
            return ids, f"{len(ids)} of {links} links of its chain, {error}. Submit it again later."
        write_json(plan.folder / JOB_FILE, {"ids": ids, "job_name": plan.job_name})
    return ids, ""


def _forget(folder: Path, tasks: Sequence[Task]) -> None:
    """Remove what was written for a submission that the queue has refused."""
    for task in tasks:
        (task.run_dir / SUBMISSION_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _submit_once(plan: SubmitPlan, earlier: Sequence[str]) -> str:
    """Call sbatch until it is known that the job exists; return its id."""
    # sbatch itself gets no other variable, since all of its own travel with the job.
    env = environment(plan, os.environ)
    arguments = dependency(plan, earlier[-1] if earlier else "")
    error: SlurmError | None = None
    for _ in range(_TRIES):
        try:
            return commands.submit(plan.folder / SCRIPT, arguments, env)
        except SlurmError as found:
            error = found
        # The answer may be lost while the job is not. commands.queue itself tries for a while.
        made = {e.job.split("_")[0] for e in commands.queue([plan.job_name])} - set(earlier)
        if made:
            return made.pop()
        if isinstance(error, NoRoomError):
            raise error
        if not _may_pass(str(error)):
            break
    raise SlurmError(f"{plan.folder / SCRIPT}: could not be submitted: {error}")


def _may_pass(error: str) -> bool:
    """Tell whether trying again may help: the controller was busy or away, not unwilling."""
    signs = ("no answer", "timed out", "Unable to contact", "temporarily", "Connection refused")
    return any(sign in error for sign in signs)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one submission at a time look and act; the kernel drops the lock with its holder."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
