"""Runs on their way into a queue that has no room for all of them now (MaxSubmitJobs and such)."""

import time
from collections.abc import Sequence

from data.words import counted
from launch.config import ClusterConfig
from launch.local.process import Job
from launch.slurm.submit import Submitted, submit_jobs

# After a refusal, kind to the controller.
_PAUSE_SECONDS = 10.0


class Submission:
    """Submit runs as the queue takes them; what is written is in their folders alone.

    So whoever is stopped and started again goes on: a run in the queue is found there.
    """

    def __init__(self, title: str, jobs: Sequence[Job], cluster: ClusterConfig) -> None:
        self._title, self._cluster = title, cluster
        self._waiting = sorted(jobs, key=lambda job: -job.cost)
        self._most, self._not_before = len(jobs), 0.0
        self.waits = ""

    @property
    def num_waiting(self) -> int:
        """How many runs the queue has had no room for."""
        return len(self._waiting)

    def advance(self) -> list[Submitted]:
        """Submit what fits, if it is time to try; return what is in the queue, or done, since.

        Never more than a few in vain: one at first, then twice as many each time. Raises as
        submit_jobs does.
        """
        if not self._waiting or time.monotonic() < self._not_before:
            return []
        tried = self._waiting[: self._most]
        found = submit_jobs(self._title, tried, self._cluster)
        left = {submitted.run_dir: submitted.waits for submitted in found if submitted.waits}
        refused = [job for job in tried if job.run_dir.resolve() in left]
        self.waits = next(iter(left.values()), self.waits)
        self._most = 1 if refused else 2 * self._most
        self._not_before = time.monotonic() + _PAUSE_SECONDS if refused else 0.0
        self._waiting = refused + self._waiting[len(tried) :]
        return [submitted for submitted in found if not submitted.waits]

    def describe(self) -> str:
        """Return a line on what waits, '' where nothing does."""
        if not self._waiting:
            return ""
        wait = "waits" if len(self._waiting) == 1 else "wait"
        return (
            f"{counted(len(self._waiting), 'run')} {wait} for room in the queue ({self.waits}), "
            "nobody can say for how long. Ctrl-C is safe: the same command submits the rest."
        )
