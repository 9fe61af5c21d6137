"""Checkpoints exist or they do not: damage is seen and named, the last good one stays."""

import ast
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from trainer.checkpoint.write import CheckpointError, load_latest, verify

from ..checkpoints import KINDS, ROOT, SHAPES, SmallDisk, fragments, same, save, save_pieces, whole


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


@pytest.mark.heavy
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


@pytest.mark.parametrize("end", ["", "-attempt-0-save-1", "-attempt-0-save-7"])
def test_an_unfinished_folder_is_ignored_and_then_replaced(tmp_path: Path, end: str) -> None:
    save(tmp_path, 1)
    unfinished = tmp_path / f".unfinished-step-00000002{end}"
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
    save_pieces(tmp_path, 9, pieces, {})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert all(same(loaded.tensors(kind, SHAPES), whole(9)[kind]) for kind in KINDS)


def test_missing_fragments_are_refused_by_name(tmp_path: Path) -> None:
    pieces = [f for f in fragments(1, {"b": [4]}) if (f.name, f.start) != ("b", 4)]
    save_pieces(tmp_path, 1, pieces, {})
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


@pytest.mark.parametrize("fails", ["tensors", "index"])
def test_a_full_disk_leaves_the_last_good_checkpoint(
    tmp_path: Path, fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1)
    size = (tmp_path / "step-00000001" / "rank-00000.safetensors").stat().st_size
    state = {"long": "x" * 2 * size}  # makes the index larger than the tensors
    with SmallDisk(size // 2 if fails == "tensors" else size + 10):
        assert save_pieces(tmp_path, 2, fragments(2), state) is None
    assert "checkpoint of step 2 failed" in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000001"]
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert same(loaded.tensors("ema", SHAPES), whole(1)["ema"])
    assert save(tmp_path, 3) is not None


def test_a_folder_that_cannot_be_made_is_a_failed_save(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file is in the way")
    assert save(tmp_path / "checkpoints", 1) is None


# Parameters that tensor parallelism cuts, in every way it does, and one that it leaves whole.


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
