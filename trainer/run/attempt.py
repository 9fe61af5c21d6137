"""What an attempt at a run tells its launcher, and hears from it; torch-free.

``stopped.json`` marks an attempt that was asked to stop and left in good order: exit statuses do
not survive srun and torchrun. ``timeline/attempt-000002.json`` says how the main rank spent its
time.
"""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from data.files import write_json

STOPPED_FILE = "stopped.json"
_FOLDER = "timeline"
# Set by a launcher that knows, from its scheduler, that these attempts are over.
_ENDED = "KINESCALE_ENDED_ATTEMPTS"


def ended_attempts() -> int:
    """Return up to which attempt the launcher vouches that they are over; 0 without a launcher."""
    text = os.environ.get(_ENDED, "0")
    return int(text) if text.isdigit() else 0


def mark_stopped(folder: Path, attempt: int, step: int) -> None:
    """Say that an attempt stopped as asked; the run goes on from ``step`` when started again."""
    write_json(folder / STOPPED_FILE, {"attempt": attempt, "step": step})


def clear_stopped(folder: Path) -> None:
    """Remove the mark of an earlier attempt."""
    (folder / STOPPED_FILE).unlink(missing_ok=True)


class Timeline:
    """Seconds that the main rank of an attempt has spent in each phase.

    Phases are those of the heartbeats; ``seconds`` holds those that ended, ``phase_seconds`` the
    one that goes on, which may hang. ``first_step`` is where the attempt began to train, so that a
    reader can tell which of its steps a later attempt repeated.
    """

    def __init__(self, folder: Path, attempt: int) -> None:
        self._path = folder / _FOLDER / f"attempt-{attempt:06d}.json"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._attempt, self._host = attempt, socket.gethostname()
        self._started, self._clock = time.time(), time.monotonic()
        self._seconds: dict[str, float] = {}
        self._phase, self._since = "start", self._clock
        self._step, self._first_step = 0, -1
        self._moved = self._started

    def advance(self, step: int, phase: str) -> None:
        """Note that a phase of a step began."""
        now = time.monotonic()
        if phase == "ended":  # an attempt that hung, or lost its peers, did not move by leaving
            self._phase, self._since = phase, now
            return
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since, self._step = phase, now, step
        if phase == "data" and self._first_step < 0:
            self._first_step = step
        self._moved = self._started + now - self._clock

    def write(self) -> None:
        """Rewrite the file, atomically. Raises OSError (a full disk)."""
        record = {
            "attempt": self._attempt,
            "host": self._host,
            "started": self._started,
            "moved": self._moved,
            "written": self._started + time.monotonic() - self._clock,
            "first_step": self._first_step,
            "step": self._step,
            "phase": self._phase,
            "phase_seconds": round(time.monotonic() - self._since, 3),
            "seconds": {phase: round(spent, 3) for phase, spent in dict(self._seconds).items()},
        }
        write_json(self._path, record, synced=False)


def read_timelines(folder: Path) -> list[dict[str, Any]]:
    """Return the timelines of a run's attempts in order; unreadable ones are left out."""
    found = []
    for path in sorted((folder / _FOLDER).glob("attempt-*.json")):
        try:
            record = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and {"attempt", "started", "written", "seconds"} <= set(record):
            found.append(record)
    return found
