"""Show progress with an ETA: a bar on a terminal, elsewhere a plain line now and then."""

from types import TracebackType
from typing import Self

from rich import progress
from rich.console import Console

from data.notices import Pulse


class Progress:
    """A context manager whose ``update(done, total, text)`` may be called as often as one likes."""

    def __init__(self, title: str, console: Console) -> None:
        self.title, self.console = title, console
        self.first: float | None = None  # work found done, which says nothing about speed
        self.state = (0.0, 0.0, "")
        self.bar: progress.Progress | None = None
        self.pulse = Pulse(self._line)

    def __enter__(self) -> Self:
        if not self.console.is_terminal:
            self.pulse.__enter__()
            return self
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
        self.state = done, total, text
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total, text=text)

    def _line(self, spent: float) -> None:
        """Print how far the work is, and when it will end where that can be said."""
        (done, total, text), first = self.state, self.first
        gained = 0.0 if first is None else done - first
        eta = f"{spent * (total - done) / gained:.0f} s" if gained > 0 else "unknown"
        parts = [f"{done / max(total, 1e-9):.0%}", *([text] if text else [])]
        self.console.print(
            f"{self.title}: {', '.join(parts)}, {spent:.0f} s, ETA {eta}",
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
        else:
            self.pulse.__exit__()
