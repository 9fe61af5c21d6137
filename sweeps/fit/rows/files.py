"""Read the rows of a file, and say by name what keeps a file from being a table of runs."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from sweeps.fit.rows.cells import text_row

# A law is fitted to one row a run: the largest public collection has some thousands. Far beyond
# that somebody handed in metrics of every step, and the fit would take hours and its resamples
# gigabytes.
MAX_ROWS = 20_000
MAX_BYTES = 256 * 2**20
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


Numbered = Iterator[tuple[str, dict[str, str]]]  # where a row stands, and its cells


def read_file(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Return where each row of a file stands, and its cells as text without blanks around them.

    By the name's ending: a csv with a header, `.jsonl` with one object a line, `.json` with an
    array of objects, or `.parquet`.

    Raises:
        ValueError: it is no such file, naming the line, the rule and the remedy.
    """
    if not path.is_file():
        raise ValueError(f"table={path}: is not a file. Give a csv with a header row.")
    kind, read = KINDS.get(path.suffix.lower(), KINDS[".csv"])
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ValueError(
                f"table={path}: has {size / 2**20:.0f} MiB; at most {MAX_BYTES / 2**20:.0f} are "
                "read. Give one row a run."
            )
        return list(read(path))
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"table={path}: is not {kind} ({error}). Export it anew.") from None
    except OSError as error:
        why = error.strerror or str(error).splitlines()[0]
        raise ValueError(f"table={path}: cannot be read ({why}). Export it anew.") from None


def text_rows(title: str, rows: Iterable[Any], word: str = "row") -> Numbered:
    """Yield the place and the cells of each of a sequence of rows.

    Raises:
        ValueError: a row is no mapping of names to values, or they are too many.
    """
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise ValueError(
                f"table={title}: {word} {number} must hold one object of names and values. Give "
                "one for each run."
            )
        _check_count(title, number)
        yield f"{word} {number}", text_row(row)


def _csv_rows(path: Path) -> Numbered:
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from _cells_of_csv(path, file)


def _cells_of_csv(path: Path, file: TextIO) -> Numbered:
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
        _check_count(str(path), count)
        padded = [*cells, *[""] * (len(header) - len(cells))]
        yield f"line {reader.line_num}", {k: v for k, v in zip(header, padded, strict=False) if k}
    if not header:
        raise ValueError(f"table={path}: is empty. Give a csv with a header row and a row a run.")


def _json_lines(path: Path) -> Numbered:
    with path.open(encoding="utf-8-sig") as file:
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
            _check_count(str(path), count)
            yield f"line {number}", text_row(row)
    if not count:
        raise ValueError(f"table={path}: is empty. Give one JSON object a line, a line a run.")


def _json_array(path: Path) -> Numbered:
    with path.open(encoding="utf-8-sig") as file:
        if file.read(1024).lstrip()[:1] not in ("[", ""):
            yield from _json_lines(path)  # lines of objects are called .json by many
            return
        file.seek(0)
        found = json.load(file)
    yield from text_rows(str(path), found)


def _parquet(path: Path) -> Numbered:
    """Yield the rows of a parquet file by whichever of its readers is installed."""
    for module, rows_of in PARQUET_READERS.items():
        try:
            reader = import_module(module)
        except ImportError:
            continue
        try:
            found = rows_of(reader, path)
        except Exception as error:  # noqa: BLE001  each reader has errors of its own
            why = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"table={path}: is not a parquet file that {module.partition('.')[0]} reads "
                f"({why}). Export it anew."
            ) from None
        yield from text_rows(str(path), found)
        return
    raise ValueError(
        f"table={path}: needs a reader of parquet. Run pip install 'kinescale[tables]', or export "
        "it as csv."
    )


PARQUET_READERS: dict[str, Callable[[Any, Path], list[dict[str, Any]]]] = {
    "polars": lambda module, path: module.read_parquet(path).to_dicts(),
    "pyarrow.parquet": lambda module, path: module.read_table(path).to_pylist(),
}
KINDS: dict[str, tuple[str, Callable[[Path], Numbered]]] = {
    ".csv": ("a csv in UTF-8", _csv_rows),
    ".json": ("a JSON array of objects", _json_array),
    ".jsonl": ("one JSON object a line", _json_lines),
    ".ndjson": ("one JSON object a line", _json_lines),
    ".parquet": ("a parquet file", _parquet),
}


def _text_lines(file: TextIO) -> Iterator[str]:
    for line in file:
        if "\0" in line:
            raise csv.Error("it holds NUL bytes")
        yield line


def _check_count(title: str, count: int) -> None:
    if count > MAX_ROWS:
        raise ValueError(
            f"table={title}: has more than {MAX_ROWS} rows. Give one row a run, or thin its "
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
