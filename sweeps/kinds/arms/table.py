"""What a study of arms measured, as one long table: measure, group, arm, seed, clip, value."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from data import files
from sweeps.study.archive import open_table


@dataclass(frozen=True)
class Measure:
    """Something that is compared.

    name: what it is; group: of which clips (a world, a frame shape, "all").
    unit: loss or share; better: lower or higher.
    """

    name: str
    group: str
    unit: str
    better: str


@dataclass(frozen=True)
class Value:
    """One value of a measure: of a run on one clip, or of a whole run where ``clip`` is empty."""

    measure: Measure
    arm: str
    seed: int
    clip: str
    value: float


COLUMNS = ("measure", "group", "unit", "better", "arm", "seed", "clip", "value")
SUMMARY_COLUMNS = (
    "measure", "group", "unit", "better", "arm", "seeds", "clips", "mean", "std_over_seeds",
    "difference", "low", "high", "resolved", "noise_floor",
)  # fmt: skip


def write_values(path: Path, values: Sequence[Value]) -> None:
    """Write values.csv atomically."""
    rows = [
        {
            "measure": v.measure.name,
            "group": v.measure.group,
            "unit": v.measure.unit,
            "better": v.measure.better,
            "arm": v.arm,
            "seed": v.seed,
            "clip": v.clip,
            "value": f"{v.value:.6g}",
        }
        for v in values
    ]
    write_csv(path, COLUMNS, rows)


def read_values(path: Path) -> list[Value]:
    """Read values.csv. Raises ValueError where a column is missing or a value is no number."""
    with open_table(path) as file:
        rows = list(csv.DictReader(file))
    found = []
    for number, row in enumerate(rows, 2):
        try:
            measure = Measure(*(row[field.name if field.name != "name" else "measure"]
                                for field in fields(Measure)))  # fmt: skip
            found.append(
                Value(measure, row["arm"], int(row["seed"]), row["clip"], float(row["value"]))
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}:{number}: {type(error).__name__}: {error}. "
                f"Needs the columns {', '.join(COLUMNS)}."
            ) from error
    return found


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Write rows atomically; nan and None are empty fields."""
    shown = ({key: _text(row.get(key)) for key in columns} for row in rows)
    files.write_csv(path, columns, shown)


def _text(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def measures_of(values: Sequence[Value]) -> list[Measure]:
    """Return the measures in the order in which they first occur."""
    return list(dict.fromkeys(value.measure for value in values))


def select(values: Sequence[Value], measure: Measure, arm: str) -> list[Value]:
    """Return one arm's values of one measure."""
    return [value for value in values if value.measure == measure and value.arm == arm]
