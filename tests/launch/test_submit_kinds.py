"""Runs of every kind are queued by the same command, which the frozen config dispatches."""

from pathlib import Path

import pytest

from launch.submit import find_jobs, main
from tests.trainer.conftest import write_latents
from trainer.config import RunKind
from trainer.kinds import kind_in

EXPERIMENTS = {
    "vae_tiny": RunKind.codec,
    "captioner_tiny": RunKind.captioner,
    "perceptual_tiny": RunKind.perceptual,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"data.root={write_latents(tmp_path_factory.mktemp('blobs'))}"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_small_network_is_queued_like_a_transformer(
    experiment: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"experiment={experiment}", data, f"run_root={tmp_path}"]
    assert main(["cluster=slurm", "dry=true", *words]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash")
    (job,) = find_jobs(words)
    assert kind_in(job.run_dir) is EXPERIMENTS[experiment]
    assert job.argv[-3:] == ["trainer.train", "--run", str(job.run_dir)]
    assert job.run_dir.name in script
    (again,) = find_jobs([str(tmp_path)])  # the frozen folder starts the same way
    assert again.argv == job.argv


def test_a_compression_network_on_two_processes_is_started_as_two(
    data: str, tmp_path: Path
) -> None:
    words = ["experiment=vae_smoke", data, "parallel.processes=2", f"run_root={tmp_path}"]
    (job,) = find_jobs(words)
    assert job.num_processes == 2
    assert "--nproc_per_node" in job.argv
