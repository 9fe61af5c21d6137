"""What a command is doing, said on stderr once it lasts, so that nobody waits without a word.

    with doing("fitting 60 runs"):
        law = fit(runs)

says nothing of what is over in a moment, else ``fitting 60 runs: 2 s so far`` and again now and
then. A loop that counts is told by ``data/show/progress.py``, in the same rhythm. Standard library
alone: importing libraries is waited for, too.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self


def _first_seconds() -> float:
    """Return what a script that reads stderr may set, as KINESCALE_NOTICE_SECONDS=3600."""
    said = os.environ.get("KINESCALE_NOTICE_SECONDS", "")
    return float(said) if said.isdecimal() else 2.0


FIRST_SECONDS = _first_seconds()  # what is over sooner is not worth a line
NEXT_SECONDS = 10.0


class Pulse:
    """Call ``say(seconds so far)`` after a moment and then now and then, until it is left.

    From a thread, since whoever computes or imports does not come round to it.
    """

    def __init__(self, say: Callable[[float], None]) -> None:
        self._say, self._over = say, threading.Event()
        self._thread = threading.Thread(target=self._beat, name="notices", daemon=True)
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()  # no line after the next thing's own

    def _beat(self) -> None:
        # Signals are the main thread's, which may be waiting in a call that only they end.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        wait = FIRST_SECONDS
        while not self._over.wait(wait):
            with suppress(OSError, ValueError):  # nobody reads any more
                self._say(time.monotonic() - self._started)
            wait = NEXT_SECONDS


@contextmanager
def doing(words: str) -> Iterator[None]:
    """Say what is being done while it is, on stderr, from the moment when it has become long.

    Of a group of processes the first one says it.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return

    def say(seconds: float) -> None:
        print(f"{words}: {seconds:.0f} s so far", file=sys.stderr, flush=True)

    with Pulse(say):
        yield
