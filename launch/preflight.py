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
from trainer.config import STATE_BYTES
from trainer.kinds import AnyRun, folder_of
from trainer.preflight import look, params_of, try_step, variables_read

# How sites name partitions of accelerators.
_GPU = re.compile(r"gpu|cuda|(?<![a-z])[abhv]\d{2,3}(?!\d)", re.IGNORECASE)
_SHORT = 0.8  # of what is free: beyond it many runs are warned of


def look_at_runs(runs: Sequence[AnyRun], cluster: ClusterConfig) -> list[Check]:
    """Look at the cluster and at all runs, and try one step of the largest.

    Of the other runs only what is not good is told; what holds of all is told once.
    """
    largest = max(runs, key=params_of)
    found: dict[Check, list[str]] = {}
    for run in sorted(runs, key=lambda run: run is not largest):
        for check in [*look(run), *warn_of_kept_back(run, cluster)]:
            if run is largest or check.verdict is not Verdict.good:
                found.setdefault(check, []).append(run.name)
    checks = [*_check_cluster(cluster)]
    for check, names in found.items():
        of_all = check.verdict is Verdict.good or len(names) == len(runs)
        checks += [check] if of_all else [replace(check, of=name) for name in names]
    if len(runs) > 1:
        checks.append(_room_of_all(runs))
    if not any(check.is_bad for check in checks):
        checks.append(try_step(largest))
    return checks


def _check_cluster(cluster: ClusterConfig) -> Iterator[Check]:
    if cluster.kind is not ClusterKind.slurm:
        return
    yield from check_slurm(cluster)
    yield from warn_of_gpus(cluster)
    for name in cluster.slurm.pass_env:
        yield judge(
            f"cluster.slurm.pass_env={name}", name in os.environ, "is set in this shell"
            if name in os.environ else "is not set in this shell",
            "Set it, or leave it out.", Verdict.bad,
        )  # fmt: skip


def warn_of_kept_back(run: AnyRun, cluster: ClusterConfig) -> Iterator[Check]:
    """Warn of variables that a run looks for and that its job would not get.

    A job gets no variable of the submitting shell but those of ``cluster.slurm.pass_env``.
    """
    passed = cluster.slurm.pass_env
    kept = [name for name in variables_read(run) if name not in passed]
    if cluster.kind is ClusterKind.slurm and kept:
        yield Check(
            f"cluster.slurm.pass_env=[{','.join(passed)}]", Verdict.warning,
            f"the job does not get {' and '.join(kept)}, where the run looks for a key",
            f"Use cluster.slurm.pass_env=[{','.join([*passed, *kept])}].",
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
