"""Read the rows of a file, and say by name what keeps a file from being a table of runs."""

import csv
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

# A law is fitted to one row a run: the largest public collection has some thousands. Far beyond
# that somebody handed in metrics of every step, and the fit would take hours and its resamples
# gigabytes.
MAX_ROWS = 20_000
MAX_BYTES = 256 * 2**20
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_rows(path: Path) -> tuple[list[dict[str, str]], list[int]]:
    """Return the rows of a csv with a header, or of a `.jsonl` with one object a line.

    Every row holds every column, as text without blanks around it; the second list is each row's
    line in the file.

    Raises:
        ValueError: it is no such file, naming the line, the rule and the remedy.
    """
    if not path.is_file():
        raise ValueError(f"table={path}: is not a file. Give a csv with a header row.")
    lines_of_json = path.suffix == ".jsonl"
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ValueError(
                f"table={path}: has {size / 2**20:.0f} MiB; at most {MAX_BYTES / 2**20:.0f} are "
                "read. Give one row a run."
            )
        with path.open(newline="", encoding="utf-8-sig") as file:
            numbered = list(_json_rows(path, file) if lines_of_json else _csv_rows(path, file))
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        kind = "one JSON object a line" if lines_of_json else "a csv in UTF-8"
        raise ValueError(f"table={path}: is not {kind} ({error}). Export it anew.") from None
    except OSError as error:
        raise ValueError(f"table={path}: cannot be read ({error.strerror}).") from None
    if not numbered:
        raise ValueError(f"table={path}: has a header and no rows. Add one row a run.")
    rows = [row for _, row in numbered]
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{c: row.get(c, "") for c in columns} for row in rows], [line for line, _ in numbered]


def _csv_rows(path: Path, file: TextIO) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and cells of each row that holds anything."""
    # strict: a quote that never closes would swallow the rest of the file as one cell.
    reader = csv.reader(_text_lines(file), strict=True)
    header: list[str] = []
    count = 0
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if not header:
            header = cells
            _check_header(path, header)
            continue
        if any(cells[len(header) :]):
            raise ValueError(
                f"table={path}: line {reader.line_num} has {len(cells)} cells, the header "
                f"{len(header)}. Quote cells that hold a comma, and write decimals with a point."
            )
        count += 1
        _check_count(path, count)
        padded = [*cells, *[""] * (len(header) - len(cells))]
        yield reader.line_num, {k: v for k, v in zip(header, padded, strict=False) if k}
    if not header:
        raise ValueError(f"table={path}: is empty. Give a csv with a header row and a row a run.")


def _json_rows(path: Path, file: TextIO) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and values of each object."""
    count = 0
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(
                f"table={path}: line {number} must hold one JSON object. Export it anew."
            )
        count += 1
        _check_count(path, count)
        yield number, {str(k): "" if v is None else str(v).strip() for k, v in row.items()}
    if not count:
        raise ValueError(f"table={path}: is empty. Give one JSON object a line, a line a run.")


def _text_lines(file: TextIO) -> Iterator[str]:
    for line in file:
        if "\0" in line:
            raise csv.Error("it holds NUL bytes")
        yield line


def _check_count(path: Path, count: int) -> None:
    if count > MAX_ROWS:
        raise ValueError(
            f"table={path}: has more than {MAX_ROWS} rows. Give one row a run, or thin its "
            "checkpoints."
        )


def _check_header(path: Path, header: Sequence[str]) -> None:
    """Raise ValueError for a header that names no columns, or one of them twice."""
    if len(header) == 1:
        for separator, word in OTHER_SEPARATORS.items():
            if separator in header[0]:
                raise ValueError(
                    f"table={path}: its columns are parted by {word}. Export it with commas."
                )
    if all(_is_number(cell) for cell in header if cell):
        raise ValueError(
            f"table={path}: its first line holds numbers ({', '.join(header[:3])}, ...) and no "
            "names. Add a header such as params,tokens,loss."
        )
    twice = sorted({cell for cell in header if cell and header.count(cell) > 1})
    if twice:
        raise ValueError(
            f"table={path}: the header names {', '.join(twice)} more than once. Rename all but one."
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def no_such_column(ours: str, theirs: str, path: Path, have: Sequence[str], why: str = "") -> str:
    """Say that a table lacks a column, which it has, and which of those may have been meant."""
    near = [c for c in have if c.lower() == theirs.lower()]
    near += difflib.get_close_matches(theirs, have, n=1, cutoff=0.75)
    example = f"columns.{ours}={near[0] if near else 'COLUMN'}"
    meant = f" Is it {near[0]}?" if near else ""
    return (
        f"{ours}={theirs}: not a column of {path.name}, which has {list(have)}.{meant} {why}"
        f"Name the right one, as in {example}."
    )


def renamed(
    rows: Sequence[dict[str, str]], columns: Mapping[str, str], path: Path
) -> list[dict[str, str]]:
    """Return the rows with the columns of `columns` (ours -> theirs) also under our names.

    Raises:
        ValueError: a column is not there.
    """
    for ours, theirs in columns.items():
        if theirs not in rows[0]:
            raise ValueError(no_such_column(ours, theirs, path, list(rows[0])))
    return [row | {ours: row[theirs] for ours, theirs in columns.items()} for row in rows]
