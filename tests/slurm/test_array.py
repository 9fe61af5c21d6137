"""A dataset built by an array of the queue, also where a node dies under it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.dataset.shards import read_index, read_payload

from .cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
SITE = ["cluster=slurm", "cluster.poll_seconds=0.5", "cluster.slurm.processes_per_node=1"]
FILMED = ["preset=tiny", "num_train_clips=3000", "num_val_clips=500", "ingest.shard_bytes=4000000"]


def films(root: Path, *more: str) -> list[str]:
    """Return the command that films tiny worlds."""
    return [sys.executable, "-m", "kinescale", "worlds", f"root={root}", *FILMED, *more]


def run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_array_films_the_dataset_of_one_machine(idle: Cluster, tmp_path: Path) -> None:
    run(films(tmp_path / "one"))
    run(films(tmp_path / "out", "ingest.engine=slurm", "tasks=4", *SITE))
    one, out = (
        {str(p.relative_to(root)): p.read_bytes() for p in root.glob("*/*") if p.is_file()}
        for root in (tmp_path / "one" / "video", tmp_path / "out" / "video")
    )
    assert one == out
    assert len([name for name in out if name.endswith(".tar")]) > 4


def test_a_node_that_dies_loses_and_doubles_nothing(idle: Cluster, tmp_path: Path) -> None:
    command = films(tmp_path / "out", "ingest.engine=slurm", "tasks=4", *SITE)
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    jobs = tmp_path / ".out.jobs" / "worlds"
    deadline = time.monotonic() + 300
    while not list(jobs.glob("*/launches.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.2)
    idle.cut("n1")  # what ran there goes on, and another node builds the same parts
    time.sleep(20)
    idle.heal("n1")
    assert child.wait(1200) == 0
    root = tmp_path / "out" / "video"
    infos = {split: read_index(root, split) for split in ("train", "val_worlds")}
    assert [len(found) for found in infos.values()] == [3000, 500]
    for split, found in infos.items():
        assert len({info.key for info in found}) == len(found)
        assert all(read_payload(root, split, info) for info in found)
