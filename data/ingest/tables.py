"""Read files that say something of many clips, row by row: csv, tsv, jsonl, json and parquet."""

import ast
import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any, cast

from data.ingest.inputs import Entry
from data.media.reject import Window

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
MAX_CELL_CHARACTERS = 1_000_000  # a caption is text; more is an attack or a mistake
SEPARATORS = ",;\t|"
NUMBER = re.compile(r"[-+]?(0|[1-9]\d{0,14})(\.\d+)?([eE][-+]?\d{1,3})?")
PARQUET_READERS: dict[str, Callable[[Any, io.BytesIO], list[dict[str, Any]]]] = {
    "polars": lambda module, file: module.read_parquet(file).to_dicts(),
    "pyarrow.parquet": lambda module, file: module.read_table(file).to_pylist(),
}
Row = dict[str, Any]


def rows_of(entry: Entry, is_name: Callable[[str], bool]) -> Iterator[Row]:
    """Yield the rows of a table as columns with values; a value may be of any JSON type.

    A JSON object whose keys are names of clips (``is_name``) is a table with the column
    ``file_name``. Raises ValueError that names the file and, where it can, the line.
    """
    suffix = PurePosixPath(entry.name).suffix.lower()
    try:
        if suffix == ".parquet":
            yield from parquet_rows(entry)
        elif suffix == ".json":
            yield from json_rows(json.loads(text_of(entry).read()), is_name)
        elif suffix in (".jsonl", ".ndjson"):
            yield from line_rows(text_of(entry))
        else:
            yield from csv_rows(text_of(entry))
    except (ValueError, RecursionError, csv.Error, OSError, MemoryError) as error:
        why = "is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise ValueError(f"captions={entry.name}: cannot be read ({why}). Mend it.") from error


def text_of(entry: Entry) -> io.TextIOWrapper:
    """Open a file, or a member of a tar, as UTF-8 text, with or without a mark of byte order."""
    window = io.BufferedReader(Window(entry.path, entry.offset, entry.nbytes))
    return io.TextIOWrapper(window, encoding="utf-8-sig", newline="")


def lines_of(entry: Entry) -> list[str]:
    """Return the lines of a text file. An empty line keeps its place; those at the end go."""
    with text_of(entry) as stream:
        return [line.strip() for line in stream.read().rstrip().splitlines()]


def csv_rows(stream: io.TextIOWrapper) -> Iterator[Row]:
    """Yield the rows of a csv whose cells are parted by whatever parts its header."""
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    with stream:
        head = stream.readline()
        stream.seek(0)
        separator = max(SEPARATORS, key=head.count)
        reader = csv.reader(stream, delimiter=separator)
        header = [cell.strip() for cell in next(reader, [])]
        twice = {cell for cell in header if cell and header.count(cell) > 1}
        if twice:
            raise ValueError(f"its column {min(twice)} is there twice")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"line {reader.line_num} has {len(cells)} cells, the header {len(header)}: "
                    "captions that hold commas need quotes around them"
                )
            yield {n: typed(cell) for n, cell in zip(header, cells, strict=True) if n}


def typed(cell: str) -> Any:
    """Return a cell as the number that it is, or as text; nothing as None."""
    if NUMBER.fullmatch(cell) and len(cell) < 25:
        value = float(cell)
        whole = not set(cell) & set(".eE")
        return int(cell) if whole else value if math.isfinite(value) else cell
    return cell or None


def line_rows(stream: io.TextIOWrapper) -> Iterator[Row]:
    """Yield the rows of a file of one JSON object a line."""
    with stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is no JSON") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no JSON object")
            yield row


def json_rows(found: Any, is_name: Callable[[str], bool]) -> Iterator[Row]:
    """Yield the rows of a JSON list of objects, alone or in an object, or of a map of names."""
    if isinstance(found, dict):
        lists = [value for value in found.values() if is_objects(value)]
        if any(map(is_name, found)):
            for name, said in found.items():
                yield {"file_name": name, **(said if isinstance(said, dict) else {"caption": said})}
        elif len(lists) == 1:
            yield from lists[0]
        else:
            yield found
    elif is_objects(found):
        yield from found
    else:
        raise ValueError("it is no list of objects")


def is_objects(value: Any) -> bool:
    """Say whether a value is a list of at least one JSON object and nothing else."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def parquet_rows(entry: Entry) -> Iterator[Row]:
    """Yield the rows of a parquet file by whichever of its readers is installed."""
    for module, rows in PARQUET_READERS.items():
        try:
            reader = import_module(module)
        except ImportError:
            continue
        try:
            found = rows(reader, io.BytesIO(entry.read(entry.nbytes)))
        except Exception as error:  # each reader has errors of its own
            raise ValueError(str(error).partition("\n")[0][:120]) from error
        yield from found
        return
    raise ValueError(
        "a reader of parquet is needed: pip install 'kinescale[tables]', or export it as csv"
    )


def list_of(value: Any) -> list[Any] | None:
    """Return a list that a cell holds, also one written as JSON or Python in text; else None."""
    if isinstance(value, list):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            return cast(list[Any], read(text))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def plain_value(value: Any) -> Any:
    """Return a value of a table as JSON knows it: dates as text, bytes by their number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, dict):
        return {str(key): plain_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(entry) for entry in value]
    return str(value)
