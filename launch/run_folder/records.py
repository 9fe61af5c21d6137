"""What launching leaves in a run folder, and how it is read: torch-free, standard library alone.

- ``submission.json``: which submission the run belongs to, and its place in the array;
- ``launches.jsonl``: every start and end of an attempt, on a cluster or here, never cut;
- ``cancelled.json``: a person does not want it started again.
"""

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.reading import number_of, parse_object, read_object, read_tail
from launch.run_folder.reader import Note

SUBMISSION_FILE = "submission.json"
LAUNCHES_FILE = "launches.jsonl"
CANCELLED_FILE = "cancelled.json"
JOB_FILE = "job.json"
# Some ten thousand attempts; what a broken supervisor wrote before them tells nothing.
_LAUNCHES_BYTES = 4 << 20
_NUMBERS = ("submitted", "processes", "attempt", "pid")
_TEXTS = ("reason", "outcome", "job", "job_name", "host", "boot", "nodes", "checkpoint")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LATEST = 1e11  # seconds since 1970; a moment beyond is none


def read_json(path: Path, limit: int = 0) -> dict[str, Any]:
    """Read a JSON object; {} if there is none or it cannot be read. limit: see read_object."""
    return read_object(path, limit).values


def append_launch(run_dir: Path, event: str, **fields: Any) -> None:
    """Append a line to launches.jsonl. Raises OSError (a full disk)."""
    line = json.dumps({"event": event, "time": time.time()} | fields) + "\n"
    with (run_dir / LAUNCHES_FILE).open("a", encoding="utf-8") as file:
        file.write(line)


def read_launches(run_dir: Path, note: Note | None = None) -> list[dict[str, Any]]:
    """Return the lines of launches.jsonl; what a full disk cut short is left out.

    Values of the wrong kind are left out too. note: is told what is wrong with the file.
    """
    text, problem = read_tail(run_dir / LAUNCHES_FILE, _LAUNCHES_BYTES)
    problems = {problem} if problem else set()
    found = []
    for line in text.splitlines():
        record = parse_object(line)
        if record is None or not {"event", "time"} <= record.keys():
            continue
        moment = number_of(record["time"])
        if not isinstance(record["event"], str) or moment is None or not 0 <= moment < _LATEST:
            problems.add(f"{LAUNCHES_FILE}: a line has no moment or no event")
            continue
        wrong = [key for key in record if not _is_sound(key, record[key])]
        problems |= {f"{LAUNCHES_FILE}: {key} is of the wrong kind" for key in wrong}
        found.append({key: record[key] for key in record if key not in wrong})
    if note is not None:
        for text in sorted(problems):
            note(text)
    return found


def this_host() -> dict[str, str]:
    """Return what tells where a process number has a meaning: the host's name, and its boot."""
    return {"host": socket.gethostname(), "boot": read_tail(_BOOT_ID, 64)[0].strip()}


def is_alive(record: Mapping[str, Any]) -> bool | None:
    """Tell whether the process that a record of this host names lives.

    None where it is another host's, which cannot be seen from here.
    """
    pid, here = record.get("pid"), this_host()
    if record.get("host") != here["host"]:
        return None
    if not isinstance(pid, int) or not 0 < pid < 1 << 31:
        return False
    if record.get("boot") and here["boot"] and record["boot"] != here["boot"]:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # One that nobody has waited for keeps its number: a container's first process may never.
    state = read_tail(Path(f"/proc/{pid}/stat"), 512)[0].rpartition(") ")[2]
    return not state.startswith("Z")


def _is_sound(key: str, value: Any) -> bool:
    if value is None:
        return True
    if key in _NUMBERS:
        number = number_of(value)
        return number is not None and 0 <= number < _LATEST
    return key not in _TEXTS or isinstance(value, str)


def checkpoint_mark(run_dir: Path) -> str:
    """Return the name of the last good checkpoint, '' before the first: it tells progress."""
    return read_tail(run_dir / "checkpoints" / "latest", 4096)[0].strip()


def newest_attempt(run_dir: Path) -> int:
    """Return the number of a run's newest attempt (trainer/run/lease.py), 0 if none."""
    try:
        names = os.listdir(run_dir / "attempts")
    except OSError:
        return 0
    # int() refuses what is longer than a number of attempts ever is.
    return max((int(name) for name in names if name.isdecimal() and len(name) < 10), default=0)
