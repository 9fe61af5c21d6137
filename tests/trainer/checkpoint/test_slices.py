"""Reading a checkpoint in pieces: what comes back, and which files are opened for it."""

from pathlib import Path

import pytest
import torch

from models.architecture import Split
from trainer.checkpoint.files import write_rank
from trainer.checkpoint.pieces import CheckpointError, Entry, tensors_name
from trainer.checkpoint.read import Loaded, Stored

SHAPE, SPLIT = (12, 10), Split(0, 3)
VALUE = torch.arange(120.0).view(SHAPE)


def store(folder: Path, parts: int) -> Loaded:
    """Write a parameter in tensor parts of two pieces, a file each; return its checkpoint."""
    entries: list[Entry] = []
    for part in range(parts):
        flat = (VALUE if parts == 1 else SPLIT.cut(VALUE, part, parts)).reshape(-1)
        for half, piece in enumerate((flat[:23], flat[23:])):
            entry = {"name": "w", "kind": "param", "part": part, "parts": parts}
            entry |= {"start": 23 * half, "length": len(piece)}
            rank = 2 * part + half
            write_rank(folder, rank, [(entry, piece.clone())])
            entries.append(entry | {"file": tensors_name(rank)})
    return Loaded(folder, {"fragments": entries})


@pytest.mark.parametrize("stored", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_piece_of_any_layout_is_read_from_any_other(
    tmp_path: Path, stored: int, count: int
) -> None:
    parameter = Stored(store(tmp_path, stored), "param", "w", SHAPE, SPLIT)
    cut = None if count == 1 else SPLIT
    for index in range(count):
        flat = (VALUE if cut is None else cut.cut(VALUE, index, count)).reshape(-1)
        for start, length in ((0, len(flat)), (3, 5), (len(flat) - 7, 7), (20, 8)):
            piece = parameter.piece(cut, index, count, start, length)
            assert torch.equal(piece, flat[start : start + length])


def test_a_rank_of_the_layout_that_saved_opens_the_files_of_its_piece_alone(
    tmp_path: Path,
) -> None:
    loaded = store(tmp_path, 2)
    for rank in (0, 1, 2):
        (tmp_path / tensors_name(rank)).unlink()
    parameter = Stored(loaded, "param", "w", SHAPE, SPLIT)
    own = SPLIT.cut(VALUE, 1, 2).reshape(-1)
    assert torch.equal(parameter.piece(SPLIT, 1, 2, 30, 20), own[30:50])
    with pytest.raises(CheckpointError, match="cannot be read"):
        parameter.piece(SPLIT, 1, 2, 20, 20)


def test_a_piece_of_a_part_that_is_not_there_whole_is_refused(tmp_path: Path) -> None:
    loaded = store(tmp_path, 1)
    del loaded.index["fragments"][1]
    with pytest.raises(CheckpointError, match="incomplete from element 23"):
        Stored(loaded, "param", "w", SHAPE, SPLIT).piece(None, 0, 1, 0, 5)
