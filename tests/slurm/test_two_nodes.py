"""A run over two nodes with two ranks each, started by srun and by torchrun."""

from pathlib import Path

import pytest

from launch.dispatch import run_on
from launch.local.run import Status
from launch.run_folder.records import read_launches
from launch.slurm_config import Starter
from trainer.run.metrics import read_metrics

from .cluster import Cluster
from .programs import site
from .trainings import make_training

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
STEPS = 20


@pytest.fixture(scope="module")
def short(cluster: Cluster, latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a short run on two nodes."""
    job = make_training(latents, tmp_path_factory.mktemp("short"), f"horizon.steps={STEPS}")
    (outcome,) = run_on(site(), "short", [job])
    assert outcome.status is Status.done, outcome
    return job.run_dir


@pytest.mark.parametrize("starter", list(Starter))
def test_a_layout_of_two_nodes_with_two_ranks_each_computes_what_two_ranks_do(
    idle: Cluster, latents: Path, tmp_path: Path, short: Path, starter: Starter
) -> None:
    four = ["parallel.processes=4", "parallel.tp=2", f"horizon.steps={STEPS}"]
    job = make_training(latents, tmp_path, *four)
    (outcome,) = run_on(site(processes_per_node=2, starter=starter), "2 x 2", [job])
    assert outcome.status is Status.done, outcome
    (launch, *_) = read_launches(job.run_dir)
    assert launch["processes"] == 4
    losses = [
        [r["train_loss"] for r in read_metrics(f / "metrics.jsonl") if "train_loss" in r]
        for f in (job.run_dir, short)
    ]
    assert len(losses[0]) == STEPS
    # The layout is invisible up to rounding; over so many updates rounding grows.
    assert losses[0][:5] == pytest.approx(losses[1][:5], rel=1e-5)
