"""Signs of life of every rank, and a watchdog that names the rank that hangs; torch-free.

A rank that dies or hangs leaves the others waiting in a collective without a word. So a thread of
each rank writes its step and phase to ``heartbeats/rank-00003.json``, and when its own rank has not
moved for too long, it ends the process, whose main thread cannot. One of four ranks compares
everybody's files first and reports who holds the run up; the others wait for its report.
"""

import json
import logging
import os
import shutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data.files import write_text
from data.reading import number_of, read_object
from trainer.run.attempt import Timeline, matching
from trainer.run.suspects import find_suspects, turn_of

log = logging.getLogger(__name__)

STALLED = 76  # exit status of a rank whose watchdog ended it: find the culprit, start again
_FOLDER = "heartbeats"
_REPORT = "stalled.json"
_RECORDS = "stalled"
_STARTS = ("load", "start")  # phases in which weights are read, drawn and laid out
_SIGN_KEYS = {"rank", "host", "pid", "step", "phase", "beat", "time", "noticed"}
# Everyone who lives writes once a beat; a little more than two leaves room for a slow disk.
_WATCH_BEATS = 2.25
# Longer than a report takes; a rank that hangs in it must still leave.
_REPORT_BEATS = 5.0
# Between the turns of ranks to look: a watch, and time to write what it saw.
_TURN_BEATS = 3.5
# A thread that slept so much too long was stopped with its process, or the machine was.
_LATE_BEATS = 3.0


@dataclass(frozen=True)
class _Position:
    """Where the main thread is, and since when; replaced as a whole, so never half new."""

    step: int
    phase: str
    since: float


@dataclass(frozen=True)
class _Watch:
    """The signs of life as a stalled rank first saw them; ``began`` after all were read."""

    began: float
    signs: dict[int, dict[str, Any]]


def exit_stalled() -> None:
    """End the process at once, with status ``STALLED``: the main thread sits in a collective."""
    os._exit(STALLED)


class Heartbeat:
    """Write one rank's signs of life, and report and leave when the run has stalled.

    folder: the run folder. beat_seconds: how often to write; longer than a shared file system
    hides a change from other hosts. stall_seconds: how long one phase may last; 0 turns the
    watchdog off. on_stall: called in the watchdog's thread after the report. timeline: told the
    same, and written with every beat; the main rank's. record: returns what the collectives of this
    process did last, as text, which is kept beside the report in ``stalled/``. start_seconds: how
    long loading and starting may last, if longer than stall_seconds.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        world: int,
        beat_seconds: float,
        stall_seconds: float,
        on_stall: Callable[[], None] = exit_stalled,
        timeline: Timeline | None = None,
        record: Callable[[], str] | None = None,
        start_seconds: float = 0.0,
    ) -> None:
        self._start_seconds = start_seconds
        self._record, (self._turn, self._watched) = record, turn_of(rank, world)
        self._folder, self._rank, self._world = folder, rank, world
        self._beat_seconds, self._stall_seconds = beat_seconds, stall_seconds
        self._on_stall, self._timeline = on_stall, timeline
        self._position = _Position(0, "start", time.monotonic())
        self._awake_since = 0.0
        self._watch: _Watch | None = None
        self._beats = 0
        self._can_write = True
        self._old_report: int | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Write the first sign of life and begin the thread; the watchdog counts from here."""
        (self._folder / _FOLDER).mkdir(parents=True, exist_ok=True)
        if self._rank == 0:
            (self._folder / _REPORT).unlink(missing_ok=True)
            shutil.rmtree(self._folder / _RECORDS, ignore_errors=True)
        self._old_report = _identity(self._folder / _REPORT)
        self.advance(self._position.step, self._position.phase)
        self._beat()
        self._thread.start()

    def advance(self, step: int, phase: str) -> None:
        """Note that the main thread entered a phase of a step; costs microseconds."""
        self._position = _Position(step, phase, time.monotonic())
        if self._timeline is not None:
            self._timeline.advance(step, phase)

    def stop(self) -> None:
        """End the thread and leave a last sign with phase ``ended``."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._beat_seconds)
        self.advance(self._position.step, "ended")
        self._beat()

    def _live(self) -> None:
        beat_due = time.monotonic() + self._beat_seconds
        while True:
            # Only sleep counts as lateness, not what this thread itself was busy with.
            due = max(min(beat_due, self._look_due()), time.monotonic())
            if self._stopping.wait(due - time.monotonic()):
                return
            now = time.monotonic()
            if now - due > _LATE_BEATS * self._beat_seconds:
                log.warning("rank %d was itself stopped for %.1f s", self._rank, now - due)
                # The others may have waited for this rank: give them time to move again.
                self._awake_since, self._watch = now, None
            if now >= beat_due:
                self._beat()
                beat_due = now + self._beat_seconds
            self._look(now)

    def _stalled_at(self) -> float:
        """Return when this rank counts as stalled unless it moves before."""
        if self._stall_seconds <= 0:
            return float("inf")
        position, allowed = self._position, self._stall_seconds
        if position.phase in _STARTS:
            allowed = max(allowed, self._start_seconds)
        return max(position.since, self._awake_since) + allowed

    def _turn_at(self) -> float:
        """Return when this rank looks at others unless one has reported before."""
        return self._stalled_at() + self._turn * _TURN_BEATS * self._beat_seconds

    def _look_due(self) -> float:
        if self._watch is None:  # every beat looks for another rank's report besides
            return self._turn_at()
        return self._watch.began + _WATCH_BEATS * self._beat_seconds

    def _look(self, now: float) -> None:
        if now < self._stalled_at():
            self._watch = None
        elif self._is_reported():
            self._leave(self._repeat, now)
        elif self._watch is None:
            if now >= self._turn_at():
                signs = _signs(self._folder, self._watched)
                self._watch = _Watch(time.monotonic(), signs)
        elif now >= self._look_due():
            self._leave(self._report, self._watch, now)

    def _leave(self, report: Callable[..., None], *arguments: Any) -> None:
        self._watch, self._awake_since = None, time.monotonic()
        # The main thread may hang in the very file system or log that a report needs.
        reporter = threading.Thread(target=report, args=arguments, daemon=True)
        reporter.start()
        reporter.join(_REPORT_BEATS * self._beat_seconds)
        self._on_stall()

    def _is_reported(self) -> bool:
        """Tell whether another rank of this attempt has reported the stall."""
        return _identity(self._folder / _REPORT) not in (None, self._old_report)

    def _repeat(self, now: float) -> None:
        """Leave with what another rank found."""
        self._beat(noticed=True)
        report = read_object(self._folder / _REPORT).values
        self._tell(now, str(report.get("summary", "another rank has reported it")))

    def _tell(self, now: float, summary: str) -> None:
        position = self._position
        log.error(
            "rank %d: no progress for %.0f s at step %d in %s: %s. Its main thread:\n%s",
            *(self._rank, now - position.since, position.step, position.phase, summary),
            _main_stack(),
        )
        if self._record is None:
            return
        path = self._folder / _RECORDS / f"rank-{self._rank:05d}.json"
        try:
            path.parent.mkdir(exist_ok=True)
            write_text(path, self._record(), synced=False)
        except (OSError, RuntimeError) as error:
            log.error("%s: cannot be written (%s)", path, error)

    def _report(self, watch: _Watch, now: float) -> None:
        position = self._position
        # The last sign says that this rank noticed and left, so that nobody takes it for the one
        # that hangs.
        self._beat(noticed=True)
        # This rank lives, even if its disk is full.
        own = self._sign(noticed=True) | {"written": 0.0}
        signs = _signs(self._folder, self._watched) | {self._rank: own}
        suspects, summary = find_suspects(watch.signs, signs, self._watched)
        report = {
            "noticed_by": self._identity(),
            "step": position.step,
            "phase": position.phase,
            "seconds": round(now - position.since, 3),
            "time": _wall_clock(),
            "summary": summary,
            "suspects": [asdict(suspect) for suspect in suspects],
            "main_thread": _main_stack().splitlines(),
        }
        try:
            self._publish(report)
        except OSError as error:
            log.error("%s: cannot be written (%s)", self._folder / _REPORT, error)
        self._tell(now, summary)

    def _publish(self, report: dict[str, Any]) -> None:
        """Write the report unless another rank did: the first saw it before anyone left."""
        path = self._folder / _REPORT
        temporary = path.with_name(f".{_REPORT}-{self._rank}")
        temporary.write_text(json.dumps(report, indent=1) + "\n")
        try:
            if self._old_report is not None and _identity(path) == self._old_report:
                path.unlink(missing_ok=True)
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()

    def _identity(self) -> dict[str, Any]:
        return {"rank": self._rank, "host": socket.gethostname(), "pid": os.getpid()}

    def _sign(self, noticed: bool) -> dict[str, Any]:
        position = self._position
        return self._identity() | {
            "step": position.step,
            "phase": position.phase,
            "beat": self._beats,
            "time": _wall_clock(),
            "noticed": noticed,
        }

    def _beat(self, noticed: bool = False) -> None:
        """Rewrite this rank's file; not synced, since only the living read it."""
        self._beats += 1
        path = _sign_file(self._folder, self._rank)
        try:
            write_text(path, json.dumps(self._sign(noticed)) + "\n", synced=False)
            if self._timeline is not None:
                self._timeline.write()
            self._can_write = True
        except OSError as error:
            if self._can_write:
                log.warning("%s: cannot be written (%s). Others may blame us.", path, error)
            self._can_write = False


def read_heartbeats(
    folder: Path, note: Callable[[str], None] | None = None
) -> list[dict[str, Any]]:
    """Return the last sign of life of each rank of a run, by rank; unreadable ones are left out.

    Ranks of an earlier, larger attempt are among them. Only a ``beat`` that changes proves life:
    ``time`` is by the clock of the rank's host, ``written`` by that of the file server. note: is
    told which cannot be read and why; else the log is.
    """
    tell = note or _warn
    return _read_signs(matching(folder / _FOLDER, "rank-", tell), tell)


def _read_signs(paths: list[Path], tell: Callable[[str], None]) -> list[dict[str, Any]]:
    signs = []
    for path in paths:
        content = read_object(path)
        problem = content.problem or _what_is_wrong(content.values)
        if not problem:
            try:
                signs.append(content.values | {"written": path.stat().st_mtime})
            except OSError as error:
                problem = f"cannot be read ({error.strerror})"
        if problem:
            tell(content.problem or f"{path.name}: {problem}")
    return sorted(signs, key=lambda sign: sign["rank"])


def _warn(problem: str) -> None:
    log.warning("a sign of life cannot be read: %s", problem)


def _what_is_wrong(sign: dict[str, Any]) -> str:
    """Return why a sign of life cannot be compared with others, or ''."""
    if missing := _SIGN_KEYS - sign.keys():
        return f"lacks {', '.join(sorted(missing))}"
    for key in ("rank", "step", "pid", "beat"):
        number = number_of(sign[key])
        if not isinstance(sign[key], int) or number is None or not 0 <= number < 1e15:
            return f"{key} is no whole number that it can have"
    wrong = [key for key in ("host", "phase") if not isinstance(sign[key], str)]
    return f"{wrong[0]} is no text" if wrong else ""


def _signs(folder: Path, ranks: Collection[int]) -> dict[int, dict[str, Any]]:
    if isinstance(ranks, range):  # of the whole world: one listing finds those that there are
        return {sign["rank"]: sign for sign in read_heartbeats(folder)}
    paths = [_sign_file(folder, rank) for rank in ranks]
    found = _read_signs([path for path in paths if path.exists()], _warn)
    return {sign["rank"]: sign for sign in found}


def _sign_file(folder: Path, rank: int) -> Path:
    return folder / _FOLDER / f"rank-{rank:05d}.json"


def _identity(path: Path) -> int | None:
    """Return what tells a file from one that replaces it; None if there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _main_stack() -> str:
    """Return where the main thread is, as a traceback prints it."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


def _wall_clock() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
