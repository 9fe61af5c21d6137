"""What launching leaves in a run folder, and how it is read: torch-free, standard library alone.

- ``submission.json``: which submission the run belongs to, and its place in the array;
- ``launches.jsonl``: every start and end of an attempt on a cluster, never cut;
- ``cancelled.json``: a person does not want it started again.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

SUBMISSION_FILE = "submission.json"
LAUNCHES_FILE = "launches.jsonl"
CANCELLED_FILE = "cancelled.json"
JOB_FILE = "job.json"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; {} if there is none or it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def append_launch(run_dir: Path, event: str, **fields: Any) -> None:
    """Append a line to launches.jsonl. Raises OSError (a full disk)."""
    line = json.dumps({"event": event, "time": time.time()} | fields) + "\n"
    with (run_dir / LAUNCHES_FILE).open("a") as file:
        file.write(line)


def read_launches(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of launches.jsonl; what a full disk cut short is left out."""
    try:
        text = (run_dir / LAUNCHES_FILE).read_text(errors="replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {"event", "time"} <= record.keys():
            found.append(record)
    return found


def checkpoint_mark(run_dir: Path) -> str:
    """Return the name of the last good checkpoint, '' before the first: it tells progress."""
    try:
        return (run_dir / "checkpoints" / "latest").read_text().strip()
    except OSError:
        return ""


def newest_attempt(run_dir: Path) -> int:
    """Return the number of a run's newest attempt (trainer/run/lease.py), 0 if none."""
    try:
        names = os.listdir(run_dir / "attempts")
    except OSError:
        return 0
    return max((int(name) for name in names if name.isdigit()), default=0)
