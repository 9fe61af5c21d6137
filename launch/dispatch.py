"""Carry out jobs where a cluster's config says: on this machine, or through its queue."""

import os
from collections.abc import Callable, Sequence

from launch.config import ClusterConfig, ClusterKind
from launch.local.eta import Observation
from launch.local.process import Job, refuse_keys_of
from launch.local.progress import Progress
from launch.local.run import Outcome, run_jobs
from launch.slurm.commands import SlurmError
from launch.slurm.watch import run_in_queue


def run_on(
    cluster: ClusterConfig,
    title: str,
    jobs: Sequence[Job],
    on_progress: Callable[[Progress], None] | None = None,
    seen: list[Observation] | None = None,
) -> list[Outcome]:
    """Run jobs to their end and return their outcomes, in the same order.

    title: names the jobs in a queue. seen: what earlier jobs took here, for the ETA; what these
    take is added. Raises ValueError for jobs or clusters that cannot work, and
    for jobs that hold a key.
    """
    if cluster.kind is ClusterKind.slurm:
        try:
            return run_in_queue(title, jobs, cluster, on_progress)
        except SlurmError as error:
            raise ValueError(
                f"cluster.kind=slurm: {error}. Try again: what was submitted is found."
            ) from error
    refuse_keys_of(jobs, os.environ)
    return run_jobs(
        jobs,
        cluster.slots,
        on_progress,
        threads_per_process=cluster.threads_per_process,
        grace_seconds=cluster.grace_seconds,
        retries=cluster.retries,
        seen=seen,
    )
