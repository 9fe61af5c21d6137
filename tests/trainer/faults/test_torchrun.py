"""The same through the command people type: kinescale train, which becomes torchrun."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.config import compose_run
from trainer.identity import run_name
from trainer.run.heartbeat import read_heartbeats

from .conftest import Inject, Twin
from .harness import wait_until
from .runs import (
    assert_exactly_once,
    assert_twins,
    checkpoint_steps,
    logged_steps,
    repeated_steps,
    two_ranks,
    words,
)

pytestmark = [pytest.mark.dist, pytest.mark.slow]
ROOT = Path(__file__).parents[3]
STEPS = 40
LONG = [f"horizon.steps={STEPS}", "checkpoint.steps=5"]
SECONDS = 240.0


class Command:
    """``kinescale train`` with the given words, in a session of its own."""

    def __init__(self, log: Path, *words: str) -> None:
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainer.train", *words],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> "Command":
        """Return the command, all of whose processes end with the block."""
        return self

    def __exit__(self, *error: object) -> None:
        """End torchrun and its ranks, as far as they still run."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def reached(folder: Path, step: int, before: set[int]) -> dict[int, int]:
    """Wait until an attempt other than that of the pids ``before`` logs a step; return its pids."""

    def pids() -> dict[int, int]:
        return {sign["rank"]: sign["pid"] for sign in read_heartbeats(folder)}

    def is_there() -> bool:
        found = pids()
        fresh = len(found) == 2 and not before & set(found.values())
        return fresh and max(logged_steps(folder), default=0) >= step

    wait_until(is_there, SECONDS)
    return pids()


def test_torchrun_with_a_killed_rank_and_then_sigterm_loses_nothing(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject
) -> None:
    command = words(latents, *two_ranks(), *LONG, f"run_root={tmp_path}")
    folder = tmp_path / run_name(compose_run(command))
    log = tmp_path / "log.txt"
    row = inject("torchrun: kill -9 of a rank")
    with Command(log, *command) as torchrun:
        pids = reached(folder, 8, set())
        os.kill(pids[1], signal.SIGKILL)
        assert torchrun.process.wait(SECONDS) != 0, log.read_text()
    row.detect()
    repeated = max(logged_steps(folder)) - max(checkpoint_steps(folder))
    stopped = inject("torchrun: SIGTERM")
    with Command(log, *command) as torchrun:
        reached(folder, 16, set(pids.values()))
        torchrun.process.send_signal(signal.SIGTERM)
        assert torchrun.process.wait(SECONDS) != 0, log.read_text()
    assert max(checkpoint_steps(folder)) == max(logged_steps(folder)) < STEPS
    stopped.detect()
    with Command(log, *command) as torchrun:
        assert torchrun.process.wait(SECONDS) == 0, log.read_text()
    expected = twin(2, *two_ranks(), *LONG)
    assert_twins(folder, expected)
    assert_exactly_once(folder, epochs=5)
    # None because of SIGTERM. The killed attempt may have done one step that it did not log.
    assert repeated <= repeated_steps(folder) <= repeated + 1
    row.recover(folder, expected)
    stopped.recovered += 1
