"""How an attempt at a run ended, where somebody should know; torch-free."""

import os
from dataclasses import dataclass
from pathlib import Path

from data.reading import read_object
from trainer.mirror.tail import last_step
from trainer.run.attempt import STOPPED_FILE


@dataclass(frozen=True)
class Alert:
    """What somebody is told. what: diverged, stalled, failed or ended; of: a run or a study."""

    what: str
    of: str
    text: str

    @property
    def title(self) -> str:
        """Return it in a few words."""
        return f"{self.of}: {self.what}"


def ending_of(folder: Path, attempt: int) -> Alert | None:
    """Return what to tell of an attempt that is over; None where all is well.

    All is well with a run that finished, one that stopped as it was asked to and goes on when it is
    started again, and one that a newer attempt has taken over.
    """
    name = folder.resolve().name
    result = read_object(folder / "result.json")
    if result.values.get("status") == "diverged":
        return Alert("diverged", name, str(result.values.get("reason", "")))
    stopped = read_object(folder / STOPPED_FILE).values.get("attempt")
    if result.exists or stopped == attempt or _newest_attempt(folder) > attempt:
        return None
    if stall := stalled(folder):
        return stall
    text = f"attempt {attempt} ended without a result after step {last_step(folder)}. "
    return Alert("failed", name, f"{text}See log.txt in {folder}, or what was printed.")


def stalled(folder: Path) -> Alert | None:
    """Return what a watchdog of this attempt reported; the next one removes it (heartbeat.py)."""
    report = read_object(folder / "stalled.json")
    if not report.exists:
        return None
    return Alert("stalled", folder.resolve().name, str(report.values.get("summary", "")))


def _newest_attempt(folder: Path) -> int:
    try:
        names = os.listdir(folder / "attempts")
    except OSError:
        return 0
    return max((int(name) for name in names if name.isdecimal() and len(name) < 10), default=0)
