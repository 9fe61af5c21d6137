"""Follow one run; started by its trainer, whose pipe tells that it is over. See child.py."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path

from trainer.log_config import WandbMode
from trainer.mirror.follow import Broken, Follower, Mirror, follow
from trainer.mirror.wandb_run import own_environment


def main(argv: list[str]) -> int:
    """Follow ``FOLDER`` for ``WHAT`` until standard input ends.

    WHAT: online or offline (to W&B), tensorboard, or alerts. attempt=N: which is followed;
    watched=N: its process; ``alone``: no fallback. Where a server is no use, this process begins
    anew with offline files: wandb's own service does not let go of a run that it failed to start.
    """
    folder, what = Path(argv[0]), argv[1]
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log = logging.getLogger(what)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer decides when to stop
    over = threading.Event()

    def listen() -> None:
        while os.read(0, 1):
            pass
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        follow(_follower(folder, what, dict(word.split("=") for word in argv[2:] if "=" in word)),
               over.wait)  # fmt: skip
    except (Broken, OSError) as error:
        log.warning("%s%s", "W&B " if what in list(WandbMode) else "", error)
        if what == WandbMode.online and "alone" not in argv:
            log.warning("W&B: offline from here on. Later: kinescale wandb-sync %s", folder)
            again = [sys.executable, "-m", "trainer.mirror", str(folder), WandbMode.offline.value]
            os.execve(again[0], [*again, *argv[2:]], own_environment())
        return 1
    return 0


def _follower(folder: Path, what: str, told: dict[str, str]) -> Follower:
    attempt, watched = int(told.get("attempt", 0)), int(told.get("watched", 0))
    if what == "tensorboard":
        from trainer.mirror.tensorboard import TensorBoardMirror

        return TensorBoardMirror(folder)
    if what == "alerts":
        from trainer.mirror.alerts import AlertFollower

        return AlertFollower(folder, attempt)
    return Mirror(folder, WandbMode(what), attempt, watched)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
