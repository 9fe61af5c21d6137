"""Progress of many jobs: one fraction, one ETA, as a bar or as plain lines."""

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress


@dataclass(frozen=True)
class Progress:
    """State of a list of jobs at one moment.

    fraction: FLOPs settled over all FLOPs, 0 to 1, never falling; a failed job counts as settled.
    eta_seconds: until all have ended, None before the first step (launch/local/eta.py; in a queue:
        remaining FLOPs over the mean rate).
    message: an event worth a line of its own (a retry, a failure, a warning), else ''.
    """

    fraction: float
    num_jobs: int
    num_done: int
    num_running: int
    num_failed: int
    elapsed_seconds: float
    eta_seconds: float | None
    message: str = ""


def format_clock(seconds: float | None) -> str:
    """Return ``MM:SS`` or ``H:MM:SS``; ``--:--`` for None."""
    if seconds is None:
        return "--:--"
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


class ProgressPrinter:
    """Show :class:`Progress`: a bar with an ETA on a terminal, else a line every ``every_seconds``.

    Use it as a context manager and hand it to ``run_jobs`` as its callback. Events are printed at
    once in both forms.
    """

    def __init__(
        self, title: str, stream: TextIO | None = None, every_seconds: float = 10.0
    ) -> None:
        self._title = title
        self._stream = stream or sys.stderr
        self._every_seconds = every_seconds
        self._last_line = -float("inf")
        self._last: Progress | None = None
        self._bar: RichProgress | None = None
        self._task = TaskID(0)
        if self._stream.isatty():
            self._bar = RichProgress(
                TextColumn("[bold]{task.fields[title]}", markup=True),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[state]}", markup=False),
                console=Console(file=self._stream),
            )

    def __enter__(self) -> "ProgressPrinter":
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=1.0, title=self._title, state="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._last is not None:
            self._line(self._last)

    def __call__(self, progress: Progress) -> None:
        """Show one state."""
        if self._bar is not None:
            if progress.message:
                self._bar.console.print(progress.message, markup=False, highlight=False)
            self._bar.update(
                self._task, completed=progress.fraction, state=describe_progress(progress)
            )
            return
        if progress.message:
            print(f"[{self._title}] {progress.message}", file=self._stream, flush=True)
        self._last = progress
        if time.monotonic() - self._last_line >= self._every_seconds:
            self._line(progress)

    def _line(self, progress: Progress) -> None:
        text = f"[{self._title}] {progress.fraction:.0%} {describe_progress(progress)}"
        print(text.replace("%", " %", 1), file=self._stream, flush=True)
        self._last_line, self._last = time.monotonic(), None


def describe_progress(progress: Progress) -> str:
    """Return ``12/25 runs, 2 running, ETA 05:12``; failures are named when there are any."""
    parts = [f"{progress.num_done}/{progress.num_jobs} runs", f"{progress.num_running} running"]
    if progress.num_failed:
        parts.append(f"{progress.num_failed} FAILED")
    if progress.num_done + progress.num_failed == progress.num_jobs:
        parts.append(f"took {format_clock(progress.elapsed_seconds)}")
    else:
        parts.append(f"ETA {format_clock(progress.eta_seconds)}")
    return ", ".join(parts)
