"""The trainer's side of the mirror: start it, and leave it in time."""

import contextlib
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from trainer.log_config import WandbMode
from trainer.mirror.wandb_run import own_environment

log = logging.getLogger(__name__)
LOG_FILE = Path("wandb") / "mirror.log"


class MirrorProcess:
    """A process that mirrors a run; a run never waits for it longer than it was told to.

    It reads the folder, so a step costs the trainer nothing whatever the history's length. It has a
    session of its own: signals that stop a run leave it to send the last records.
    """

    def __init__(self, folder: Path, mode: WandbMode) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        if mode is WandbMode.disabled:
            return
        environment = own_environment() | {"OMP_NUM_THREADS": "1"}
        try:
            (folder / LOG_FILE).parent.mkdir(exist_ok=True)
            with (folder / LOG_FILE).open("ab") as out:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "trainer.mirror", str(folder), mode.value],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                    env=environment,
                )
        except OSError as error:
            log.warning("W&B: the mirror cannot be started (%s)", error)

    def finish(self, seconds: float) -> bool:
        """Tell the mirror that the run is over; return whether it ended well within ``seconds``.

        What it could not send is in metrics.jsonl: a line says how to send it later.
        """
        if self._process is None:
            return True
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it died already
            self._process.stdin.close()
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._stop()
            status = -1
        if status != 0:
            why = "did not end in time" if status == -1 else f"ended with status {status}"
            log.warning(
                "W&B: the mirror %s (%s). Send the rest with: kinescale wandb-sync %s",
                why,
                self._folder / LOG_FILE,
                self._folder,
            )
        return status == 0

    def _stop(self) -> None:
        """End the mirror and the service that wandb started, which share its session."""
        assert self._process is not None
        for number, patience in ((15, 1.0), (9, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                time.sleep(0.05)
                return
