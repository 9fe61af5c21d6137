"""Show progress with an ETA: a bar on a terminal, a plain line every ten seconds elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich import progress
from rich.console import Console

LINE_SECONDS = 10.0


class Progress:
    """A context manager whose ``update(done, total, text)`` may be called as often as one likes."""

    def __init__(self, title: str, console: Console) -> None:
        self.title, self.console = title, console
        self.started = time.monotonic()
        self.said = self.started
        self.first: float | None = None  # work found done, which says nothing about speed
        self.bar: progress.Progress | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TaskProgressColumn(),
                progress.TimeElapsedColumn(),
                progress.TextColumn("ETA"),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[text]}"),
                console=self.console,
            )
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=None, text="")
        return self

    def update(self, done: float, total: float, text: str) -> None:
        """Show that ``done`` of ``total`` units of work are finished."""
        if self.first is None:
            self.first = done
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total, text=text)
            return
        now = time.monotonic()
        if now - self.said < LINE_SECONDS:
            return
        self.said = now
        spent, gained = now - self.started, done - self.first
        eta = f"{spent * (total - done) / gained:.0f} s" if gained > 0 else "unknown"
        self.console.print(
            f"{self.title}: {done / max(total, 1e-9):.0%}, {text}, {spent:.0f} s, ETA {eta}",
            highlight=False,
            markup=False,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
