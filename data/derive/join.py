"""Captions and scores that lie in a table of their own, joined to samples by key."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.dataset.sample import SampleInfo
from data.ingest.inputs import Entry
from data.ingest.tables import TABLE_SUFFIXES, rows_of

CAPTIONS = ("caption", "short_caption")
# Numbers of a row that are no scores: what the journal of ``kinescale caption`` says of asking.
NO_SCORES = ("attempts", "tokens_in", "tokens_out", "num_frames", "height", "width")
SCORE_NAMES = {"logprob": "caption_logprob"}  # as that command calls them in a data set
Row = Mapping[str, Any]


def join_table(
    infos: Mapping[str, list[SampleInfo]], path: Path
) -> tuple[dict[str, list[SampleInfo]], dict[str, int]]:
    """Return the samples of each split with what a table says of them, and counts of both.

    path: a table with a column ``key``, or a folder of ``captions*.jsonl``. Columns ``split`` and
    ``sha256`` (of the payload) tell samples apart where they are there; ``caption``,
    ``short_caption``, an object ``scores`` and columns of numbers are taken. The last row of a
    sample counts; one with an ``error`` does not. A sample without a row keeps what it has.
    Raises ValueError where there is no such table, and where not one of its rows is of a sample.
    """
    said: dict[tuple[str, str], Row] = {}
    counts: Counter[str] = Counter()
    for row in table_rows(path):
        if row.get("error"):
            continue
        said[str(row.get("split") or ""), str(row["key"])] = row
    joined: dict[str, list[SampleInfo]] = {}
    used: set[tuple[str, str]] = set()
    for split, members in infos.items():
        joined[split] = []
        for info in members:
            place = next((p for p in ((split, info.key), ("", info.key)) if p in said), None)
            row = said[place] if place else {}
            if row.get("sha256", info.sha256) != info.sha256:
                counts["stale"] += 1  # written for another payload of that key
                row = {}
            elif place:
                used.add(place)
            counts["joined" if row else "without"] += 1
            joined[split].append(with_row(info, row))
    counts["of no sample"] = len(said) - len(used) - counts["stale"]
    if not counts["joined"]:
        raise ValueError(
            f"captions={path}: none of its {len(said)} rows has the key of a sample. "
            "Give the table of this data set, with the column key."
        )
    return joined, dict(counts)


def with_row(info: SampleInfo, row: Row) -> SampleInfo:
    """Return a sample with the captions and scores of a row."""
    words: dict[str, Any] = {name: str(row[name]) for name in CAPTIONS if row.get(name)}
    scores = row.get("scores")
    found = dict(scores) if isinstance(scores, dict) else {}
    found |= {SCORE_NAMES.get(k, k): v for k, v in row.items() if k not in NO_SCORES}
    numbers = {k: v for k, v in found.items() if is_number(v)}
    return replace(info, **words, scores=info.scores | numbers) if row else info


def is_number(value: Any) -> bool:
    """Say whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def table_rows(path: Path) -> list[Row]:
    """Return the rows of a table, or of all tables of captions in a folder. Raises ValueError."""
    path = path.expanduser()
    files = sorted(path.glob("captions*.jsonl")) if path.is_dir() else [path]
    wanted = ", ".join(TABLE_SUFFIXES)
    rows: list[Row] = []
    for file in files:
        if not file.is_file() or file.suffix.lower() not in TABLE_SUFFIXES:
            raise ValueError(f"captions={file}: is no table. Give a file of {wanted}, or a folder.")
        status = file.stat()
        entry = Entry(str(file), file, 0, status.st_size, status.st_mtime_ns)
        for row in rows_of(entry, lambda name: False):
            if not row.get("key"):
                raise ValueError(f"captions={file}: a row has no key. Add the column key.")
            rows.append(row)
    if not rows:
        raise ValueError(f"captions={path}: holds no rows. Give a table with the column key.")
    return rows
