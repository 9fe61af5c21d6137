"""Training runs of several real processes, forked from one server that has torch imported.

A rank starts in well under a second and runs ``trainer.train``, as torchrun would start it: its
exit status is the real one, its signals and files are real. ``Group.wait`` ends the other ranks
when one fails, as torchrun does.
"""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ..rendezvous import Rendezvous

# Besides the obvious: what deepspeed and torch import on the first step, seconds of it.
_PRELOAD = [
    "torch",
    "deepspeed",
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "torch.fx.experimental.symbolic_shapes",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "deepspeed.module_inject.auto_ep_layer",
    "trainer.diffusion.attempt",
    "trainer.parallel.tensor",
    "tests.trainer.faults.inject",
]
_GRACE_SECONDS = 1.0  # torchrun gives 30 s; only ranks that wait for a dead one need it
_PAUSE = 0.02
Install = Callable[[], None]


class Group:
    """The ranks of one attempt at a run.

    faults: by rank, called in that process before it trains. name: of its logs.
    """

    def __init__(
        self,
        folder: Path,
        world: int,
        faults: Mapping[int, Install] | None = None,
        name: str = "attempt",
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        self.world, self._logs = world, []
        self._rendezvous = Rendezvous()
        place = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        place |= self._rendezvous.variables
        logs = folder.parent / "logs"
        logs.mkdir(exist_ok=True)
        self._ranks = []
        for rank in range(world):
            log = logs / f"{folder.name}-{name}-{time.monotonic_ns()}-rank-{rank}.log"
            environment = place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            install = (faults or {}).get(rank)
            process = context.Process(
                target=rank_main, args=(folder, environment, install, log), daemon=True
            )
            process.start()
            self._logs.append(log)
            self._ranks.append(process)

    def __enter__(self) -> "Group":
        """Return the group, whose processes end with the block."""
        return self

    def __exit__(self, *error: object) -> None:
        """End what still runs."""
        self.end()

    @property
    def codes(self) -> list[int | None]:
        """Exit statuses by rank: negative for a signal, None while it runs."""
        return [process.exitcode for process in self._ranks]

    def pid(self, rank: int) -> int:
        """Return a rank's process id."""
        pid = self._ranks[rank].pid
        assert pid is not None
        return pid

    def send(self, rank: int, number: int) -> None:
        """Send a signal to a rank."""
        os.kill(self.pid(rank), number)

    def log(self, rank: int) -> str:
        """Return what a rank printed."""
        return self._logs[rank].read_text() if self._logs[rank].exists() else ""

    def logs(self) -> str:
        """Return what all ranks printed."""
        return "\n".join(f"--- rank {rank}\n{self.log(rank)}" for rank in range(self.world))

    def wait(self, seconds: float = 600.0, grace: float = _GRACE_SECONDS) -> list[int | None]:
        """Wait for all ranks; when one fails, end the others as torchrun does. Return statuses.

        grace: seconds for the others to leave by themselves, and then again after SIGTERM.
        """
        end = time.monotonic() + seconds
        while any(code is None for code in self.codes):
            assert time.monotonic() < end, f"hangs after {seconds} s\n{self.logs()}"
            if any(code for code in self.codes):
                self._join(grace)
                self.end(signal.SIGTERM, grace)
                break
            time.sleep(_PAUSE)
        return self.codes

    def wait_rank(self, rank: int, seconds: float) -> int | None:
        """Wait for one rank alone, ending nobody."""
        self._ranks[rank].join(seconds)
        return self._ranks[rank].exitcode

    def end(self, number: int = signal.SIGKILL, grace: float = 0.0) -> None:
        """Signal what still runs, then kill it."""
        for process in self._ranks:
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, number)
        if grace:
            self._join(grace)
        for process in self._ranks:
            process.kill()
            process.join()

    def _join(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        for process in self._ranks:
            process.join(max(0.0, end - time.monotonic()))


def rank_main(
    folder: Path, environment: dict[str, str], install: Install | None, log: Path
) -> None:
    """Be one rank: train the run in ``folder`` and exit with the status of ``trainer.train``."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.environ |= environment
    torch.set_num_threads(1)
    from trainer.train import main

    code = 1
    try:
        if install is not None:
            install()
        code = main(["--run", str(folder)])
    except BaseException:  # noqa: BLE001 - what the interpreter does with an exception of a script
        traceback.print_exc()
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)  # torchrun's ranks have no multiprocessing to say good-bye to


def wait_until(what: Callable[[], object], seconds: float = 300.0) -> None:
    """Poll until something holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(_PAUSE)
