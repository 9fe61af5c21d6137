"""A process that has imported what a training needs, and forks itself for each run.

usage: python -m trainer.warm          a launcher starts it (launch/local/warm.py)

Importing takes three processor-seconds, as long as the training of a run of 1e11 FLOPs. A fork
shares what is imported and nothing else: each run is a process of its own, in its own session, with
its own lease, heartbeat and end, and computes bit for bit what it would have alone.

stdin: an order a line, {"folder", "log", "environment"}; its end ends this process, and the kernel
then asks the runs to save. stdout: {"ready": true}, then {"pid"} for each order and
{"pid", "status"} when that run has ended; a status is negative for a signal. One order at a time.
"""

import ctypes
import gc
import json
import os
import selectors
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Order:
    """A run to train: its folder, the file that its output is appended to, its environment."""

    folder: str
    log: str
    environment: dict[str, str]


def serve() -> Order:
    """Fork for each order; return it in the child. In this process it never returns."""
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, _noticed)
    signal.set_wakeup_fd(wake)
    _say({"ready": True})
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(awake, selectors.EVENT_READ)
        while True:
            ready = [key.fd for key, _ in selector.select()]
            if awake in ready:
                os.read(awake, 4096)
                _tell_ended()
            if 0 not in ready:
                continue
            read = os.read(0, 1 << 16)
            if not read:
                raise SystemExit(0)
            *lines, pending = (pending + read).split(b"\n")
            for line in lines:
                order = Order(**json.loads(line))
                _read_index(Path(order.folder))
                if not os.fork():
                    break
            else:
                continue
            break  # a child
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(awake)
    os.close(wake)
    return order


def _read_index(folder: Path) -> None:
    """Parse the index of a run's clips, which is kept, for all runs that train on them."""
    from data.dataset.opening import open_index
    from trainer.config import load_run

    with suppress(ValueError, OSError):  # the run itself says what is wrong
        run = load_run(folder)
        if not run.data.mixture:
            for split in (run.data.train_split, *run.validation.splits):
                open_index(run.data.root, split)


def _noticed(number: int, frame: object) -> None:
    """Let the wakeup file tell; without a handler nothing is written to it."""


def _tell_ended() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _say({"pid": pid, "status": os.waitstatus_to_exitcode(status)})


def _say(record: dict[str, object]) -> None:
    os.write(1, json.dumps(record).encode() + b"\n")


def become(order: Order, parent: int) -> NoReturn:
    """Be the process of a run, as if it had been started by its command."""
    log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 2)
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the launcher died")
    _say({"pid": os.getpid()})  # from here on a signal finds it, and its session
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(log, 1)
    os.close(nowhere)
    os.close(log)
    os.environ.clear()
    os.environ.update(order.environment)
    from trainer.train import main

    words = ["--run", order.folder]
    sys.argv = [str(sys.modules["trainer.train"].__file__), *words]
    main.run(words)


def _import_all() -> None:
    """Import what the training of a diffusion transformer on CPU imports, and no more."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import trainer.diffusion.attempt
    import trainer.parallel.zero
    import trainer.train

    trainer.parallel.zero.import_engine()
    gc.collect()
    gc.freeze()  # so that a collection in a child does not touch, and so copy, what is shared


if __name__ == "__main__":
    _import_all()
    own = os.getpid()
    become(serve(), own)
