"""With SLURM's accounting, a real database: how silent runs ended, and limits of jobs."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.dispatch import run_on
from launch.local.run import Status

from .cluster import ACCOUNTING_PROGRAMS, Cluster, wait_until, why_not
from .programs import SHORT, make_job, site

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def accounted() -> Iterator[Cluster]:
    """Return a cluster of two nodes that keeps accounts."""
    if reason := why_not():
        pytest.skip(reason)
    if missing := [name for name in ACCOUNTING_PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(missing)} is missing: apt-get install mariadb-server slurmdbd")
    root = Path(tempfile.mkdtemp(prefix="kinescale-accounts-"))
    root.chmod(0o755)
    found = Cluster(root / "lab", nodes=2, accounting=True)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(root, ignore_errors=True)


def submit(cluster: Cluster, root: Path, name: str, *lines: str, log: str = "/dev/null") -> Path:
    """Submit a script as a run whose folder will stay silent; return the folder."""
    folder, script = root / name, root / f"{name}.sh"
    (folder / "submission").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: {name}\n")
    script.write_text("\n".join(("#!/bin/sh", *lines, "")))
    job = cluster("sbatch", "--parsable", f"--output={log}", f"--chdir={root}", str(script)).strip()
    (folder / "submission" / "job.json").write_text(json.dumps({"ids": [job], "job_name": "sh"}))
    about = {"job_name": "no-such-name", "index": 0, "folder": str(folder / "submission")}
    (folder / "submission.json").write_text(json.dumps(about))
    return folder


def status(cluster: Cluster, root: Path) -> dict[str, dict]:
    """Return what the command says of every run."""
    done = subprocess.run(
        [sys.executable, "-m", "launch.status", str(root), "--json"],
        env=cluster.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {state["name"]: state for state in json.loads(done.stdout)}


def test_accounting_tells_how_silent_runs_ended(accounted: Cluster, tmp_path: Path) -> None:
    submit(accounted, tmp_path, "exits", "exit 7")
    submit(accounted, tmp_path, "killed", "kill -9 $$")
    submit(accounted, tmp_path, "nowhere", "true", log="/no/such/folder/log")
    cancelled = submit(accounted, tmp_path, "cancelled", "sleep 600")
    job = json.loads((cancelled / "submission" / "job.json").read_text())["ids"][0]
    wait_until(lambda: "RUNNING" in accounted("squeue", "-h", "-j", job, "-o", "%T"), 60)
    accounted("scancel", job)

    wanted = {
        "exits": ("failed", "exit status 7 on n"),
        "killed": ("failed", "signal 9 ended it on n"),
        "nowhere": ("failed", "its node could not open its folder or its log (signal 53) on n"),
        "cancelled": ("cancelled", "it was cancelled with scancel on n"),
    }

    def told() -> bool:
        found = status(accounted, tmp_path)
        return all(
            found[name]["state"] == state and found[name]["reason"].startswith(words)
            for name, (state, words) in wanted.items()
        )

    # The controller sends its accounts in the background.
    try:
        wait_until(told, 60, "accounts")
    except AssertionError:
        assert status(accounted, tmp_path) == wanted  # so that the difference is shown


SUBMIT = """
import sys
from pathlib import Path
from data.shell import command
from launch.submit import _submit
from tests.slurm.programs import SHORT, make_job, site

@command("submit.", kept="the same command submits the rest", needs_words=False)
def main(words):
    root = Path(sys.argv[1])
    jobs = [make_job(root, f"run-{i:02d}", SHORT, seconds=0.0) for i in range(12)]
    return _submit("x", jobs, site(sys.argv[2]))

main.run([])
"""


def start_submitting(cluster: Cluster, root: Path, partition: str) -> subprocess.Popen[str]:
    """Start a process that submits twelve runs."""
    words = [sys.executable, "-c", SUBMIT, str(root), partition]
    return subprocess.Popen(
        words, env=cluster.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def num_queued(cluster: Cluster) -> int:
    """Return how many runs are in the queue."""
    return len(cluster("squeue", "-h", "-r").splitlines())


def test_runs_beyond_the_limit_of_jobs_wait_and_follow_and_a_stop_between_costs_nothing(
    accounted: Cluster, tmp_path: Path
) -> None:
    change = ("sacctmgr", "--immediate", "modify", "user", "root", "set")
    accounted(*change, "MaxSubmitJobs=5")
    try:
        first = start_submitting(accounted, tmp_path, "shut")
        assert first.stderr is not None
        waits = "7 runs wait for room in the queue (sbatch says AssocMaxSubmitJobLimit)"
        assert waits in first.stderr.readline()
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=60)
        assert first.returncode == 130
        assert "the same command submits the rest" in said
        assert num_queued(accounted) == 5
        # Nothing is left of what was refused, so that nobody takes it for submitted.
        folders = list((tmp_path / ".slurm").glob("ks-*"))
        assert all((folder / "job.json").exists() for folder in folders)
        assert len(list(tmp_path.glob("run-*/submission.json"))) == 5

        accounted("scontrol", "update", "PartitionName=shut", "State=UP")
        second = start_submitting(accounted, tmp_path, "shut")
        told, said = second.communicate(timeout=180)
        assert second.returncode == 0, said
        assert "7 of 12 runs submitted" in told
        wait_until(lambda: len(list(tmp_path.glob("run-*/result.json"))) == 12, 120)
        spans = [path.read_text().splitlines() for path in tmp_path.glob("run-*/spans")]
        assert [len(lines) for lines in spans] == [1] * 12
    finally:
        accounted(*change, "MaxSubmitJobs=-1")
        accounted("scontrol", "update", "PartitionName=shut", "State=DOWN")


def test_a_study_waits_for_room_too(
    accounted: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", accounted.env["SLURM_CONF"])
    change = ("sacctmgr", "--immediate", "modify", "user", "root", "set")
    accounted(*change, "MaxSubmitJobs=2")
    told: list[str] = []
    try:
        jobs = [make_job(tmp_path, f"run-{i}", SHORT, seconds=0.0) for i in range(3)]
        found = run_on(site(), "x", jobs, lambda progress: told.append(progress.message))
    finally:
        accounted(*change, "MaxSubmitJobs=-1")
    assert [outcome.status for outcome in found] == [Status.done] * 3
    assert sum("1 run waits for room in the queue" in line for line in told) == 1
