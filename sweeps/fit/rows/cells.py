"""Cells of any table as text: what a file, a DataFrame or an experiment tracker holds, made one."""

from collections.abc import Iterator, Mapping
from typing import Any

# What a missing value of a DataFrame, of JSON or of Python prints as.
MISSING = {"None", "nan", "NaN", "<NA>", "NaT", "null"}


def text_row(row: Mapping[Any, Any]) -> dict[str, str]:
    """Return a row of values as text; what lies in an object inside has its names joined by dots.

    Missing values (None, NaN) are empty cells.
    """
    return dict(_cells(row, ""))


def _cells(row: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in row.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _cells(value, f"{name}.")
        else:
            text = str(value).strip()
            yield name, "" if not isinstance(value, str) and text in MISSING else text
