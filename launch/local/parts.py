"""A long task as commands run one after the other, each of which can be taken up again."""

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from data.files import write_json
from data.reading import number_of, read_object

Part = tuple[str, list[str]]
_INTERRUPTED = 130
_NOTE_SECONDS = 5.0


def run_parts(parts: Sequence[Part], ledger: Path) -> int:
    """Run ``kinescale`` commands, given as (title, words); stop at the first that fails.

    ledger: a file that holds what all starts of the task took together, said at its end.
    Returns the failed command's exit status, or 0.
    """
    clock = _Ledger(ledger)
    for number, (title, words) in enumerate(parts, 1):
        print(f"[{number}/{len(parts)}] {title}: kinescale {' '.join(words)}", flush=True)
        status = _wait(subprocess.Popen([sys.executable, "-m", "kinescale", *words]), clock)
        if status == _INTERRUPTED:  # the part has said so
            return status
        if status:
            print(f"stopped with status {status}; the same command continues.", file=sys.stderr)
            return status
    print(clock.words())
    return 0


class _Ledger:
    """Seconds of this start and of earlier ones, written down as they pass: a start may be killed.

    What cannot be written is not counted the next time.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._started = path, time.monotonic()
        known = read_object(path).values
        self._starts = int(number_of(known.get("starts")) or 0) + 1
        self._before = number_of(known.get("seconds")) or 0.0

    def note(self) -> None:
        """Write down what all starts took so far."""
        spent = self._before + time.monotonic() - self._started
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, {"starts": self._starts, "seconds": spent}, synced=False)

    def words(self) -> str:
        """Say at the end what this start took, and all together where there were several."""
        self.note()
        spent = time.monotonic() - self._started
        text = f"finished in {_minutes(spent)}"
        if self._starts > 1:
            text += f"; all {self._starts} starts together took {_minutes(self._before + spent)}"
        return text


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _wait(process: subprocess.Popen[bytes], clock: _Ledger) -> int:
    """Wait for a part; it gets Ctrl-C from the terminal itself, and time to save."""
    while True:
        try:
            return process.wait(_NOTE_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        except KeyboardInterrupt:
            continue
        finally:
            clock.note()
