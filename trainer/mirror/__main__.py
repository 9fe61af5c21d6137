"""Follow one run; started by its trainer, whose pipe tells that it is over. See child.py."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path

from trainer.log_config import WandbMode
from trainer.mirror.follow import Broken, Mirror, follow
from trainer.mirror.wandb_run import own_environment


def main(argv: list[str]) -> int:
    """Follow ``FOLDER`` in ``MODE`` until standard input ends; a third word ``alone``: no fallback.

    Where a server is no use, this process begins anew with offline files: wandb's own service does
    not let go of a run that it failed to start.
    """
    folder, mode = Path(argv[0]), WandbMode(argv[1])
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log = logging.getLogger("W&B")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer decides when to stop
    over = threading.Event()

    def listen() -> None:
        while os.read(0, 1):
            pass
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        follow(Mirror(folder, mode), over.wait)
    except (Broken, OSError) as error:
        log.warning("W&B %s", error)
        if mode is WandbMode.online and "alone" not in argv:
            log.warning("W&B: offline from here on. Later: kinescale wandb-sync %s", folder)
            again = [sys.executable, "-m", "trainer.mirror", str(folder), WandbMode.offline.value]
            os.execve(again[0], again, own_environment())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
