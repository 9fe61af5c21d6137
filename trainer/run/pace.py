"""How far an attempt is and when it will end, told to a person now and then."""

import sys
import time

_PRINT_SECONDS = 10.0


class Pace:
    """Tell of steps at the end and when the last line is old.

    step: where the attempt begins; total: steps of the whole run.
    """

    def __init__(self, step: int, total: int) -> None:
        self._first, self._total = step, total
        self._started = self._printed = time.monotonic()

    def due(self, step: int) -> bool:
        """Tell whether a line is due after so many steps."""
        return step >= self._total or time.monotonic() - self._printed >= _PRINT_SECONDS

    def rate(self, step: int) -> float:
        """Return the steps a second of this attempt."""
        return (step - self._first) / max(time.monotonic() - self._started, 1e-9)

    def tell(self, step: int, words: str) -> None:
        """Print a line with the time left."""
        self._printed = time.monotonic()
        left = int((self._total - step) / max(self.rate(step), 1e-9))
        eta = f"ETA {left // 60:02d}:{left % 60:02d}"
        print(f"step {step}/{self._total}  {words}  {eta}", file=sys.stderr, flush=True)
