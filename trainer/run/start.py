"""How a frozen run is started, and asked to stop."""

import signal
import sys
from pathlib import Path
from types import FrameType

from data.reading import read_object

STOPPED = 75  # exit status of a run that was asked to stop and saved: start it again (EX_TEMPFAIL)


def start_processes(processes: int, folder: Path) -> list[str]:
    """Return the command that trains a frozen run, of any kind, in so many processes."""
    module = ["trainer.train", "--run", str(folder)]
    if processes == 1:
        return [sys.executable, "-m", *module]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    # The dashes keep torchrun from reading --run as a shortened option of its own.
    return [sys.executable, *torchrun, str(processes), "-m", "--", *module]


def warm_folder(command: list[str]) -> Path | None:
    """Return the run that a command of :func:`start_processes` trains in one process on CPU.

    None for any other command: only such a run may be a fork (trainer/warm.py), as CUDA's
    libraries must not be forked.
    """
    if len(command) != 5 or command != start_processes(1, Path(command[-1])):
        return None
    folder = Path(command[-1])
    parallel = read_object(folder / "config.yaml").values.get("parallel")
    is_cpu = isinstance(parallel, dict) and parallel.get("device") == "cpu"
    return folder if is_cpu else None


def rank_command(command: list[str]) -> list[str]:
    """Return what each process runs of a command made by :func:`start_processes`.

    For clusters, which start the processes themselves. Other commands are one process: unchanged.
    """
    if "torch.distributed.run" not in command:
        return command
    return [command[0], "-m", *command[command.index("--") + 1 :]]


class StopFlag:
    """Raised by SIGTERM, SIGINT or SIGUSR1; the loop polls it, saves and leaves."""

    def __init__(self) -> None:
        self.raised = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._raise)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.raised = True

    def __call__(self) -> bool:
        """Tell whether a signal arrived."""
        return self.raised
