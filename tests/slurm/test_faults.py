"""Training on a real scheduler: faults are injected into real runs, which must end as their twin.

The cluster's nodes share one kernel and one file system, which a real site's do not: a cut node's
orphan can still write here, which is the harder case. A start-up takes seconds of two shared cores.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.dispatch import run_on
from launch.local.process import Job
from launch.local.run import Status
from launch.run_folder.records import read_launches
from launch.slurm.submit import submit_jobs
from trainer.run.heartbeat import read_heartbeats
from trainer.run.metrics import read_metrics

from ..trainer.faults.runs import assert_twins, lost_samples
from .cluster import Cluster, wait_until
from .faults import Fault, seconds_lost
from .programs import site
from .trainings import make_training

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
SECONDS = 600.0  # the machine may be busy
Note = Callable[[Fault], None]


@pytest.fixture(scope="module")
def twin(cluster: Cluster, latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run on two nodes that nothing disturbed."""
    job = make_training(latents, tmp_path_factory.mktemp("twin"))
    (outcome,) = run_on(site(), "twin", [job])
    assert outcome.status is Status.done, outcome
    return job.run_dir


def reach(job: Job, step: int, attempt: int = 1) -> None:
    """Wait until the newest attempt logs a step."""

    def is_there() -> bool:
        steps = [r["step"] for r in read_metrics(job.run_dir / "metrics.jsonl")]
        starts = sum(r["event"] == "start" for r in read_launches(job.run_dir))
        return starts >= attempt and max(steps, default=0) >= step

    wait_until(is_there, SECONDS, f"step {step}")


def finish(job: Job, twin: Path, name: str, note: Note, attempts: int = 2) -> None:
    """Wait for the end of a run that suffered; compare it with its twin and note the cost.

    attempts: how many it must have taken; 0: any number.
    """
    wait_until(job.done_marker.exists, SECONDS, name)

    def has_ended() -> bool:
        records = read_launches(job.run_dir)
        return records[-1]["event"] == "end" and records[-1]["outcome"] == "done"

    wait_until(has_ended, SECONDS, name)
    starts = [r for r in read_launches(job.run_dir) if r["event"] == "start"]
    assert attempts in (0, len(starts)), read_launches(job.run_dir)
    assert_twins(job.run_dir, twin)
    lost = lost_samples(job.run_dir, twin)
    assert lost == 0
    fault = Fault(name, "bitwise as undisturbed", seconds_lost(job.run_dir), lost)
    note(fault)


@pytest.mark.parametrize("when", ["training", "a save"])
def test_a_cut_link_costs_a_requeue_and_the_orphan_writes_nothing_more(
    idle: Cluster, latents: Path, tmp_path: Path, twin: Path, note_fault: Note, when: str
) -> None:
    # The batch host: with it the supervisor, the main rank and the lease are on the wrong side.
    job = make_training(latents, tmp_path, *(["checkpoint.steps=1"] if when == "a save" else []))
    submit_jobs("run", [job], site())
    reach(job, 15)
    idle.cut("n1")
    reach(job, 20, attempt=2)
    finish(job, twin, f"cut link during {when}", note_fault)
    last = read_launches(job.run_dir)
    files = contents(job.run_dir)
    idle.heal("n1")
    idle.wait_idle(120)  # by now its daemon has ended what was left of the job
    assert read_launches(job.run_dir) == last
    assert contents(job.run_dir) == files


def test_a_dead_node_costs_a_requeue(
    idle: Cluster, latents: Path, tmp_path: Path, twin: Path, note_fault: Note
) -> None:
    job = make_training(latents, tmp_path)
    submit_jobs("run", [job], site())
    reach(job, 15)
    (rank,) = [sign for sign in read_heartbeats(job.run_dir) if sign["rank"] == 1]
    idle.kill_daemon(rank["host"])
    os.kill(rank["pid"], signal.SIGSTOP)  # its daemon's death alone would not stop it
    finish(job, twin, "kill -9 of a node's daemon", note_fault)
    assert "n2" not in read_launches(job.run_dir)[-1].get("nodes", "")
    os.kill(rank["pid"], signal.SIGKILL)


def test_preemption_saves_requeues_and_resumes_bitwise(
    idle: Cluster, latents: Path, tmp_path: Path, twin: Path, note_fault: Note
) -> None:
    job = make_training(latents, tmp_path)
    submit_jobs("run", [job], site("spot"))
    reach(job, 25)
    idle("sbatch", "--partition=main", "--nodes=4", "--exclusive", "--output=/dev/null",
         "--wrap=sleep 1")  # fmt: skip
    finish(job, twin, "preemption", note_fault)
    assert read_launches(job.run_dir)[1]["reason"] == "preempted"
    # It saved when told to: no step was done twice.
    assert seconds_lost(job.run_dir)["repeat"] == 0.0


def test_a_full_disk_costs_a_retry(
    idle: Cluster, latents: Path, twin: Path, note_fault: Note
) -> None:
    if idle.no_small_disk:
        pytest.skip(f"a small file system cannot be mounted here: {idle.no_small_disk}")
    disk = idle.small_disk
    job = make_training(latents, disk)
    submit_jobs("run", [job], site())
    reach(job, 15)
    filler = disk / "filler"
    fill(filler)
    # launches.jsonl is on that disk too: the job's second step tells that the first failed.
    steps = ("squeue", "--steps", "--noheader", "--format=%i")
    wait_until(lambda: ".1" in idle(*steps, check=False), SECONDS, "a second attempt")
    filler.unlink()
    finish(job, twin, "full disk", note_fault, attempts=0)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what a run's files look like, but for signs of life and logs."""
    loose = ("heartbeats", "timeline", "log.txt")
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in loose
    }
