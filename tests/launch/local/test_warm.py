"""launch.local.warm with real runs: what is forked from a warm process is a run like any other."""

import json
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from launch.local.process import LOG_FILE, TAG, WARM, carries, environment
from launch.local.run import Job, Outcome, Progress, Status, run_jobs
from launch.local.warm import WarmStarter
from launch.run_folder.records import read_launches
from tests.trainer.conftest import compose_smoke, write_latents
from trainer.identity import freeze
from trainer.kinds import start_command
from trainer.run.start import warm_folder

pytestmark = pytest.mark.dist


def make_jobs(folder: Path, names: list[str]) -> list[Job]:
    """Freeze equal runs; the one of the first name is the costliest, and so starts first."""
    run, jobs = compose_smoke(write_latents(folder / "clips")), []
    for number, name in enumerate(names):
        place = folder / name
        freeze(replace(run, name=name), place)
        command = start_command(run, place)
        jobs.append(Job(name, place, command, 1, 1.0 - number / 10, place / "result.json"))
    return jobs


@dataclass
class Launch:
    """Jobs and how they ended; the number of the run that was killed, and whose log it wrote."""

    jobs: list[Job]
    outcomes: list[Outcome]
    killed: int
    seen: dict[str, bool]


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Run one job by its command, then two forked, of which the last is killed."""
    folder = tmp_path_factory.mktemp("warm")
    jobs = make_jobs(folder, ["alone", "forked", "killed"])
    killed: list[int] = []
    seen: dict[str, bool] = {}

    def watch(progress: Progress) -> None:
        starts = read_launches(jobs[2].run_dir)
        if killed or not starts or starts[-1]["event"] != "start":
            return
        process = psutil.Process(starts[-1]["pid"])
        if (jobs[2].run_dir / "attempt.json").exists():
            seen["warm"] = process.environ().get(TAG) == WARM
            seen["own"] = carries(process, str(jobs[2].run_dir.resolve()))
            seen["other"] = carries(process, str(jobs[1].run_dir.resolve()))
            seen["leads"] = os.getsid(process.pid) == process.pid
            killed.append(process.pid)
            process.kill()

    outcomes = run_jobs(jobs, 1, watch, poll_seconds=0.02)
    return Launch(jobs, outcomes, killed[0], seen)


def test_a_forked_run_ends_bitwise_as_one_that_was_started_alone(launch: Launch) -> None:
    results = [json.loads((job.run_dir / "result.json").read_text()) for job in launch.jobs]
    assert len({(r["loss"], r["flops"], r["tokens"]) for r in results}) == 1
    assert [outcome.status for outcome in launch.outcomes] == [Status.done] * 3
    logs = [(job.run_dir / LOG_FILE).read_text() for job in launch.jobs]
    assert all("(noise draws)" in log for log in logs)  # a fork writes to its own


def test_a_forked_run_that_dies_takes_nobody_along_and_starts_again(launch: Launch) -> None:
    assert [outcome.attempts for outcome in launch.outcomes] == [1, 1, 2]
    ends = [r for r in read_launches(launch.jobs[2].run_dir) if r["event"] == "end"]
    assert ends[0]["reason"] == f"killed by {signal.Signals.SIGKILL.name}"


def test_a_forked_run_is_known_by_the_log_that_it_writes(launch: Launch) -> None:
    assert launch.seen == {"warm": True, "own": True, "other": False, "leads": True}
    assert not psutil.pid_exists(launch.killed)


def test_a_starter_that_is_gone_forks_nothing(tmp_path: Path) -> None:
    starter = WarmStarter({}, 1)
    starter.close()
    assert starter.fork(tmp_path, tmp_path / LOG_FILE, environment({}, 1, str(tmp_path))) is None


def test_only_a_run_of_one_process_on_cpu_may_be_forked(tmp_path: Path) -> None:
    (job,) = make_jobs(tmp_path, ["run"])
    assert warm_folder(job.argv) == job.run_dir
    config = job.run_dir / "config.yaml"
    config.write_text(config.read_text().replace("device: cpu", "device: auto"))
    assert warm_folder(job.argv) is None
    assert warm_folder([*job.argv, "more"]) is None
    assert warm_folder(["python", "-c", "pass"]) is None
