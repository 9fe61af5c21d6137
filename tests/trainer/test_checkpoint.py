"""Checkpoints exist or they do not: damage is seen and named, the last good one stays."""

import ast
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer.checkpoint import CheckpointError, CheckpointWriter, Loaded, load_latest, verify
from trainer.checkpoint_files import find_steps, seal, unseal
from trainer.config import freeze
from trainer.metrics import read_metrics
from trainer.parallel.layout import Layout
from trainer.parallel.mesh import Mesh, alone
from trainer.parallel.plan import Fragment, split_of

from .conftest import compose_smoke

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
    return save_pieces(folder, step, fragments(step), state, keep)


def save_pieces(
    folder: Path, step: int, pieces: list[Fragment], state: dict[str, Any], keep: int = 2
) -> Path | None:
    writer = CheckpointWriter(folder, alone(), keep, background=False)
    writer.save(step, pieces, state)
    return writer.wait()


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
CUT_SHAPES = {
    "blocks.0.self_attention.qkv.weight": (24, 5),
    "blocks.0.cross_attention.kv.weight": (16, 3),
    "blocks.0.self_attention.temperature": (8,),
    "blocks.0.mlp.2.weight": (3, 16),
    "blocks.0.mlp.2.bias": (5,),
}


def cut_fragments(full: dict[str, torch.Tensor], tp: int, pieces: int) -> list[list[Fragment]]:
    """Cut parameters over ``tp`` tensor ranks and each part over ``pieces`` ZeRO ranks, by rank."""
    ranks: list[list[Fragment]] = [[] for _ in range(tp * pieces)]
    for name, tensor in full.items():
        split = split_of(name)
        for part in range(tp if split else 1):
            piece = split.cut(tensor, part, tp) if split else tensor
            flat = piece.reshape(-1)
            places = [len(flat) * i // pieces for i in range(pieces + 1)]
            for i, (start, stop) in enumerate(pairwise(places)):
                tensors = {"param": flat[start:stop], "ema": 2 * flat[start:stop]}
                owner = ranks[i * tp + part]
                owner.append(Fragment(name, start, tensors, part, tp if split else 1))
    return ranks


def drawn(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=generator) for n, s in CUT_SHAPES.items()}


def mesh_of(rank: int, world: int) -> Mesh:
    """Return a mesh that has no process groups: a collective would fail."""
    return Mesh(Layout(dp=world), rank, torch.device("cpu"))


def writers(folder: Path, world: int, attempt: int = 0, **settings: Any) -> list[CheckpointWriter]:
    settings = {"keep": 2, "background": True, "timeout_seconds": 60.0} | settings
    return [
        CheckpointWriter(folder, mesh_of(r, world), attempt=attempt, **settings)
        for r in range(world)
    ]


def save_ranks(
    ranks: list[CheckpointWriter], step: int, pieces: list[list[Fragment]]
) -> list[Path | None]:
    for writer, own in zip(ranks, pieces, strict=True):
        writer.save(step, own, {"step": step})
    return [writer.wait() for writer in ranks]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def newest(folder: Path) -> Loaded:
    loaded = load_latest(folder)
    assert loaded is not None
    return loaded


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_tensor_parts_in_any_pieces_reassemble_bitwise(
    tmp_path: Path, tp: int, pieces: int
) -> None:
    full = drawn(tp)
    ranks = cut_fragments(full, tp, pieces)
    final = tmp_path / "step-00000001"
    assert save_ranks(writers(tmp_path, len(ranks)), 1, ranks) == [final] * len(ranks)
    loaded = newest(tmp_path)
    for kind, factor in (("param", 1), ("ema", 2)):
        found = loaded.tensors(kind, CUT_SHAPES)
        assert all(torch.equal(found[name], factor * full[name]) for name in full)
    name = "blocks.0.mlp.2.weight"
    assert torch.equal(loaded.tensor("param", name, CUT_SHAPES[name]), full[name])
    files = [f"rank-{rank:05d}.safetensors" for rank in range(len(ranks))]
    assert names(final) == sorted(["index.json", *files])


def test_tensors_of_several_dtypes_are_stored_as_they_are(tmp_path: Path) -> None:
    stored = {
        "half": torch.randn(3).to(torch.bfloat16),
        "count": torch.arange(5),
        "flag": torch.tensor([True, False, True]),
        "param": torch.randn(7, dtype=torch.float64)[::2],
    }
    pieces = [Fragment("x", 0, {kind: tensor}) for kind, tensor in stored.items()]
    save_pieces(tmp_path, 1, pieces, {})
    for kind, tensor in stored.items():
        found = newest(tmp_path).tensor(kind, "x", tuple(tensor.shape))
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor)


def test_what_is_loaded_outlives_the_file(tmp_path: Path) -> None:
    save(tmp_path, 1)
    loaded = newest(tmp_path).tensors("param", SHAPES)
    (tmp_path / "step-00000001" / "rank-00000.safetensors").write_bytes(b"")
    assert same(loaded, whole(1)["param"])


CUT = "blocks.0.self_attention.qkv.weight"
WRONG_PARTS = {
    "another size": ((20, 5), "does not fit this model"),
    "an uneven size": ((25, 5), "does not fit this model"),
    "another rank": ((), "does not fit this model"),
    "a larger size": ((30, 5), f"param of {CUT} is incomplete"),
}


@pytest.mark.parametrize("wrong", WRONG_PARTS)
def test_parts_of_another_shape_are_refused_by_name(tmp_path: Path, wrong: str) -> None:
    shape, reason = WRONG_PARTS[wrong]
    save_ranks(writers(tmp_path, 2), 1, cut_fragments(drawn(1), 2, 1))
    with pytest.raises(CheckpointError, match=reason) as raised:
        newest(tmp_path).tensor("param", CUT, shape)
    assert CUT in str(raised.value)


def rewrite_index(checkpoint: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the list of fragments of a checkpoint, with a right checksum."""
    path = checkpoint / "index.json"
    index = unseal(path.read_text())
    change(index["fragments"])
    path.write_text(seal(index))


def last_cut(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the entry of the last piece of ``CUT``."""
    return [e for e in entries if (e["kind"], e["name"]) == ("param", CUT)][-1]


def retell(key: str, value: int) -> Callable[[list[dict[str, Any]]], None]:
    """Return a change of one value of that entry."""
    return lambda entries: last_cut(entries).update({key: value})


UNTRUE = {
    "twice": (lambda entries: entries.append(dict(entries[0])), "is stored twice from element 0"),
    "mixed": (retell("parts", 4), "is a mix of tensor layouts"),
    "no part": (retell("part", 2), "is a mix of tensor layouts"),
    "elsewhere": (retell("start", 7), "does not fit this model"),
    "less": (lambda entries: entries.remove(last_cut(entries)), "from element 0 of part 1"),
    "longer": (retell("length", 61), "does not fit this model"),
    "shorter": (retell("length", 59), "is not as long as the index says"),
}


@pytest.mark.parametrize("lie", UNTRUE)
def test_an_index_that_does_not_describe_its_files_is_refused(tmp_path: Path, lie: str) -> None:
    change, reason = UNTRUE[lie]
    save_ranks(writers(tmp_path, 2), 1, cut_fragments(drawn(1), 2, 1))
    rewrite_index(tmp_path / "step-00000001", change)
    with pytest.raises(CheckpointError, match=reason):
        newest(tmp_path).tensors("param", CUT_SHAPES)


@pytest.mark.parametrize("where", ["one rank", "two ranks"])
def test_a_piece_that_is_saved_twice_stops_the_save(tmp_path: Path, where: str) -> None:
    pieces = fragments(1, {"b": [4]})
    again = [Fragment("b", 3, {"param": torch.zeros(2)})]
    ranks = [[*pieces, *again]] if where == "one rank" else [pieces, again]
    made = writers(tmp_path, len(ranks))
    for writer, own in zip(made, ranks, strict=True):
        writer.save(1, own, {})
    with pytest.raises(CheckpointError, match="param of b: two ranks save element"):
        made[0].wait()
    assert [writer.wait() for writer in made[1:]] == [None] * (len(ranks) - 1)
    assert load_latest(tmp_path) is None


def test_training_waits_for_the_copy_only(tmp_path: Path) -> None:
    gate = threading.Event()
    writer = CheckpointWriter(tmp_path, alone(), 2, background=True, token=lambda: waited(gate))
    pieces, state = fragments(1), {"step": 1}
    writer.save(1, pieces, state)
    for piece in pieces:
        for tensor in piece.tensors.values():
            tensor.zero_()
    state["step"] = 2
    assert find_steps(tmp_path) == []
    gate.set()
    assert writer.wait() == tmp_path / "step-00000001"
    assert writer.wait() == tmp_path / "step-00000001"
    loaded = newest(tmp_path)
    assert loaded.state == {"step": 1}
    assert all(same(loaded.tensors(kind, SHAPES), whole(1)[kind]) for kind in KINDS)
    assert writer.blocked_seconds > 0
    assert writer.write_seconds > 0


def waited(gate: threading.Event) -> None:
    assert gate.wait(60)


def test_a_save_waits_for_the_one_before(tmp_path: Path) -> None:
    gate = threading.Event()
    writer = CheckpointWriter(tmp_path, alone(), 2, background=True, token=lambda: waited(gate))
    writer.save(1, fragments(1), {})
    second = threading.Thread(target=lambda: writer.save(2, fragments(2), {}))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    assert names(tmp_path) == [".unfinished-step-00000001-attempt-0-save-1"]
    gate.set()
    second.join(60)
    assert writer.wait() == tmp_path / "step-00000002"
    assert names(tmp_path) == ["latest", "step-00000001", "step-00000002"]
    assert writer.blocked_seconds > 0.2
    for step in (1, 2):
        loaded = verify(tmp_path / f"step-0000000{step}")
        assert same(loaded.tensors("param", SHAPES), whole(step)["param"])


def test_without_a_save_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    assert CheckpointWriter(tmp_path / "none", alone(), 2, background=True).wait() is None
    assert not (tmp_path / "none").exists()


def test_ranks_that_write_at_once_in_the_foreground_wait_for_each_other(tmp_path: Path) -> None:
    pieces = cut_fragments(drawn(3), 2, 2)
    made = writers(tmp_path, 4, background=False)
    threads = [
        threading.Thread(target=writer.save, args=(3, own, {}))
        for writer, own in zip(made, pieces, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [writer.wait() for writer in made] == [tmp_path / "step-00000003"] * 4


def test_the_same_step_is_saved_again_in_one_attempt(tmp_path: Path) -> None:
    made = writers(tmp_path, 4)
    for seed in (1, 2, 3):
        full = drawn(seed)
        assert None not in save_ranks(made, 5, cut_fragments(full, 2, 2))
        found = newest(tmp_path).tensors("param", CUT_SHAPES)
        assert all(torch.equal(found[name], full[name]) for name in full)
        assert names(tmp_path) == ["latest", "step-00000005"]


@pytest.mark.parametrize("attempt", [1, 2])
def test_stale_listings_of_a_killed_attempt_confuse_nobody(tmp_path: Path, attempt: int) -> None:
    """It left rank 1's files; the next must not publish them, even under the same number."""
    dead = writers(tmp_path, 2, attempt=1)
    dead[1].save(5, cut_fragments(drawn(1), 2, 1)[1], {})
    assert dead[1]._job is not None
    dead[1]._job.join()
    made = writers(tmp_path, 2, attempt=attempt)
    assert not list(tmp_path.glob(".*/*"))
    full = drawn(2)
    pieces = cut_fragments(full, 2, 1)
    made[0].save(5, pieces[0], {})
    time.sleep(0.2)
    assert find_steps(tmp_path) == []
    made[1].save(5, pieces[1], {})
    assert [writer.wait() for writer in made] == [tmp_path / "step-00000005"] * 2
    found = newest(tmp_path).tensors("param", CUT_SHAPES)
    assert all(torch.equal(found[name], full[name]) for name in full)


def test_a_later_attempts_folder_is_left_alone(tmp_path: Path) -> None:
    later = tmp_path / ".unfinished-step-00000009-attempt-3-save-1"
    later.mkdir()
    writers(tmp_path, 1, attempt=2)
    assert later.is_dir()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_rank_that_cannot_write_fails_the_save_for_all(
    tmp_path: Path, failing: int, caplog: pytest.LogCaptureFixture
) -> None:
    made, pieces = writers(tmp_path, 3), cut_fragments(drawn(1), 1, 3)
    assert None not in save_ranks(made, 1, pieces)
    size = max(p.stat().st_size for p in (tmp_path / "step-00000001").iterdir())
    large = [Fragment("large", 0, {"param": torch.zeros(size)})]
    broken = [[*own, *large] if rank == failing else own for rank, own in enumerate(pieces)]
    with SmallDisk(2 * size):
        assert save_ranks(made, 2, broken) == [None] * 3
    assert "checkpoint of step 2 failed" in caplog.text
    if failing:
        assert f"rank {failing} could not write" in caplog.text
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000001"]
    assert not list(tmp_path.glob(".*/*"))  # nothing takes space
    assert newest(tmp_path).index["step"] == 1
    assert save_ranks(made, 3, pieces) == [tmp_path / "step-00000003"] * 3
    writers(tmp_path, 3, attempt=1)
    assert names(tmp_path) == ["latest", "step-00000001", "step-00000003"]


def test_a_rank_that_is_gone_fails_the_save_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, pieces = writers(tmp_path, 3, timeout_seconds=0.5), cut_fragments(drawn(1), 1, 3)
    for rank in (0, 2):
        made[rank].save(1, pieces[rank], {})
    assert [made[rank].wait() for rank in (0, 2)] == [None, None]
    assert "no word from ranks 1 in" in caplog.text
    # The lost rank comes back, too late.
    made[1].save(1, pieces[1], {})
    assert made[1].wait() is None
    assert not list(tmp_path.glob("*/*"))
    assert save_ranks(made, 2, pieces) == [tmp_path / "step-00000002"] * 3


def test_a_main_rank_that_is_gone_is_not_waited_for_forever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, pieces = writers(tmp_path, 2, timeout_seconds=0.2), cut_fragments(drawn(1), 1, 2)
    made[1].save(1, pieces[1], {})
    assert made[1].wait() is None
    assert "the main rank does not answer" in caplog.text


class StaleError(RuntimeError):
    """Another attempt owns the run."""


def refuse() -> None:
    raise StaleError("attempt 2 has the run")


@pytest.mark.parametrize("world", [1, 3])
def test_a_stale_writer_publishes_nothing_and_is_told(tmp_path: Path, world: int) -> None:
    pieces = cut_fragments(drawn(1), 1, world)
    save_ranks(writers(tmp_path, world), 1, pieces)
    made = writers(tmp_path, world, attempt=1, token=refuse)
    for writer, own in zip(made, pieces, strict=True):
        writer.save(2, own, {})
    with pytest.raises(StaleError, match="attempt 2 has the run"):
        made[0].wait()
    assert [writer.wait() for writer in made] == [None] * world
    assert newest(tmp_path).index["step"] == 1
    assert find_steps(tmp_path) == [(1, False)]
    assert not list(tmp_path.glob(".*/*"))


@pytest.mark.parametrize("background", [True, False])
def test_a_stale_writer_is_told_at_the_next_save(tmp_path: Path, background: bool) -> None:
    writer = CheckpointWriter(tmp_path, alone(), 2, background, token=refuse)
    if background:
        writer.save(1, fragments(1), {})
    with pytest.raises(StaleError):
        writer.save(2, fragments(2), {})
    assert names(tmp_path) == []


FILES = ["index.json", "rank-00000.safetensors", "rank-00003.safetensors"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "delete"])
@pytest.mark.parametrize("file", FILES)
def test_damage_to_any_file_of_several_ranks_is_named_and_the_previous_one_loads(
    tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = writers(tmp_path, 4)
    for step in (1, 2):
        save_ranks(made, step, cut_fragments(drawn(step), 2, 2))
    path = tmp_path / "step-00000002" / file
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-3] ^= 4
    path.write_bytes({"truncate": content[:-1], "empty": b""}.get(damage, content))
    if damage == "delete":
        path.unlink()
    with caplog.at_level(logging.WARNING):
        loaded = newest(tmp_path)
    assert loaded.folder.name == "step-00000001"
    found, expected = loaded.tensors("param", CUT_SHAPES), drawn(1)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert f"step-00000002/{file}" in caplog.text


def test_every_byte_of_a_save_of_several_ranks_counts(tmp_path: Path) -> None:
    save_ranks(writers(tmp_path, 4), 1, cut_fragments(drawn(1), 2, 2))
    for path in (tmp_path / "step-00000001").iterdir():
        good = path.read_bytes()
        for place in range(0, len(good), 37):
            damaged = bytearray(good)
            damaged[place] ^= 1 << place % 8
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=path.name):
                verify(path.parent)
            path.write_bytes(good[:place])
            with pytest.raises(CheckpointError, match=path.name):
                verify(path.parent)
        path.write_bytes(good)
        verify(path.parent)


@pytest.mark.parametrize("pointer", [None, b"step-00000001", b"step-00000099", b"\xff\x00"])
def test_a_crash_before_latest_moved_loses_nothing(tmp_path: Path, pointer: bytes | None) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    (tmp_path / "latest").unlink()
    if pointer is not None:
        (tmp_path / "latest").write_bytes(pointer)
    assert newest(tmp_path).index["step"] == 2
    save(tmp_path, 3)
    assert (tmp_path / "latest").read_text() == "step-00000003"


def test_a_crash_while_a_step_is_replaced_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1, keep=1)
    (tmp_path / "step-00000001").rename(tmp_path / ".replaced-step-00000001")
    (tmp_path / ".unfinished-step-00000001-attempt-0-save-2").mkdir()
    loaded = newest(tmp_path)
    assert same(loaded.tensors("param", SHAPES), whole(1)["param"])
    save(tmp_path, 1, keep=1)
    assert names(tmp_path) == ["latest", "step-00000001"]


def test_a_run_that_fell_back_forgets_the_later_checkpoints(tmp_path: Path) -> None:
    """Else a damaged one takes a place among the kept, or a history that was left goes on."""
    for step in (1, 5):
        save(tmp_path, step)
    (tmp_path / "step-00000005" / "index.json").unlink()
    assert newest(tmp_path).index["step"] == 1
    save(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["latest", "step-00000003"]
    assert newest(tmp_path).index["step"] == 3


CHILD = """
import sys, time
from pathlib import Path
import torch
from trainer.checkpoint import CheckpointWriter
from trainer.parallel.layout import Layout
from trainer.parallel.mesh import Mesh
from trainer.parallel.plan import Fragment

folder, rank, world, count, last = Path(sys.argv[1]), *map(int, sys.argv[2:])
sizes = []

def token():
    sizes.append(0)
    if len(sizes) == 2 and last:
        print("publishing", flush=True)
        time.sleep(600)

mesh = Mesh(Layout(dp=world), rank, torch.device("cpu"))
writer = CheckpointWriter(folder, mesh, 2, True, token, attempt=1)
for step in (1, 2):
    tensor = torch.full((count,), float(10 * step + rank))
    writer.save(step, [Fragment("x", rank * count, {"param": tensor})], {"step": step})
    if step == 1 or not last:
        print(writer.wait(), flush=True)
time.sleep(600 * last)
"""


def child(folder: Path, rank: int, world: int, count: int, hangs: bool) -> subprocess.Popen:
    arguments = [str(value) for value in (folder, rank, world, count, int(hangs))]
    command = [sys.executable, "-c", CHILD, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("moment", ["writing", "publishing"])
def test_a_kill_in_the_middle_of_a_save_costs_that_save_only(tmp_path: Path, moment: str) -> None:
    count = 1 << 25  # 128 MiB: long enough to be met in the middle
    process = child(tmp_path, 0, 1, count, hangs=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip().endswith("step-00000001")
        file = tmp_path / ".unfinished-step-00000002-attempt-1-save-2" / "rank-00000.safetensors"
        if moment == "publishing":
            assert process.stdout.readline().strip() == "publishing"
        while not file.exists():
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        process.stdout.close()
    assert file.parent.is_dir()
    loaded = newest(tmp_path)
    assert loaded.index["step"] == 1
    assert torch.equal(loaded.tensor("param", "x", (count,)), torch.full((count,), 10.0))
    writer = CheckpointWriter(tmp_path, alone(), 2, background=True, attempt=2)
    writer.save(2, fragments(2), {})
    assert writer.wait() == tmp_path / "step-00000002"
    assert names(tmp_path) == ["latest", "step-00000001", "step-00000002"]
    assert same(newest(tmp_path).tensors("param", SHAPES), whole(2)["param"])


def said_by(processes: list[subprocess.Popen]) -> list[tuple[str, str]]:
    """Return what processes that end by themselves print."""
    try:
        return [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.dist
def test_processes_save_together_through_files_alone(tmp_path: Path) -> None:
    said = [out.split() for out, _ in said_by([child(tmp_path, r, 3, 5, False) for r in range(3)])]
    expected = [str(tmp_path / f"step-0000000{step}") for step in (1, 2)]
    assert said == [expected] * 3
    found = newest(tmp_path).tensor("param", "x", (15,))
    assert found.tolist() == [20.0] * 5 + [21.0] * 5 + [22.0] * 5


READER = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from trainer.checkpoint import load_latest
from trainer.parallel.layout import Layout
from trainer.parallel.mesh import Mesh

dist.init_process_group("gloo")
mesh = Mesh(Layout(dp=2), dist.get_rank(), torch.device("cpu"))
print(getattr(load_latest(Path(sys.argv[1]), mesh), "folder", None))
dist.destroy_process_group()
"""


@pytest.mark.dist
@pytest.mark.parametrize("damaged", [[], [0], [3], [0, 1, 2, 3]])
def test_ranks_share_the_verifying_and_load_the_same(tmp_path: Path, damaged: list[int]) -> None:
    made = writers(tmp_path, 4)
    for step in (1, 2):
        save_ranks(made, step, cut_fragments(drawn(step), 2, 2))
    files = [f"rank-{rank:05d}.safetensors" for rank in damaged]
    for file in files:
        path = tmp_path / "step-00000002" / file
        path.write_bytes(path.read_bytes()[:-1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(tmp_path)],
            cwd=ROOT,
            env=shared | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = said_by(processes)
    expected = tmp_path / ("step-00000001" if damaged else "step-00000002")
    assert [out.strip() for out, _ in said] == [str(expected)] * 2
    for rank, (_, err) in enumerate(said):  # each names the first damaged file of its share
        own = [file for file in files if int(file[5:10]) % 2 == rank]
        assert [file for file in files if file in err] == own[:1]


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_training_goes_on_when_the_disk_is_full(latents: Path, tmp_path: Path) -> None:
    from trainer.session import train_run

    run = compose_smoke(
        latents,
        "horizon.steps=6",
        "checkpoint.steps=2",
        "checkpoint.seconds=0",
        "checkpoint.background=false",  # so that the disk fills after a save, not in one
    )
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
