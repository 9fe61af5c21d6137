"""What every run of a study left behind, read the same way for all kinds of study."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.reading import parse_object
from sweeps.report.inputs.isoflop import Json, file_inside, mapping, to_number
from sweeps.study.archive import read_results, read_series

# Of metrics.jsonl, or of curve.csv and an archive, which hold the first five.
SERIES = ("step", "tokens", "flops", "loss", "train_loss", "lr", "grad_norm", "seconds")
MOST_BYTES = 64_000_000  # of a run's metrics.jsonl; a larger one is not read

Series = dict[str, list[float]]


@dataclass(frozen=True)
class History:
    """One run: its row of runs.csv, its result.json, and how its values went.

    series: a list a name of ``SERIES``, all as long as its steps; NaN where a step has no value.
    """

    name: str
    row: Mapping[str, str]
    result: Json = field(default_factory=dict)
    series: Series = field(default_factory=dict)


def read_histories(study_dir: Path, rows: Sequence[Mapping[str, str]]) -> list[History]:
    """Return the history of every row of runs.csv, in its order; parts that are missing are empty.

    A run's folder says more than an archive: its metrics.jsonl also has rate and gradient norm.
    """
    try:
        results, series = read_results(study_dir), read_series(study_dir)
    except ValueError:  # a damaged archive, which the page's notes name
        results, series = {}, {}
    found = []
    for row in rows:
        name = row.get("name", "")
        own = _of_folder(study_dir, name) or series.get(name, {})
        found.append(History(name, row, _result(study_dir, name) or results.get(name, {}), own))
    return found


def _result(study_dir: Path, name: str) -> Json:
    path = file_inside(study_dir, f"runs/{name}/result.json")
    if path is None:
        return {}
    try:
        return mapping(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        return {}


def _of_folder(study_dir: Path, name: str) -> Series:
    path = file_inside(study_dir, f"runs/{name}/metrics.jsonl")
    if path is not None and path.stat().st_size <= MOST_BYTES:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return series_of(record for line in lines if (record := parse_object(line)))
    path = file_inside(study_dir, f"runs/{name}/curve.csv")
    if path is None:
        return {}
    with path.open(encoding="utf-8", errors="replace", newline="") as lines:
        return series_of(csv.DictReader(lines))


def series_of(records: Iterable[Mapping[str, object]]) -> Series:
    """Return the columns of a run's records; those without a value are left out."""
    kept = [[to_number(record.get(key)) for key in SERIES] for record in records]
    columns = dict(zip(SERIES, (list(column) for column in zip(*kept, strict=True)), strict=False))
    return {k: column for k, column in columns.items() if any(map(math.isfinite, column))}
