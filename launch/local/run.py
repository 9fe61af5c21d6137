"""Run a list of jobs on this machine, several at once, and leave nothing behind.

    jobs --longest first--> slots --SIGTERM, grace, SIGKILL--> outcomes

What a run has done is read from its folder alone, so a launcher that is stopped, or killed, and
started again continues where it was: finished jobs are skipped, the others resume.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any

from data.shell import USER_ERROR
from data.words import counted
from launch.local.eta import Amount, Observation, Track, seconds_left
from launch.local.process import (
    LOG_FILE,
    Child,
    Job,
    RunLocked,
    available_cores,
    read_done,
    tail_text,
)
from launch.local.progress import Progress, ProgressPrinter
from launch.local.warm import WarmStarter
from launch.run_folder.records import CANCELLED_FILE, append_launch, read_json, this_host
from trainer.run.attempt import REFUSED_FILE
from trainer.run.start import warm_folder

__all__ = [
    "Job",
    "Outcome",
    "Progress",
    "ProgressPrinter",
    "Status",
    "available_cores",
    "describe_failures",
    "run_jobs",
]


class Status(StrEnum):
    """How a job ended."""

    done = "done"
    skipped = "skipped"
    failed = "failed"
    interrupted = "interrupted"
    not_started = "not_started"


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    status: ``skipped`` means its marker existed before; ``interrupted`` means a signal to the
        launcher stopped it (it continues next time).
    returncode: of the last attempt, negative for a signal; None if it never started.
    attempts: times it was started.
    seconds: wall time over all attempts.
    reason: one sentence for ``failed``, else ''.
    log_tail: last lines of its log for ``failed``, else ''.
    stopped: whether a signal asked the launcher to stop, even where this job was done before that
        reached it.
    """

    name: str
    status: Status
    returncode: int | None = None
    attempts: int = 0
    seconds: float = 0.0
    reason: str = ""
    log_tail: str = ""
    stopped: bool = False


@dataclass
class _Entry:
    """A job and what the launcher knows of it."""

    job: Job
    track: Track
    attempts: int = 0
    seconds: float = 0.0
    started: float = 0.0
    child: Child | None = None
    outcome: Outcome | None = None


def run_jobs(
    jobs: Sequence[Job],
    slots: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    poll_seconds: float = 0.5,
    *,
    env: Mapping[str, str] | None = None,
    threads_per_process: int = 1,
    grace_seconds: float = 60.0,
    retries: int = 1,
    seen: list[Observation] | None = None,
) -> list[Outcome]:
    """Run ``jobs`` within ``slots`` and return their outcomes in the same order.

    The costliest job that fits the free slots starts next (longest processing time first), so the
    end has little idling; one that is wider than all slots runs alone, and says so. A failed job
    is started again up to ``retries`` times, unless its exit status says that a user must mend
    something; the others go on. On SIGINT or SIGTERM (handled
    while in the main thread) every child gets SIGTERM, ``grace_seconds`` to save, then SIGKILL; a
    second signal skips the wait. Check for ``interrupted`` and ``failed`` afterwards.

    slots: processes at once; 0 takes :func:`available_cores`.
    env: variables added to those of this process.
    seen: what earlier jobs of the kind took, for the ETA; what these take is added.
    Raises ValueError for two jobs with one run folder, or a job without processes.
    """
    _check(jobs, slots)
    entries = [_Entry(job, _track(job)) for job in jobs]
    launcher = _Launcher(
        entries, slots or available_cores(), on_progress, env or {}, threads_per_process,
        grace_seconds, retries, [] if seen is None else seen,
    )  # fmt: skip
    with catch_signals(launcher.stop):
        try:
            launcher.run(poll_seconds)
        finally:
            launcher.kill()
    outcomes = [e.outcome or Outcome(e.job.name, Status.not_started) for e in launcher.entries]
    return [replace(outcome, stopped=launcher.stops > 0) for outcome in outcomes]


def describe_failures(outcomes: Sequence[Outcome]) -> str:
    """Return a text that names every failed job with its reason and last log lines, or ''."""
    failed = [outcome for outcome in outcomes if outcome.status is Status.failed]
    lines = [f"{len(failed)} of {len(outcomes)} jobs failed"] if failed else []
    for outcome in failed:
        lines += ["", f"{outcome.name} ({counted(outcome.attempts, 'attempt')}): {outcome.reason}"]
        lines += [f"    {line}" for line in outcome.log_tail.splitlines()]
    return "\n".join(lines)


def _check(jobs: Sequence[Job], slots: int) -> None:
    if slots < 0:
        raise ValueError(f"slots={slots}: must be 0 or more. 0 takes all cores.")
    folders: set[Path] = set()
    for job in jobs:
        if job.num_processes < 1:
            raise ValueError(
                f"job.num_processes={job.num_processes} ({job.name}): must be 1 or more. Use 1."
            )
        if job.run_dir.resolve() in folders:
            raise ValueError(
                f"job.run_dir={job.run_dir} ({job.name}): must belong to one job. "
                "Remove the duplicate."
            )
        folders.add(job.run_dir.resolve())


@contextmanager
def catch_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Route SIGINT and SIGTERM to ``stop``; only the main thread may, elsewhere do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass
class _Launcher:
    entries: list[_Entry]
    slots: int
    on_progress: Callable[[Progress], None] | None
    env: Mapping[str, str]
    threads: int
    grace_seconds: float
    retries: int
    seen: list[Observation]
    stops: int = 0
    warm: WarmStarter | None = None
    begun: float = field(default_factory=time.monotonic)

    def stop(self) -> None:
        """Ask the loop to end; only counts, since it runs inside a signal handler."""
        self.stops += 1

    def run(self, poll_seconds: float) -> None:
        """Start, watch and settle jobs until all are settled or a stop is asked for."""
        for entry in self.entries:
            entry.track.done = _done(entry.job)
            if entry.job.done_marker.exists():
                entry.outcome = Outcome(entry.job.name, Status.skipped)
        # Importing once more pays where it saves more than one import.
        later = sum(e.outcome is None and _is_warm(e.job) for e in self.entries) - self.slots
        if later > 1:
            with suppress(OSError):  # no more processes: every run is started by its command
                self.warm = WarmStarter(self.env, self.threads)
        while not self.stops and any(entry.outcome is None for entry in self.entries):
            self._start_what_fits()
            self._report()
            time.sleep(poll_seconds)
            self._settle_ended()
        if self.stops:
            self._wind_down(poll_seconds)
        self._report()

    def kill(self) -> None:
        """Kill whatever still runs; a no-op after a normal end."""
        for entry in self._running():
            self.stops = max(self.stops, 1)  # what dies here was interrupted, not at fault
            if entry.child is not None:
                entry.child.kill()
        self._settle_ended()
        if self.warm is not None:
            self.warm.close()

    def _running(self) -> list[_Entry]:
        return [entry for entry in self.entries if entry.child is not None]

    def _start_what_fits(self) -> None:
        waiting = [e for e in self.entries if e.child is None and e.outcome is None]
        for entry in sorted(waiting, key=lambda e: -e.job.cost):
            used = sum(e.job.num_processes for e in self._running())
            wide = entry.job.num_processes > self.slots
            if self.stops or (used + entry.job.num_processes > self.slots and (not wide or used)):
                continue
            if wide:
                takes = counted(entry.job.num_processes, "process", "processes")
                self._report(
                    f"{entry.job.name}: takes {takes} of {counted(self.slots, 'slot')}: it runs "
                    "alone, and slower"
                )
            self._start(entry)

    def _start(self, entry: _Entry) -> None:
        entry.attempts += 1
        entry.started = time.monotonic()
        entry.track.start(entry.started)
        try:
            if entry.attempts == 1:  # asked for again, a run is no longer cancelled
                (entry.job.run_dir / CANCELLED_FILE).unlink(missing_ok=True)
            (entry.job.run_dir / REFUSED_FILE).unlink(missing_ok=True)
            # A run that failed starts again alone: nothing that it shared can be at fault then.
            forks = self.warm and entry.attempts == 1 and _is_warm(entry.job)
            entry.child = Child(
                entry.job, self.env, self.threads, entry.attempts, self.grace_seconds,
                self.warm.fork if self.warm and forks else None,
            )  # fmt: skip
        except (RunLocked, OSError) as error:
            # No retry: a lock or a missing program does not go away by itself. The lock's holder
            # writes the record, not this launcher.
            if isinstance(error, OSError):
                self._record(entry, "end", outcome=Status.failed, reason=str(error))
            self._fail(entry, None, str(error))
            return
        self._record(
            entry, "start", pid=entry.child.pid, processes=entry.job.num_processes, **this_host()
        )

    def _settle_ended(self) -> None:
        for entry in self._running():
            assert entry.child is not None
            code = entry.child.poll()
            if code is None:
                continue
            entry.child = None
            entry.seconds += time.monotonic() - entry.started
            status = self._judge(entry, code)
            if status is not Status.done:
                entry.track.stop()
            elif took := entry.track.end(time.monotonic()):
                self.seen.append(took)
            reason = "" if status is Status.done else _explain(entry.job, code)
            if status is Status.interrupted:
                reason = f"was told to stop, and {reason}"
            self._record(entry, "end", outcome=status or Status.failed, reason=reason)
            if status is Status.failed:
                self._fail(entry, code, reason)
            elif status is None:
                self._report(f"{entry.job.name}: {reason}; it starts again")
            else:
                entry.outcome = Outcome(entry.job.name, status, code, entry.attempts, entry.seconds)

    def _judge(self, entry: _Entry, code: int) -> Status | None:
        """Return how a job ended, None where it is to be started again."""
        if entry.job.done_marker.exists():
            return Status.done
        if self.stops or (entry.job.run_dir / CANCELLED_FILE).exists():
            return Status.interrupted
        # What a user has to mend, such as a value of the config, is the same the next time; of
        # several processes torchrun makes another status.
        refused = code == USER_ERROR or (entry.job.run_dir / REFUSED_FILE).exists()
        return Status.failed if refused or entry.attempts > self.retries else None

    def _record(self, entry: _Entry, event: str, **fields: Any) -> None:
        """Write to launches.jsonl, for status and cancel; a full disk must not end the others."""
        try:
            append_launch(entry.job.run_dir, event, local=True, **fields)
        except OSError as error:
            self._report(f"{entry.job.name}: launches.jsonl cannot be written ({error})")

    def _fail(self, entry: _Entry, code: int | None, reason: str) -> None:
        tail = tail_text(entry.job.run_dir / LOG_FILE)
        entry.outcome = Outcome(
            entry.job.name, Status.failed, code, entry.attempts, entry.seconds, reason, tail
        )
        self._report(f"{entry.job.name}: FAILED, {reason}")

    def _wind_down(self, poll_seconds: float) -> None:
        running = self._running()
        self._report(
            f"stopping: {self.grace_seconds:g} s to save for {counted(len(running), 'run')}"
        )
        for entry in running:
            if entry.child is not None:
                entry.child.terminate()
        deadline = time.monotonic() + self.grace_seconds
        while self._running() and self.stops < 2 and time.monotonic() < deadline:
            time.sleep(min(poll_seconds, 0.1))
            self._settle_ended()

    def _report(self, message: str = "") -> None:
        if self.on_progress is not None:
            self.on_progress(self._progress(message))

    def _progress(self, message: str) -> Progress:
        settled = total = 0.0
        now = time.monotonic()
        for entry in self.entries:
            track, cost = entry.track, entry.job.cost
            if entry.child is not None:
                track.advance(now, _done(entry.job))
            track.over = _is_settled(entry)
            total += cost
            settled += cost if track.over else track.done * cost
        elapsed = now - self.begun
        longest_first = sorted(self.entries, key=lambda e: -e.job.cost)
        statuses = [entry.outcome.status for entry in self.entries if entry.outcome is not None]
        return Progress(
            fraction=settled / total if total else 1.0,
            num_jobs=len(self.entries),
            num_done=sum(status in (Status.done, Status.skipped) for status in statuses),
            num_running=len(self._running()),
            num_failed=statuses.count(Status.failed),
            elapsed_seconds=elapsed,
            eta_seconds=seconds_left(
                [entry.track for entry in longest_first], self.seen, self.slots, now
            ),
            message=message,
        )


def _is_warm(job: Job) -> bool:
    return warm_folder(job.argv) == job.run_dir


def _track(job: Job) -> Track:
    return Track(Amount(1.0, job.tokens, job.cost), job.num_processes)


def _done(job: Job) -> float:
    return read_done(job) / job.cost if job.cost > 0 else 0.0


def _is_settled(entry: _Entry) -> bool:
    ended = (Status.done, Status.skipped, Status.failed)
    return entry.outcome is not None and entry.outcome.status in ended


def _explain(job: Job, code: int) -> str:
    if reason := read_json(job.run_dir / REFUSED_FILE).get("reason"):
        return str(reason)
    if code == 0:
        return f"exited 0 without {job.done_marker.name}"
    return f"exited {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
