"""Ranks that share a pack train on the same samples, whatever one of them alone could not read."""

import os
import shutil
from pathlib import Path

import pytest

from trainer.config import RunConfig
from trainer.diffusion.attempt import train_run
from trainer.run.metrics import read_metrics

from ..conftest import compose_smoke, damage, read_json, write_latents
from .worlds import run_world

pytestmark = pytest.mark.dist
AXES = ["cp", "tp", "pp"]
FIELDS = ("train_loss", "grad_norm", "loss", "tokens", "flops")


def compose(root: Path, *overrides: str) -> RunConfig:
    """Compose three steps of a run that drops what it cannot read."""
    return compose_smoke(
        root,
        "horizon.steps=3",
        "data.on_bad_sample=drop",
        "data.pack_tokens=256",
        "data.packs_per_step=4",
        "model.depth=4",
        "validation.curve_points=0",
        *overrides,
    )


def train_apart(axes: list[str], roots: list[Path], folder: Path) -> None:
    """As one rank: train under layouts one after another, on a copy of the data of its own."""
    root = roots[int(os.environ["RANK"])]
    for axis in axes:
        assert train_run(
            compose(root, "parallel.processes=2", f"parallel.{axis}=2"),
            folder / axis,
            lambda: False,
        )


def train_alone(root: Path, folder: Path) -> None:
    """Train in one process."""
    assert train_run(compose(root), folder / "alone", lambda: False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return the folder of runs whose second rank read damaged copies, and the damaged keys."""
    root = tmp_path_factory.mktemp("peers")
    whole = write_latents(root / "whole")
    keys = damage(shutil.copytree(whole, root / "damaged"), range(0, 60, 7))
    for name in (*AXES, "alone"):
        (root / name).mkdir()
    job = "tests.trainer.parallel.test_peers:train_"
    run_world(1, job + "alone", root / "damaged", root)
    run_world(2, job + "apart", AXES, [whole, root / "damaged"], root)
    return root, keys


@pytest.mark.parametrize("axis", AXES)
def test_what_one_peer_lost_no_peer_trains_on(trained: tuple[Path, list[str]], axis: str) -> None:
    root, keys = trained
    rows, alone = (read_metrics(root / name / "metrics.jsonl") for name in (axis, "alone"))
    assert len([row for row in alone if "train_loss" in row]) == 3
    for row, expected in zip(rows, alone, strict=True):
        told = [{k: r[k] for k in FIELDS if k in r} for r in (row, expected)]
        assert told[0] == pytest.approx(told[1], rel=1e-5)
    results = [read_json(root / name / "result.json") for name in (axis, "alone")]
    assert results[0]["flops"] == results[1]["flops"]
    said, expected = ((root / name / "events.jsonl").read_text() for name in (axis, "alone"))
    assert said == expected
    assert '"event": "dropped"' in said
    assert any(key in said for key in keys)
