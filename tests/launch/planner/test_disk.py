"""Bytes on disk, against a checkpoint that was written."""

import pytest
import torch

from launch.planner.disk import Disk, run_disk, study_disk
from models.dit.model import DiT
from trainer.checkpoint.write import CheckpointWriter
from trainer.config import compose_run
from trainer.layout.plan import Fragment
from trainer.parallel.mesh import alone

KINDS = ("param", "exp_avg", "exp_avg_sq", "ema")


def test_a_checkpoint_is_as_large_as_planned(tmp_path):
    run = compose_run(["model=w128d5", "horizon.steps=10"])
    model = DiT(run.model)
    fragments = [
        Fragment(name, 0, {kind: torch.randn(p.numel()) for kind in KINDS})
        for name, p in model.named_parameters()
    ]
    writer = CheckpointWriter(tmp_path, alone(), 2, background=False)
    for step in (1, 2, 3):
        writer.save(step, fragments, {"progress": {"step": step}})
        writer.wait()
    planned = run_disk(run, 10, 1.0)
    sizes = [sum(f.stat().st_size for f in folder.iterdir()) for folder in tmp_path.glob("step-*")]
    assert len(sizes) == planned.kept == run.checkpoint.keep
    assert planned.checkpoint == pytest.approx(sizes[0], rel=0.02)


def test_a_run_holds_those_it_keeps_and_the_one_it_writes():
    run = compose_run(
        ["model=w64d2", "horizon.steps=10", "checkpoint.keep=3", "checkpoint.seconds=10"]
    )
    disk = run_disk(run, steps=1000, seconds=100.0)
    assert disk.peak - disk.final == disk.checkpoint
    assert disk.saves == 11
    assert disk.final == 3 * disk.checkpoint + disk.logs


def test_a_study_holds_all_its_runs_and_writes_as_many_as_run_at_once():
    runs = [Disk(checkpoint=size, kept=1, logs=1.0, saves=2) for size in (10.0, 30.0, 20.0)]
    peak, final = study_disk(runs, at_once=2)
    assert final == 63.0
    assert peak == 63.0 + 30.0 + 20.0
