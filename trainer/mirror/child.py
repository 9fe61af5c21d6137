"""The trainer's side of what follows a run: start it, and leave it in time."""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.notices import doing
from trainer.log_config import LogConfig, WandbMode
from trainer.mirror.wandb_run import own_environment

log = logging.getLogger(__name__)
ALERT_SECONDS = 12.0  # a little more than an alert may take, see alerts.py


@dataclass(frozen=True)
class Task:
    """One process that follows a run. word: what it is told to do (``__main__.py``).

    title: in messages; log: its own, in the run's folder. seconds: that a run waits for it at most.
    later: how to make good what it did not do, ``{}`` is the folder.
    """

    word: str
    title: str
    log: Path
    seconds: float
    later: str


def tasks_of(config: LogConfig) -> Iterator[Task]:
    """Yield what a run's log section asks for; each is a process, so that none ends another."""
    seconds = config.wandb_seconds
    if config.wandb is not WandbMode.disabled:
        yield wandb_task(config.wandb, seconds)
    if config.tensorboard:
        place, later = Path("tensorboard") / "mirror.log", "Make it again: kinescale tensorboard {}"
        yield Task("tensorboard", "TensorBoard", place, seconds, later)
    webhook = config.alerts.webhook
    if webhook and not os.environ.get(webhook):
        log.warning("log.alerts.webhook=%s: is not set here, so no webhook is told", webhook)
    if webhook or config.alerts.mail:
        yield Task("alerts", "alerts", Path("alerts.log"), ALERT_SECONDS, "Nobody was told")


def wandb_task(mode: WandbMode, seconds: float) -> Task:
    """Return the mirror to W&B."""
    later = "Send the rest with: kinescale wandb-sync {}"
    return Task(mode.value, "W&B", Path("wandb") / "mirror.log", seconds, later)


class Followers:
    """The processes that follow a run; it never waits for one longer than it was told to.

    They read the folder, so a step costs the trainer nothing whatever the history's length. Each
    has a session of its own: signals that stop a run leave it to send the last records.
    """

    def __init__(self, folder: Path, tasks: Sequence[Task], attempt: int) -> None:
        started = ((task, _start(folder, task, attempt)) for task in tasks)
        self._folder = folder
        self._running = [(task, process) for task, process in started if process is not None]

    def finish(self) -> bool:
        """Tell all that the attempt is over; return whether each ended well within its time."""
        for _, process in self._running:
            assert process.stdin is not None
            with contextlib.suppress(OSError):  # it died already
                process.stdin.close()
        titles = ", ".join(task.title for task, _ in self._running)
        most = max((task.seconds for task, _ in self._running), default=0.0)
        began = time.monotonic()
        with doing(f"the run is over, {titles} may take the rest for {most:.0f} s"):
            ended = [self._wait(task, process, began) for task, process in self._running]
        return all(ended)

    def _wait(self, task: Task, process: subprocess.Popen[bytes], began: float) -> bool:
        """Wait for one; what it did not do is told in a line, with how to do it later."""
        try:
            status = process.wait(max(began + task.seconds - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            _stop(process)
            status = -1
        if status != 0:
            why = "did not end in time" if status == -1 else f"ended with status {status}"
            place, later = self._folder / task.log, task.later.format(self._folder)
            log.warning("%s: the mirror %s (%s). %s", task.title, why, place, later)
        return status == 0


def _start(folder: Path, task: Task, attempt: int) -> subprocess.Popen[bytes] | None:
    """Start a process that follows a folder; None, and a line, where it cannot be."""
    words = [str(folder), task.word, f"attempt={attempt}", f"watched={os.getpid()}"]
    try:
        (folder / task.log).parent.mkdir(exist_ok=True)
        with (folder / task.log).open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "trainer.mirror", *words],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env=own_environment() | {"OMP_NUM_THREADS": "1"},
            )
    except OSError as error:
        log.warning("%s: the mirror cannot be started (%s)", task.title, error)
        return None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a mirror and the service that wandb started, which share its session."""
    for number, patience in ((15, 1.0), (9, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            time.sleep(0.05)
            return
