"""A long task as commands run one after the other, each of which can be taken up again."""

import subprocess
import sys
import time
from collections.abc import Sequence

Part = tuple[str, list[str]]
_INTERRUPTED = 130


def run_parts(parts: Sequence[Part]) -> int:
    """Run ``kinescale`` commands, given as (title, words); stop at the first that fails.

    Returns its exit status, or 0.
    """
    started = time.monotonic()
    for number, (title, words) in enumerate(parts, 1):
        print(f"[{number}/{len(parts)}] {title}: kinescale {' '.join(words)}", flush=True)
        status = _wait(subprocess.Popen([sys.executable, "-m", "kinescale", *words]))
        if status == _INTERRUPTED:  # the part has said so
            return status
        if status:
            print(f"stopped with status {status}; the same command continues.", file=sys.stderr)
            return status
    spent = time.monotonic() - started
    print(f"finished in {int(spent // 60)} min {int(spent % 60)} s")
    return 0


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a part; it gets Ctrl-C from the terminal itself, and time to save."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue
