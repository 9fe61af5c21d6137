"""Write files whole or not at all: the one promise about the disk that all rooms give.

A reader sees the old file or the new one, never a part of it, also after a power cut: content goes
to a temporary file beside the path, is synced, gets the path's name, and the folder is synced. A
write that fails leaves the old file and no temporary one. Standard library alone.
"""

import csv
import json
import math
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, synced: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; at the end it becomes ``path``.

    Processes and threads that write one path do not meet: the last one wins. ``synced=False`` is
    for files that only the living read, such as signs of life.
    """
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        publish(temporary, path, synced)
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) == str(temporary):
            error.filename = str(path)  # the name that the user gave
        raise
    finally:
        with suppress(OSError):  # gone already, or its disk is read-only
            temporary.unlink()


class OpenFile:
    """A file held open for positional reads; closed when nobody holds it any more."""

    def __init__(self, path: str | Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def local_folder(key: str, folder: str | Path) -> Path:
    """Return a folder to write to.

    Raises ValueError where ``key`` gives a URL: a folder of such a name would be made here.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(folder)):
        raise ValueError(
            f"{key}={folder}: is a URL, and data sets are written to folders of this machine. "
            "Give a folder, and copy it there once it is whole."
        )
    return Path(folder)


def publish(finished: Path, path: Path, synced: bool = True) -> None:
    """Give a finished file (of the same folder) its name, for good."""
    if synced:
        sync(finished)
    os.replace(finished, path)
    if synced:
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str, synced: bool = True) -> None:
    """Write text as UTF-8, unchanged, whole or not at all."""
    with replacing(path, synced) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(
    path: Path,
    value: Mapping[str, Any] | Sequence[Any],
    *,
    synced: bool = True,
    default: Callable[[Any], Any] | None = None,
) -> None:
    """Write strict JSON whole or not at all; a number that is not finite becomes null.

    ``default`` turns what JSON does not know into what it knows. Raises TypeError without it.
    """
    text = json.dumps(finite(value), indent=1, allow_nan=False, default=default)
    write_text(path, text + "\n", synced)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the columns of rows as CSV whole or not at all; None and nan are empty fields."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for row in rows:
            values = (row.get(column) for column in columns)
            writer.writerow("" if v is None or _is_nan(v) else v for v in values)


def finite(value: Any) -> Any:
    """Return a JSON-like value with None in the place of numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
