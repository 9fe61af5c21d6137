"""Of the ranks that share packs one reads: the others open no shard and train on what it got."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import trainer.parallel.mesh
from data.dataset.remote import FetchError
from data.dataset.shards import read_index
from data.decode.pool import DecodeError
from data.loading.loader import Loader, load_fixed
from trainer.config import RunConfig
from trainer.diffusion.attempt import train_run
from trainer.parallel.mesh import start_mesh, stop_mesh
from trainer.run.metrics import read_metrics

from ..conftest import compose_smoke, damage, read_json, write_latents
from .worlds import run_world

pytestmark = pytest.mark.dist
AXES = ["cp", "tp", "pp"]
FIELDS = ("train_loss", "grad_norm", "loss", "tokens", "flops")
JOB = "tests.trainer.parallel.test_peers:"


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


def train_two(root: Path, folder: Path, prefix: str) -> None:
    """As one rank of two: train under layouts one after another."""
    for axis in AXES:
        run = compose(root, "parallel.processes=2", f"parallel.{axis}=2")
        assert train_run(run, folder / f"{prefix}{axis}", lambda: False)


def train_apart(roots: list[Path], folder: Path) -> None:
    """As one rank: train on a copy of the data of its own, and count the shards it opens."""
    rank, opened = int(os.environ["RANK"]), []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(".tar"):
            opened.append(str(arguments[0]))

    sys.addaudithook(note)
    train_two(roots[rank], folder, "")
    (folder / f"opened-{rank}.txt").write_text("\n".join(opened))


def train_alone(root: Path, folder: Path) -> None:
    """Train in one process."""
    assert train_run(compose(root), folder / "alone", lambda: False)


def train_each_reading(root: Path, folder: Path) -> None:
    """Train as :func:`train_two`, but let every rank read for itself."""
    del trainer.parallel.mesh._GROUPS["peers"]
    train_two(root, folder, "each-")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return the folder of runs whose second rank has no shards at all, and the damaged keys."""
    root = tmp_path_factory.mktemp("peers")
    whole = write_latents(root / "whole")
    bare = shutil.copytree(whole, root / "bare", ignore=shutil.ignore_patterns("*.tar"))
    keys = damage(whole, range(0, 60, 7))
    for name in (*AXES, *(f"each-{axis}" for axis in AXES), "alone"):
        (root / name).mkdir()
    run_world(1, JOB + "train_alone", whole, root)
    run_world(2, JOB + "train_apart", [whole, bare], root)
    run_world(2, JOB + "train_each_reading", whole, root)
    return root, keys


def told(folder: Path) -> list[dict[str, float]]:
    """Return what a run said of its steps and validations."""
    rows = read_metrics(folder / "metrics.jsonl")
    return [{key: row[key] for key in FIELDS if key in row} for row in rows]


def test_the_reader_alone_opens_shards(trained: tuple[Path, list[str]]) -> None:
    opened = [(trained[0] / f"opened-{rank}.txt").read_text().split() for rank in (0, 1)]
    assert {Path(path).parent.name for path in opened[0]} == {"train", "val_worlds", "val_real"}
    assert opened[1] == []


@pytest.mark.parametrize("axis", AXES)
def test_what_is_handed_over_trains_as_what_each_reads_bit_for_bit(
    trained: tuple[Path, list[str]], axis: str
) -> None:
    root, _ = trained
    assert told(root / axis) == told(root / f"each-{axis}")


@pytest.mark.parametrize("axis", AXES)
def test_what_the_reader_lost_no_peer_trains_on(trained: tuple[Path, list[str]], axis: str) -> None:
    root, keys = trained
    rows, alone = told(root / axis), told(root / "alone")
    assert len([row for row in alone if "train_loss" in row]) == 3
    for row, expected in zip(rows, alone, strict=True):
        assert row == pytest.approx(expected, rel=1e-5)
    results = [read_json(root / name / "result.json") for name in (axis, "alone")]
    assert results[0]["flops"] == results[1]["flops"]
    said, expected = ((root / name / "events.jsonl").read_text() for name in (axis, "alone"))
    assert said == expected
    assert '"event": "dropped"' in said
    assert any(key in said for key in keys)


def fail_together(roots: list[Path], folder: Path) -> None:
    """As one rank: meet a sample that cannot be read, and then a store that is not there."""
    root = roots[int(os.environ["RANK"])]
    run = compose(root, "parallel.processes=2", "parallel.tp=2", "data.on_bad_sample=error")
    mesh = start_mesh(run.parallel)
    loader = Loader(run.data, "train", run.cell, 0, 0, 1, mesh.peers)
    before = loader.state_dict()
    found = []
    for _ in range(2):  # the state still points at the step that failed
        with pytest.raises(DecodeError) as failed:
            loader.next_step()
        found.append(failed.value.key)
        assert loader.state_dict() == before
    with pytest.raises(DecodeError):
        load_fixed(run.data, "train", 0, run.cell, mesh.peers)
    if loader._reader is not None:  # what a network that is down does to every sample of a step
        loader._reader.read = _unreachable  # type: ignore[method-assign]
    with pytest.raises(FetchError, match="no network"):
        loader.next_step()
    loader.close()
    stop_mesh(mesh)
    (folder / f"{mesh.rank}.txt").write_text(" ".join(found))


def _unreachable(*_: object) -> Any:
    raise FetchError("no network")


def test_peers_fail_as_the_reader_does_and_can_try_again(tmp_path: Path) -> None:
    whole = write_latents(tmp_path / "whole")
    bare = shutil.copytree(whole, tmp_path / "bare", ignore=shutil.ignore_patterns("*.tar"))
    damage(whole, range(60))
    run_world(2, JOB + "fail_together", [whole, bare], tmp_path)
    first, second = ((tmp_path / f"{rank}.txt").read_text().split() for rank in (0, 1))
    assert first == second
    assert len(set(first)) == 1
    assert first[0] in {info.key for info in read_index(whole, "train")}
