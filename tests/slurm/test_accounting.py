"""launch.status with SLURM's accounting: a real database tells how runs ended that left no word."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cluster import ACCOUNTING_PROGRAMS, Cluster, wait_until, why_not

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
