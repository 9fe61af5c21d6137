"""Checkpoints exist or they do not: damage is seen and named, the last good one stays."""

import ast
import json
import logging
import resource
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.checkpoint import CheckpointError, load_latest, save_checkpoint, verify
from trainer.config import freeze
from trainer.metrics import read_metrics
from trainer.parallel.engine import Fragment
from trainer.parallel.layout import Layout

from .conftest import compose_smoke

ALONE = Layout(0, 1, torch.device("cpu"), owns_group=False)
ROOT = Path(__file__).parents[2]
SHAPES = {"a.weight": (6, 7), "b": (11,), "scalar": ()}
KINDS = ("param", "exp_avg", "exp_avg_sq", "ema")


def whole(step: int) -> dict[str, dict[str, torch.Tensor]]:
    """Return all tensors of a pretended step, by kind and name."""
    generator = torch.Generator().manual_seed(step)
    return {k: {n: torch.randn(s, generator=generator) for n, s in SHAPES.items()} for k in KINDS}


def fragments(step: int, cuts: dict[str, list[int]] | None = None) -> list[Fragment]:
    """Cut the tensors of a step into fragments at the given places."""
    tensors, made = whole(step), []
    for name in SHAPES:
        size = tensors["param"][name].numel()
        places = [0, *(cuts or {}).get(name, []), size]
        for start, stop in pairwise(places):
            pieces = {k: tensors[k][name].view(-1)[start:stop] for k in KINDS}
            made.append(Fragment(name, start, pieces))
    return made


def save(folder: Path, step: int, keep: int = 2) -> Path | None:
    state = {"progress": {"step": step}, "loader": {"position": 10 * step, "rate": 0.1 * step}}
    return save_checkpoint(folder, ALONE, step, fragments(step), state, keep)


def same(loaded: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(loaded[name], expected[name]) for name in SHAPES)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    assert save(tmp_path, 4) == tmp_path / "step-00000004"
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.state["loader"] == {"position": 40, "rate": 0.4}
    assert all(same(loaded.tensors(kind, SHAPES), whole(4)[kind]) for kind in KINDS)
    assert (tmp_path / "latest").read_text() == "step-00000004"


def test_the_newest_ones_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step, keep=2)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["latest", "step-00000003", "step-00000004"]


@pytest.mark.parametrize("file", ["index.json", "rank-00000.safetensors"])
def test_any_flipped_bit_is_seen(tmp_path: Path, file: str) -> None:
    save(tmp_path, 1)
    path = tmp_path / "step-00000001" / file
    good = path.read_bytes()
    for place in range(0, len(good), 1 if file == "index.json" else 7):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="step-00000001"):
            verify(path.parent)
    path.write_bytes(good)
    verify(path.parent)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "delete"])
@pytest.mark.parametrize("file", ["index.json", "rank-00000.safetensors"])
def test_a_damaged_file_is_named_and_the_previous_checkpoint_loads(
    tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = tmp_path / "step-00000002" / file
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
    path.write_bytes({"truncate": content[:-9], "empty": b""}.get(damage, content))
    if damage == "delete":
        path.unlink()
    with caplog.at_level(logging.WARNING):
        loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.folder.name == "step-00000001"
    assert same(loaded.tensors("param", SHAPES), whole(1)["param"])
    assert f"step-00000002/{file}" in caplog.text
    assert "Falling back to the previous" in caplog.text


def test_no_good_checkpoint_is_none_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_latest(tmp_path / "nothing") is None
    save(tmp_path, 1)
    (tmp_path / "step-00000001" / "index.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert load_latest(tmp_path) is None
    assert "none verifies. Starting from step 0" in caplog.text


def test_an_unfinished_folder_is_ignored_and_then_replaced(tmp_path: Path) -> None:
    save(tmp_path, 1)
    unfinished = tmp_path / ".unfinished-step-00000002"
    unfinished.mkdir()
    (unfinished / "rank-00000.safetensors").write_bytes(b"half")
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.folder.name == "step-00000001"
    assert save(tmp_path, 2) is not None
    assert not unfinished.exists()


def test_an_index_cannot_reach_outside_its_folder(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = tmp_path / "step-00000001" / "index.json"
    index = json.loads(path.read_text())
    for name in ("../other.safetensors", "/etc/passwd"):
        path.write_text(json.dumps(index | {"files": {name: "0" * 64}}))
        with pytest.raises(CheckpointError):
            verify(path.parent)


@pytest.mark.parametrize("seed", range(5))
def test_fragments_of_any_split_reassemble(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    cuts = {n: sorted(draw.integers(0, 11, size=draw.integers(0, 4)).tolist()) for n in ("b",)}
    cuts["a.weight"] = sorted(draw.choice(42, size=5, replace=False).tolist())
    pieces = fragments(9, {n: sorted(set(c) - {0}) for n, c in cuts.items()})
    draw.shuffle(pieces)  # type: ignore[arg-type]
    save_checkpoint(tmp_path, ALONE, 9, pieces, {}, 2)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert all(same(loaded.tensors(kind, SHAPES), whole(9)[kind]) for kind in KINDS)


def test_missing_fragments_are_refused_by_name(tmp_path: Path) -> None:
    pieces = [f for f in fragments(1, {"b": [4]}) if (f.name, f.start) != ("b", 4)]
    save_checkpoint(tmp_path, ALONE, 1, pieces, {}, 2)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    with pytest.raises(CheckpointError, match=r"step-00000001: param of b is incomplete"):
        loaded.tensors("param", SHAPES)


@pytest.mark.parametrize("shapes", [{"a.weight": (6, 7), "b": (9,), "scalar": ()}, {"b": (11,)}])
def test_another_model_is_refused_by_name(tmp_path: Path, shapes: dict) -> None:
    save(tmp_path, 1)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    with pytest.raises(CheckpointError, match=r"parameter .* does not fit this model. Resume with"):
        loaded.tensors("param", shapes)


class SmallDisk:
    """Let no file of this process grow over a size: writes fail as on a full disk."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes

    def __enter__(self) -> None:
        self._old = resource.getrlimit(resource.RLIMIT_FSIZE)  # python ignores SIGXFSZ
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._nbytes, self._old[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._old)


@pytest.mark.parametrize("fails", ["tensors", "index"])
def test_a_full_disk_leaves_the_last_good_checkpoint(
    tmp_path: Path, fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1)
    size = (tmp_path / "step-00000001" / "rank-00000.safetensors").stat().st_size
    state = {"long": "x" * 2 * size}  # makes the index larger than the tensors
    with SmallDisk(size // 2 if fails == "tensors" else size + 10):
        assert save_checkpoint(tmp_path, ALONE, 2, fragments(2), state, 2) is None
    assert "checkpoint of step 2 failed" in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000001"]
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert same(loaded.tensors("ema", SHAPES), whole(1)["ema"])
    assert save(tmp_path, 3) is not None


def test_a_folder_that_cannot_be_made_is_a_failed_save(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file is in the way")
    assert save(tmp_path / "checkpoints", 1) is None


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_training_goes_on_when_the_disk_is_full(latents: Path, tmp_path: Path) -> None:
    from trainer.session import train_run

    run = compose_smoke(latents, "horizon.steps=6", "checkpoint.steps=2", "checkpoint.seconds=0")
    freeze(run, tmp_path)
    disk, at_step = SmallDisk(20_000), iter(range(100))
    found: list[str] = []

    def poll() -> bool:  # called once a step, before its update
        step = next(at_step)
        if step == 2:
            disk.__enter__()
        if step == 5:
            disk.__exit__()
            found.extend(sorted(p.name for p in (tmp_path / "checkpoints").iterdir()))
        return False

    try:
        assert train_run(run, tmp_path, poll)
    finally:
        disk.__exit__()
    assert found == ["latest", "step-00000002"]  # that of step 4 found no room
    losses = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "train_loss" in r]
    assert [r["step"] for r in losses] == [1, 2, 3, 4, 5, 6]
    loaded = load_latest(tmp_path / "checkpoints")
    assert loaded is not None
    assert loaded.index["step"] == 6


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_crash_between_checkpoints_changes_no_metric(
    latents: Path, tmp_path: Path, every: int
) -> None:
    from trainer.session import train_run

    run = compose_smoke(
        latents,
        "horizon.steps=6",
        "checkpoint.steps=3",
        "checkpoint.seconds=0",
        f"log.every={every}",
        "validation.curve_points=2",
    )
    polls = iter(range(100))

    def crash() -> bool:
        if next(polls) == 4:
            raise RuntimeError("killed in step 5")
        return False

    for name in ("whole", "broken"):
        freeze(run, tmp_path / name)
    assert train_run(run, tmp_path / "whole", lambda: False)
    with pytest.raises(RuntimeError, match="killed in step 5"):
        train_run(run, tmp_path / "broken", crash)
    assert train_run(run, tmp_path / "broken", lambda: False)
    clock = ("seconds", "tokens_per_second")
    whole, broken = (
        [
            {k: v for k, v in record.items() if k not in clock}
            for record in read_metrics(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("whole", "broken")
    )
    assert broken == whole


@pytest.mark.parametrize("room", ["models", "data", "trainer", "launch", "sweeps"])
def test_nothing_is_unpickled_anywhere(room: str) -> None:
    modules = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                names = ["pickle"]
            assert not modules & set(names), f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                assert called not in ("torch.load", "torch.save"), f"{path}:{node.lineno}"
