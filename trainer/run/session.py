"""One attempt at a run of any kind: alone in its folder, numbered, and marked when it is stopped.

Torch-free: the processes of an attempt agree through the few collectives that they hand in.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from data.files import write_json
from trainer.config import CheckpointConfig
from trainer.run.attempt import Busy, clear_stopped, ended_attempts, mark_stopped
from trainer.run.environment import environment
from trainer.run.lease import Fence


class Peers(Protocol):
    """The processes of an attempt; ``trainer.parallel.mesh.Mesh`` is one."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""

    def any(self, flag: bool, /) -> bool:
        """Tell whether any process raises the flag; collective."""

    def sum(self, *values: float) -> list[float]:
        """Sum values over the processes; collective."""


class Session:
    """The right of this attempt to write to a run folder.

    attempt: its number, the same on all processes and larger than that of all earlier attempts.
    check: on the main process, raises Fenced when a newer attempt owns the folder; call it right
        before each publishing rename. None on the others, which write nothing that counts.
    """

    def __init__(self, folder: Path, attempt: int, fence: Fence | None) -> None:
        self.folder, self.attempt, self._fence = folder, attempt, fence
        self.check: Callable[[], None] | None = None if fence is None else fence.check

    @classmethod
    def take(cls, folder: Path, peers: Peers) -> Self:
        """Make this attempt the only one that writes to the run, and say where it runs; collective.

        Raises ValueError on all processes while another attempt lives.
        """
        fence, refusal = None, None
        if peers.is_main:
            try:
                fence = Fence.take(folder, ended=ended_attempts())
            except ValueError as error:
                refusal = error
        if peers.any(refusal is not None):  # peers of a refused process would wait for ever
            raise refusal or Busy(f"run={folder}: is being trained by another process.")
        (attempt,) = peers.sum(0.0 if fence is None else float(fence.attempt))
        session = cls(folder, int(attempt), fence)
        if fence is not None:
            clear_stopped(folder)
            write_json(folder / "env.json", environment())
        return session

    def mark_stopped(self, step: int) -> None:
        """Say that the attempt stopped as asked after ``step``; the main process does it.

        Raises Fenced.
        """
        if self._fence is not None:
            self._fence.check()
            mark_stopped(self.folder, self.attempt, step)

    def release(self) -> None:
        """End the attempt: the next one need not wait."""
        if self._fence is not None:
            self._fence.release()


class SaveClock:
    """When the next checkpoint is due, by a run's policy; the main process asks it."""

    def __init__(self, policy: CheckpointConfig) -> None:
        self._policy, self._last = policy, time.monotonic()

    def due(self, done: int) -> bool:
        """Tell whether to save after the step that follows ``done`` steps."""
        seconds, steps = self._policy.seconds, self._policy.steps
        if seconds and time.monotonic() - self._last > seconds:
            return True
        return bool(steps) and (done + 1) % steps == 0

    def reset(self) -> None:
        """Count the time from now: a checkpoint is under way."""
        self._last = time.monotonic()
