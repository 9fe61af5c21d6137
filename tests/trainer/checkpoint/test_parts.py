"""Tensor parts of any layout reassemble bitwise; an index that lies is refused."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.checkpoint.files import seal, unseal
from trainer.checkpoint.pieces import Contents, compact, list_pieces, refuse_overlaps
from trainer.checkpoint.write import CheckpointError, load_latest
from trainer.layout.plan import Fragment

from ..checkpoints import (
    CUT_SHAPES,
    CUTS,
    SHAPES,
    cut_fragments,
    drawn,
    fragments,
    names,
    newest,
    same,
    save,
    save_pieces,
    save_ranks,
    whole,
    writers,
)


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
        found = loaded.tensors(kind, CUT_SHAPES, CUTS)
        assert all(torch.equal(found[name], factor * full[name]) for name in full)
    name = "blocks.0.mlp.2.weight"
    assert torch.equal(loaded.tensor("param", name, CUT_SHAPES[name], CUTS.get(name)), full[name])
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
        newest(tmp_path).tensor("param", CUT, shape, CUTS[CUT])
    assert CUT in str(raised.value)


def rewrite_index(checkpoint: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change what the index of a checkpoint says of its pieces, with a right checksum."""
    path = checkpoint / "index.json"
    index = unseal(path.read_text())
    contents = Contents(index)
    names_of = sorted(contents.names, reverse=True)  # param before ema
    entries = [e for kind, name in names_of for e in contents.entries(kind, name)]
    change(entries)
    places = {name: rank for rank, name in enumerate(index["files"])}
    pieces = [piece for e in entries for piece in list_pieces([e], places[e["file"]])]
    path.write_text(seal(index | {"pieces": compact(pieces)}))


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
        newest(tmp_path).tensors("param", CUT_SHAPES, CUTS)


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


def test_a_thousand_ranks_that_cut_a_parameter_are_one_run_of_the_index(tmp_path: Path) -> None:
    # ZeRO 3: four pipeline stages of 256 replicas and two tensor parts; the last piece is shorter.
    kinds = ["ema", "exp_avg", "exp_avg_sq", "param"]
    pieces = [
        ["w", kinds, part, 2, 100 * r, 100 if r < 255 else 41, 512 + 2 * r + part]
        for r in range(256)
        for part in range(2)
    ]
    refuse_overlaps(pieces)
    runs = compact(pieces)
    assert [run[3:] for run in runs["w"]] == [
        [0, 100, 512, 255, 2],
        [25500, 41, 1022, 1, 0],
        [0, 100, 513, 255, 2],
        [25500, 41, 1023, 1, 0],
    ]
    files = {f"rank-{rank:05d}.safetensors": "" for rank in range(1024)}
    contents = Contents({"files": files, "pieces": runs})
    assert contents.names == {(kind, "w") for kind in kinds}
    told = [
        [e["name"], e["part"], e["parts"], e["start"], e["length"], e["file"]]
        for e in contents.entries("exp_avg", "w")
    ]
    assert told == sorted(
        [[n, p, ps, start, length, f"rank-{rank:05d}.safetensors"]
         for n, _, p, ps, start, length, rank in pieces],
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="more pieces than files"):
        Contents({"files": {}, "pieces": runs}).entries("ema", "w")


@pytest.mark.parametrize("seed", range(20))
def test_runs_tell_any_pieces_of_any_ranks(seed: int) -> None:
    draw = random.Random(seed)
    pieces = []
    for name in ("a", "b"):
        start, rank = 0, draw.randrange(4)
        for _ in range(draw.randrange(1, 12)):
            length = draw.choice([1, 2, 2, 2, 5])
            kinds = draw.choice([["ema", "param"], ["ema", "param"], ["param"]])
            pieces.append([name, kinds, 0, 1, start, length, rank])
            start, rank = start + length, max(0, rank + draw.choice([-1, 0, 1, 1, 1, 2]))
    draw.shuffle(pieces)
    contents = Contents({"files": dict.fromkeys(range(99)), "pieces": compact(pieces)})
    for kind in ("ema", "param"):
        found = [
            (e["name"], e["start"], e["length"], e["file"])
            for name in ("a", "b")
            for e in contents.entries(kind, name)
        ]
        assert found == sorted(
            (name, start, length, f"rank-{rank:05d}.safetensors")
            for name, kinds, _, _, start, length, rank in pieces
            if kind in kinds
        )
