"""What an attempt at a run tells its launcher, and hears from it; torch-free.

``stopped.json`` marks an attempt that was asked to stop and left in good order, ``refused.json``
one that ends as often as it is started until a person mends something: exit statuses do not survive
srun and torchrun. ``timeline/attempt-000002.json`` says how the main rank spent its
time.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from data.files import write_json
from data.reading import number_of, read_object

STOPPED_FILE = "stopped.json"
REFUSED_FILE = "refused.json"
_FOLDER = "timeline"
_NUMBERS = ("attempt", "started", "moved", "written", "first_step", "step", "phase_seconds")
_MOST = 1e15
# Phases that count as progress: validation and waiting for data are part of a run.
USEFUL = ("data", "forward and backward", "update", "validation")
# Set by a launcher that knows, from its scheduler, that these attempts are over.
_ENDED = "KINESCALE_ENDED_ATTEMPTS"


def ended_attempts() -> int:
    """Return up to which attempt the launcher vouches that they are over; 0 without a launcher."""
    text = os.environ.get(_ENDED, "0")
    return int(text) if text.isdigit() else 0


class Busy(ValueError):
    """Another attempt lives: the same start may go through later."""


def mark_stopped(folder: Path, attempt: int, step: int) -> None:
    """Say that an attempt stopped as asked; the run goes on from ``step`` when started again."""
    write_json(folder / STOPPED_FILE, {"attempt": attempt, "step": step})


def mark_refused(folder: Path, reason: str) -> None:
    """Say that the run cannot go until what ``reason`` says is mended; never raises."""
    with suppress(OSError):  # the reason is on stderr, too
        write_json(folder / REFUSED_FILE, {"reason": reason}, synced=False)


def clear_stopped(folder: Path) -> None:
    """Remove the marks of an earlier attempt."""
    for name in (STOPPED_FILE, REFUSED_FILE):
        (folder / name).unlink(missing_ok=True)


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
        self._earlier = [t for t in read_timelines(folder) if t["attempt"] < attempt]
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

    def goodput(self) -> float:
        """Return useful seconds of all attempts over those since the first began, now."""
        record = self._record()
        seconds = record["seconds"]
        seconds[record["phase"]] = seconds.get(record["phase"], 0.0) + record["phase_seconds"]
        begun = min([t["started"] for t in self._earlier] + [self._started])
        chain = [*self._earlier, record]
        following = [*chain[1:], None]
        useful = sum(kept_seconds(t, next_) for t, next_ in zip(chain, following, strict=True))
        return useful / max(record["written"] - begun, 1e-9)

    def write(self) -> None:
        """Rewrite the file, atomically. Raises OSError (a full disk)."""
        write_json(self._path, self._record(), synced=False)

    def _record(self) -> dict[str, Any]:
        return {
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


def useful_seconds(seconds: Mapping[str, float]) -> float:
    """Return how much of the seconds by phase was progress."""
    return sum(seconds.get(phase, 0.0) for phase in USEFUL)


def repeated_share(timeline: Mapping[str, Any], following: Mapping[str, Any] | None) -> float:
    """Return which share of an attempt's steps the next attempt did again."""
    if not timeline or following is None or following.get("first_step", -1) < 0:
        return 0.0
    first, last = timeline.get("first_step", -1), timeline.get("step", 0)
    if first < 0 or last <= first:
        return 0.0
    return min(max(last - following["first_step"], 0) / (last - first), 1.0)


def kept_seconds(timeline: Mapping[str, Any], following: Mapping[str, Any] | None) -> float:
    """Return the useful seconds of an attempt, without those of steps that the next one repeats."""
    return useful_seconds(timeline["seconds"]) * (1.0 - repeated_share(timeline, following))


def read_timelines(folder: Path, note: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """Return the timelines of a run's attempts in order; unreadable ones are left out.

    note: is told which and why.
    """
    found = []
    for path in matching(folder / _FOLDER, "attempt-", note):
        content = read_object(path)
        problem = content.problem or _what_is_wrong(content.values)
        if not problem:
            found.append({"moved": content.values["written"]} | content.values)
        elif note is not None:
            note(content.problem or f"{path.name}: {problem}")
    return found


def matching(folder: Path, prefix: str, note: Callable[[str], None] | None = None) -> list[Path]:
    """Return the JSON files of a folder whose names begin so, in order; [] where it is none."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        if note is not None:
            note(f"{folder.name}: cannot be read ({error.strerror})")
        return []
    wanted = [name for name in names if name.startswith(prefix) and name.endswith(".json")]
    return [folder / name for name in sorted(wanted)]


def _what_is_wrong(record: dict[str, Any]) -> str:
    """Return why a timeline cannot be counted with, or ''."""
    if missing := {"attempt", "started", "written", "seconds"} - record.keys():
        return f"lacks {', '.join(sorted(missing))}"
    seconds = record["seconds"]
    known = {key: record[key] for key in _NUMBERS if key in record}
    if not isinstance(seconds, dict):
        return "seconds is no object"
    known |= {f"seconds.{phase}": spent for phase, spent in seconds.items()}
    for key, value in known.items():
        number = number_of(value)
        if number is None or not -1 <= number < _MOST:
            return f"{key} is no number that it can have"
    return "" if isinstance(record.get("phase", ""), str) else "phase is no text"
