"""What the tests of mirrors share: a frozen run, its metrics, and waiting."""

import time
from collections.abc import Callable
from pathlib import Path

from trainer.identity import freeze
from trainer.run.metrics import MetricsFile

from ..conftest import compose_smoke


def write(path: Path, resume_step: int, steps: range, loss: float) -> None:
    """Write rows of training as an attempt that begins at a step."""
    metrics = MetricsFile(path, resume_step)
    for step in steps:
        metrics.write({"step": step, "train_loss": loss})
    metrics.close()


def make_run(latents: Path, folder: Path, *overrides: str) -> Path:
    """Freeze a run."""
    freeze(compose_smoke(latents, "log.group=study", "log.project=tests", *overrides), folder)
    return folder


def wait_until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
