"""Open the index of a split: in columns where it is large, as a list where it is not."""

import fcntl
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from data.dataset import shards
from data.dataset.columns import COLUMNS_NAME, ColumnBuilder, Columns, open_columns
from data.dataset.sample import SampleInfo
from data.dataset.table import Stored
from data.notices import doing

log = logging.getLogger(__name__)


def open_index(root: Path | str, split: str) -> Sequence[SampleInfo]:
    """Return the samples of a split: in columns where it is large, as ``read_index`` does else.

    Columns are made once where a large index has none. Raises ValueError as ``read_index`` does.
    """
    path, remedy = shards.index_of(root, split)
    columns = open_columns(path.parent, remedy)
    if columns is None and path.stat().st_size > shards.MOST_KEPT:
        columns = _make_columns(path, remedy)
    return shards.read_index(root, split) if columns is None else Stored(columns)


def _make_columns(path: Path, remedy: str) -> Columns | None:
    """Write the columns of an index and map them; None where its folder cannot be written to."""
    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the ranks of a node come at once
        if columns := open_columns(path.parent, remedy):
            return columns
        builder = ColumnBuilder()
        with doing(f"writing {path.parent / COLUMNS_NAME}, once"):
            for info, place in shards.lines_of(path, remedy):
                builder.add(info, place)
        for pair in builder.repeated():
            places = [builder.rows["line"][row] for row in pair]
            keys = []
            for place in places:
                held.seek(place)
                keys.append(json.loads(held.readline())["key"])
            if keys[0] == keys[1]:
                raise ValueError(f"{path}: key={keys[0]!r}: must be unique. {remedy}")
        try:
            builder.write(path.parent)
        except OSError as error:
            log.warning(
                "%s: not written (%s): each rank reads all of %s", COLUMNS_NAME, error, path
            )
    return open_columns(path.parent, remedy)
