"""What is submitted: a list of runs of one shape as one job or array, typed, before any text.

    jobs --group by shape, cut at the site's array limit--> plans --render--> job.sh, plan.json

``plan.json`` is what the supervisor of each job (task.py) reads; it uses the standard library
alone, since it runs outside of containers.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launch.config import ClusterConfig
from launch.container_config import ContainerKind
from launch.local.process import Job
from launch.slurm.commands import Site
from launch.slurm.nccl import NCCL_SETTINGS
from launch.slurm_config import Starter, TimeLimitPolicy
from trainer.run.start import rank_command

PLAN_FILE = "plan.json"
RUNS_FILE = "runs"  # the runs' folders in the array's order, a line each: for the shell
# What the supervisor adds for the ranks (task.py).
RANK_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "KINESCALE_ENDED_ATTEMPTS", "KINESCALE_PER_NODE")
_SLUG = re.compile(r"[^A-Za-z0-9_.-]+")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Shape:
    """How the ranks of a run are laid over nodes."""

    nodes: int
    processes: int
    per_node: int


@dataclass(frozen=True)
class Task:
    """One run of an array: its folder, what each of its ranks runs, and what marks its end."""

    name: str
    run_dir: Path
    argv: tuple[str, ...]
    done_marker: Path


@dataclass(frozen=True)
class SubmitPlan:
    """One job or array, complete.

    job_name: unique to this submission, so that the queue can be asked for it.
    folder: where script, plan and SLURM's own messages lie. workdir: where jobs run, since configs
        may hold paths relative to it. code: folder of the code they run, a snapshot.
    version: of SLURM as (year, month).
    """

    job_name: str
    folder: Path
    workdir: Path
    code: Path
    python: str
    tasks: tuple[Task, ...]
    shape: Shape
    cluster: ClusterConfig
    version: tuple[int, int]

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every job that are written down; never those of ``pass_env``."""
        settings = dict.fromkeys(_THREADS, str(self.cluster.threads_per_process))
        # The code comes from the snapshot even where the working folder holds a checkout.
        settings |= {"PYTHONPATH": str(self.code), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
        settings |= {"PYTHONDONTWRITEBYTECODE": "1"}  # the snapshot is compiled
        if self.cluster.slurm.num_gpus:
            settings |= {name: value for name, value, _ in NCCL_SETTINGS}
        return settings | dict(s.split("=", 1) for s in self.cluster.slurm.env)

    def to_dict(self) -> dict[str, Any]:
        """Return what the supervisor needs, as JSON."""
        cluster, site = self.cluster, self.cluster.slurm
        return {
            "job_name": self.job_name,
            "workdir": str(self.workdir),
            "python": self.python,
            "processes": self.shape.processes,
            "starter": site.starter.value,
            "srun": srun_options(self),
            "container": container_command(self),
            "container_names": container_names(self),
            "rank_python": site.container.python if site.container.image else self.python,
            "retries": cluster.retries,
            "grace_seconds": cluster.grace_seconds,
            "backoff_seconds": site.backoff_seconds,
            "silent_seconds": site.silent_seconds,
            "exclude_suspects": site.exclude_suspects,
            "chain": site.on_time_limit is TimeLimitPolicy.chain,
            "tasks": [
                {
                    "name": task.name,
                    "run_dir": str(task.run_dir),
                    "argv": list(task.argv),
                    "done_marker": str(task.done_marker),
                }
                for task in self.tasks
            ],
        }


def srun_options(plan: SubmitPlan) -> list[str]:
    """Return srun's options: one task a rank, or one a node that becomes torchrun."""
    shape, site = plan.shape, plan.cluster.slurm
    by_torchrun = site.starter is Starter.torchrun
    tasks, per_node = (shape.nodes, 1) if by_torchrun else (shape.processes, shape.per_node)
    cpus = site.cpus_per_process * (shape.per_node if by_torchrun else 1)
    options = [
        f"--nodes={shape.nodes}",
        f"--ntasks={tasks}",
        f"--ntasks-per-node={per_node}",
        # Since 22.05 srun no longer takes this over from the job.
        f"--cpus-per-task={cpus}",
        # A rank that is lost leaves the others waiting in a collective.
        "--kill-on-bad-exit=1",
        "--export=ALL",
    ]
    if plan.version >= (24, 5):
        options.append("--oom-kill-step=1")  # the same for a rank that ran out of memory
    container = site.container
    if container.image and container.kind is ContainerKind.pyxis:
        options += [f"--container-image={container.image}", f"--container-workdir={_workdir(plan)}"]
        options += ["--container-mounts=" + ",".join(container.mounts)] * bool(container.mounts)
        # What the image sets itself goes before the host's, unless it is named.
        options.append("--container-env=" + ",".join([*container_names(plan), *RANK_VARIABLES]))
    return options + [f"--{option}" for option in site.srun_options]


def container_command(plan: SubmitPlan) -> list[str]:
    """Return the program, with its arguments, that srun starts before the interpreter; or none."""
    site = plan.cluster.slurm
    container = site.container
    if not container.image or container.kind is not ContainerKind.apptainer:
        return []
    command = ["apptainer", "exec", *["--nv"] * bool(site.num_gpus), f"--pwd={_workdir(plan)}"]
    command += [f"--bind={mount}" for mount in container.mounts]
    return [*command, container.image]


def container_names(plan: SubmitPlan) -> list[str]:
    """Return the variables of the job that go before those of the container's image."""
    site = plan.cluster.slurm
    return list(dict.fromkeys([*plan.environment, *site.pass_env, *site.container.env]))


def _workdir(plan: SubmitPlan) -> str:
    return plan.cluster.slurm.container.workdir or str(plan.workdir)


def shape_of(processes: int, cluster: ClusterConfig) -> Shape:
    """Return how many nodes a run takes; raise ValueError where its ranks do not divide."""
    per_node = min(processes, cluster.slurm.processes_per_node)
    if processes % per_node:
        raise ValueError(
            f"parallel.processes={processes}: must be a multiple of "
            f"cluster.slurm.processes_per_node={per_node}. "
            f"Use parallel.processes={per_node * (processes // per_node)}."
        )
    return Shape(processes // per_node, processes, per_node)


def make_plans(
    title: str,
    jobs: Sequence[Job],
    cluster: ClusterConfig,
    site: Site,
    root: Path,
    code: Path,
    python: str,
) -> list[SubmitPlan]:
    """Plan jobs as one array a shape; the costliest first, since arrays start in order.

    title: for people, part of the jobs' name. root: folder for the submissions' folders.
    Raises ValueError for ranks that do not fill nodes, or for paths of more than a line.
    """
    for path in (root, Path.cwd(), code, *(job.run_dir for job in jobs)):
        if not str(path).isprintable():
            raise ValueError(
                f"run_root={str(path)!r}: must be one line of text. Rename the folder."
            )
    groups: dict[Shape, list[Job]] = {}
    for job in sorted(jobs, key=lambda j: -j.cost):
        groups.setdefault(shape_of(job.num_processes, cluster), []).append(job)
    limit, plans = cluster.slurm.max_array or site.max_array, []
    for shape, members in groups.items():
        for start in range(0, len(members), limit):
            name = f"ks-{slug(title)}-{secrets.token_hex(4)}"
            tasks = tuple(_task(job, python) for job in members[start : start + limit])
            plans.append(
                SubmitPlan(
                    name, root / name, Path.cwd(), code, python, tasks, shape, cluster, site.version
                )
            )
    return plans


def part_of(plan: SubmitPlan, tasks: Sequence[Task]) -> SubmitPlan:
    """Return a submission of its own for some runs of a plan."""
    name = f"{plan.job_name.rpartition('-')[0]}-{secrets.token_hex(4)}"
    return replace(plan, job_name=name, folder=plan.folder.with_name(name), tasks=tuple(tasks))


def slug(text: str) -> str:
    """Return a text as a short word of letters, digits, dots and dashes, safe anywhere."""
    return _SLUG.sub("-", text).strip("-.")[:40] or "run"


def _task(job: Job, python: str) -> Task:
    command = rank_command(job.argv)
    argv = (python, *command[1:])
    return Task(job.name, job.run_dir.resolve(), argv, job.done_marker.resolve())
