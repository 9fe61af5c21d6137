"""What a run writes down: metrics.jsonl is the truth, which a mirror may follow."""

import json
import os
from pathlib import Path
from typing import Any, TextIO

from data.files import write_text

# Fields of a record that a clock or the machine decides: two runs of one experiment differ in them.
MEASURED = frozenset(
    {
        "seconds", "step_seconds", "tokens_per_second", "flops_per_second", "samples_per_second",
        "mfu", "memory_bytes", "goodput",
    }
)  # fmt: skip


class MetricsFile:
    """Append-only JSON lines; after a rollback the repeated steps are cut off first."""

    def __init__(self, path: Path, resume_step: int) -> None:
        self.path = path
        _keep_until(path, resume_step)
        self._file = path.open("a")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record with at least a ``step``; visible to readers at once."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read records; a last line that a crash cut short is ignored."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def append_lines(path: Path) -> TextIO:
    """Open a file of JSON lines to append to; a last line that a crash cut short is ended first."""
    file = path.open("a")
    if path.stat().st_size:
        with path.open("rb") as found:
            found.seek(-1, os.SEEK_END)
            if found.read() != b"\n":
                file.write("\n")
    return file


def _keep_until(path: Path, step: int) -> None:
    """Keep what was written before the checkpoint of a step was saved."""
    records = [
        record
        for record in read_metrics(path)
        if record["step"] < step or (record["step"] == step and not _is_final(record))
    ]
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def _is_final(record: dict[str, Any]) -> bool:
    """Tell the validation at the end, which a run that resumes at its last step repeats."""
    return any(key.startswith("loss/") for key in record)
