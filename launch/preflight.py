"""Look at runs and the cluster they are for, before they are submitted."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from data.checks import Check, Verdict, judge, shown_bytes
from launch.checks import check_slurm
from launch.config import ClusterConfig, ClusterKind
from launch.slurm.commands import SlurmError
from trainer.config import STATE_BYTES
from trainer.kinds import AnyRun, folder_of
from trainer.preflight import look, params_of, try_step

# How sites name partitions of accelerators.
_GPU = re.compile(r"gpu|cuda|(?<![a-z])[abhv]\d{2,3}(?!\d)", re.IGNORECASE)
_SHORT = 0.8  # of what is free: beyond it many runs are warned of


def look_at_runs(runs: Sequence[AnyRun], cluster: ClusterConfig) -> list[Check]:
    """Look at the cluster and at all runs, and try one step of the largest.

    Of the other runs only what is not good is told, and what was not told before.
    """
    largest = max(runs, key=params_of)
    checks = [*_check_cluster(cluster), *look(largest)]
    told = set(checks)
    for run in runs:
        for check in look(run) if run is not largest else ():
            if check.verdict is not Verdict.good and check not in told:
                told.add(check)
                checks.append(replace(check, name=f"{check.name} ({run.name})"))
    if len(runs) > 1:
        checks.append(_room_of_all(runs))
    if not any(check.is_bad for check in checks):
        checks.append(try_step(largest))
    return checks


def _check_cluster(cluster: ClusterConfig) -> Iterator[Check]:
    if cluster.kind is not ClusterKind.slurm:
        return
    try:
        yield from check_slurm(cluster)
    except (SlurmError, ValueError) as error:
        remedy = "Submit where sbatch works, or choose cluster=local."
        yield Check("cluster.kind=slurm", Verdict.bad, str(error).rstrip("."), remedy)
    yield from warn_of_gpus(cluster)
    for name in cluster.slurm.pass_env:
        yield judge(
            f"cluster.slurm.pass_env={name}", name in os.environ, "is set in this shell"
            if name in os.environ else "is not set in this shell",
            "Set it, or leave it out.", Verdict.bad,
        )  # fmt: skip


def warn_of_gpus(cluster: ClusterConfig) -> Iterator[Check]:
    """Warn of a partition that is named after GPUs where a job asks for none."""
    slurm = cluster.slurm
    asked = slurm.gpus_per_node or any("gpu" in option for option in slurm.options)
    if cluster.kind is ClusterKind.slurm and not asked and _GPU.search(slurm.partition):
        yield Check(
            f"cluster.slurm.gpus_per_node={slurm.gpus_per_node}", Verdict.warning,
            f"no GPU is asked for on the partition {slurm.partition}",
            f"Set cluster.slurm.gpus_per_node={slurm.processes_per_node}.",
        )  # fmt: skip


def _room_of_all(runs: Sequence[AnyRun]) -> Check:
    """Compare what all runs keep, with one more checkpoint of the largest, with what is free."""
    folder = folder_of(runs[0]).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(Path(there)).free
    need = sum(STATE_BYTES * params_of(run) * run.checkpoint.keep for run in runs)
    return judge(
        "disk of all", need <= _SHORT * free,
        f"{len(runs)} runs keep {shown_bytes(need)}, {shown_bytes(free)} free",
        "Make room, or set checkpoint.keep=1.", Verdict.bad if need > free else Verdict.warning,
    )  # fmt: skip
