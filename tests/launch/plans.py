"""A submission for tests: any names, any site, without a cluster."""

import shlex
import sys
from pathlib import Path

from launch.config import ClusterConfig, ClusterKind
from launch.local.process import Job
from launch.slurm.commands import Site
from launch.slurm.plan import SubmitPlan, make_plans
from launch.slurm_config import SlurmConfig

OLD, NEW = Site((22, 5), 1001), Site((25, 5), 1001)


def make_cluster(retries: int = 3, **site: object) -> ClusterConfig:
    """Return a SLURM cluster with settings of its site."""
    return ClusterConfig(kind=ClusterKind.slurm, retries=retries, slurm=SlurmConfig(**site))


def make_job(run_dir: Path, processes: int = 1, cost: float = 1.0) -> Job:
    """Return the job of a run."""
    argv = [sys.executable, "-m", "trainer.train", "--run", str(run_dir)]
    return Job(run_dir.name, run_dir, argv, processes, cost, run_dir / "result.json")


def make_plan(
    root: Path,
    names: tuple[str, ...] = ("a",),
    asked: Site = OLD,
    processes: int = 1,
    title: str = "study",
    **site: object,
) -> SubmitPlan:
    """Return the plan of runs of one shape."""
    jobs = [make_job(root / name, processes) for name in names]
    code, cluster = root / ".slurm" / "code", make_cluster(**site)
    (plan,) = make_plans(title, jobs, cluster, asked, root / ".slurm", code, sys.executable)
    return plan


def parse_options(script: str) -> dict[str, str]:
    """Return the options of a script's #SBATCH lines, as sbatch reads them."""
    found = {}
    for line in script.splitlines():
        if line.startswith("#SBATCH "):
            (word,) = shlex.split(line.removeprefix("#SBATCH "))
            name, _, value = word.removeprefix("--").partition("=")
            found[name] = value
    return found
