"""Submission, arrays, preemption, chains and cancelling on a real scheduler, with stand-ins.

What runs here counts or sleeps: the queue is tested, not the training. test_faults.py trains.
"""

import concurrent.futures
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from launch.cancel import cancel_runs
from launch.dispatch import run_on
from launch.local.run import Status
from launch.run_folder.records import read_launches
from launch.run_folder.runs import RunFolder
from launch.slurm import commands
from launch.slurm.submit import entries_of, submit_jobs
from launch.slurm_config import TimeLimitPolicy
from launch.status import format_table, read_states
from sweeps.study.phases import launch_phase

from .cluster import Cluster, wait_until
from .programs import COUNTER, SHORT, counts, make_job, site

pytestmark = pytest.mark.slurm
SECONDS = 240.0  # the machine may be busy; an idle one needs a tenth of it


def outcomes_of(folder: Path) -> list[str]:
    """Return how the attempts at a run ended."""
    return [r["outcome"] for r in read_launches(folder) if r["event"] == "end"]


def spans_of(jobs) -> list[tuple[float, float]]:
    """Return when each run was doing its work."""
    lines = [line.split() for j in jobs for line in (j.run_dir / "spans").read_text().splitlines()]
    return [(float(begun), float(ended)) for begun, ended, _ in lines]


def test_a_study_of_twenty_runs_is_one_array_and_its_throttle_holds(
    idle: Cluster, tmp_path: Path
) -> None:
    jobs = [make_job(tmp_path, f"run-{i:02d}", SHORT, seconds=0.5) for i in range(20)]
    found = launch_phase("a study; $(id)", jobs, site(array_throttle=4))
    assert {outcome.status for outcome in found} == {Status.done}
    assert len(list((tmp_path / ".slurm").glob("ks-*/job.sh"))) == 1
    spans = spans_of(jobs)
    assert len(spans) == 20
    most = max(sum(begun <= moment < ended for begun, ended in spans) for moment, _ in spans)
    assert 1 <= most <= 4
    again = launch_phase("a study; $(id)", jobs, site(array_throttle=4))
    assert {outcome.status for outcome in again} == {Status.skipped}
    assert len(spans_of(jobs)) == 20


def test_preempted_runs_save_are_queued_again_and_go_on_where_they_were(
    idle: Cluster, tmp_path: Path
) -> None:
    job = make_job(tmp_path, "run", COUNTER, processes=2, total=100)
    submit_jobs("run", [job], site("spot"))
    wait_until(lambda: len(counts(job.run_dir)) > 10, SECONDS)
    idle("sbatch", "--partition=main", "--nodes=4", "--exclusive", "--output=/dev/null",
         "--wrap=sleep 2")  # fmt: skip
    wait_until(job.done_marker.exists, SECONDS)
    wait_until(lambda: len(outcomes_of(job.run_dir)) == 2, SECONDS)
    assert outcomes_of(job.run_dir) == ["stopped", "done"]
    assert read_launches(job.run_dir)[1]["reason"] == "preempted"
    seen = Counter(counts(job.run_dir))
    assert set(seen) == set(range(1, 101))
    # Both ranks count into one file, from one checkpoint: what one saved later, the other repeats.
    assert max(seen.values()) <= 4


def test_a_failed_run_starts_again_at_once_and_gives_up_in_the_end_unless_it_is_wrong(
    idle: Cluster, tmp_path: Path
) -> None:
    bad = make_job(tmp_path, "bad", "import sys; sys.exit(3)")
    good = make_job(tmp_path, "good", SHORT, seconds=0.0)
    wrong = make_job(tmp_path, "wrong", "import sys; sys.exit(2)")
    found = run_on(site(retries=1, backoff_seconds=0.1), "x", [bad, good, wrong])
    statuses = [outcome.status for outcome in found]
    assert statuses == [Status.failed, Status.done, Status.failed]
    assert (found[2].attempts, "must be mended" in found[2].reason) == (1, True)
    assert "srun ended with 3" in found[0].reason
    assert found[0].attempts == 2
    ends = [r["next"] for r in read_launches(bad.run_dir) if r["event"] == "end"]
    assert ends == ["restart", "give up"]


def test_cancelled_runs_save_leave_and_stay_away_until_submitted_again(
    idle: Cluster, tmp_path: Path
) -> None:
    jobs = [make_job(tmp_path, f"run-{i}", COUNTER, total=2000) for i in range(2)]
    submit_jobs("x", jobs, site(array_throttle=1))
    wait_until(lambda: len(counts(jobs[0].run_dir)) > 5, SECONDS)
    told, ended = cancel_runs([RunFolder(j.name, j.run_dir) for j in jobs], now=False)
    assert (len(told), len(ended)) == (1, 1)
    wait_until(lambda: not commands.queue(), SECONDS)
    assert outcomes_of(jobs[0].run_dir) == ["cancelled"]
    assert (jobs[0].run_dir / "stopped.json").exists()
    assert not (jobs[1].run_dir / "ready").exists()
    for job in jobs:
        (job.run_dir / "config.yaml").touch()
    states = read_states([tmp_path], 0.0)
    assert [state.state for state in states] == ["cancelled", "cancelled"]
    last = counts(jobs[0].run_dir)[-1]
    submit_jobs("x", jobs[:1], site())
    wait_until(lambda: counts(jobs[0].run_dir)[-1] > last, SECONDS)
    assert last + 1 in counts(jobs[0].run_dir)
    assert "running" in format_table(read_states([jobs[0].run_dir], 0.0))
    cancel_runs([RunFolder(jobs[0].name, jobs[0].run_dir)], now=True)
    wait_until(lambda: not commands.queue(), SECONDS)


def test_a_scheduler_that_dies_and_comes_back_costs_nothing(idle: Cluster, tmp_path: Path) -> None:
    job = make_job(tmp_path, "run", COUNTER, total=120)
    submit_jobs("x", [job], site())
    wait_until(lambda: len(counts(job.run_dir)) > 3, SECONDS)
    # A job whose start was not saved yet is one that waits, to the controller that comes back.
    idle.wait_saved(read_launches(job.run_dir)[0]["time"])
    idle.kill_controller()
    wait_until(job.done_marker.exists, SECONDS)  # it ends while the controller is away
    idle.start_controller()
    wait_until(lambda: not commands.queue(), SECONDS)
    assert outcomes_of(job.run_dir) == ["done"]
    assert counts(job.run_dir) == list(range(1, 121))


SUBMITTER = """
import sys
from pathlib import Path
from launch.local.process import Job
from launch.slurm.submit import submit_jobs
from tests.slurm.programs import SHORT, make_job, site
for i in range(int(sys.argv[2]), int(sys.argv[3])):
    job = make_job(Path(sys.argv[1]), f'run-{i:03d}', SHORT, seconds=0.0)
    submit_jobs(job.name, [job], site('shut'))
    print(i, flush=True)
"""


def start_submitter(root: Path, first: int, last: int) -> subprocess.Popen[str]:
    """Start a process that submits some runs, each by itself, to a partition that is shut."""
    words = [sys.executable, "-c", SUBMITTER, str(root), str(first), str(last)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


@pytest.mark.slow
def test_of_two_hundred_submissions_none_is_lost_or_doubled(idle: Cluster, tmp_path: Path) -> None:
    # Four submitters of overlapping runs at once; two are killed on the way, the controller too.
    parts = [(0, 60), (40, 100), (0, 100), (100, 200)]
    submitters = [start_submitter(tmp_path, *part) for part in parts]
    for process, lines in zip(submitters[:2], (5, 9), strict=True):
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        if process is submitters[0]:
            idle.kill_controller()
            idle.start_controller()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for process in submitters:
            pool.submit(process.communicate)
    assert [process.returncode for process in submitters[2:]] == [0, 0]
    jobs = [make_job(tmp_path, f"run-{i:03d}", SHORT, seconds=0.0) for i in range(200)]
    # All of them again: what a killed controller had acknowledged and not yet written is found
    # missing and submitted once more; the rest is found in the queue.
    again = submit_jobs("all", jobs, site("shut"))
    assert sum(found.fresh for found in again) < 20
    entries = commands.queue()
    assert len(entries) == 200
    assert all(len(entries_of(job.run_dir, entries)) == 1 for job in jobs)
    assert not any(found.fresh for found in submit_jobs("all", jobs, site("shut")))
    assert commands.queue() == entries
    cancel_runs([RunFolder(j.name, j.run_dir) for j in jobs], now=True)
    wait_until(lambda: not commands.queue(), SECONDS)


@pytest.mark.slow
def test_a_run_goes_through_its_time_limits_by_a_chain(idle: Cluster, tmp_path: Path) -> None:
    job = make_job(tmp_path, "run", COUNTER, total=900)  # 90 s at the least, in jobs of a minute
    chain = {"minutes": 1, "signal_seconds": 20, "chain_length": 4}
    found = run_on(site(on_time_limit=TimeLimitPolicy.chain, **chain), "x", [job])
    assert found[0].status is Status.done, found
    wait_until(lambda: not commands.queue(), SECONDS)
    ends = outcomes_of(job.run_dir)
    assert ends[-1] == "done"
    assert set(ends[:-1]) == {"stopped"}
    assert 2 <= len(ends) <= 4
    assert counts(job.run_dir) == list(range(1, 901))
