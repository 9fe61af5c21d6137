"""Which rank does what: data-parallel ranks; the seam for tensor, context and pipeline axes."""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from trainer.config import ParallelConfig


@dataclass(frozen=True)
class Layout:
    """One process's place.

    rank, world: of the data-parallel group; device: where this process computes.
    owns_group: whether this layout started the process group, and so ends it.
    """

    rank: int
    world: int
    device: torch.device
    owns_group: bool = True

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Sum fp64 values over all ranks."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Tell whether any rank raises the flag."""
        return self.sum(float(flag))[0] > 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            dist.barrier()


def start_layout(config: ParallelConfig) -> Layout:
    """Join the process group that the environment describes (torchrun's, or one process alone).

    A group that this process has joined already is used and left open.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != config.processes:
        raise ValueError(
            f"parallel.processes={config.processes}: must equal the started processes={world}. "
            "Start the run with python -m trainer.train, which starts the right number."
        )
    for key, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        os.environ.setdefault(key, value)
    if world == 1 and "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(_free_port())
    cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    owns = not dist.is_initialized()
    if owns:
        timeout = timedelta(seconds=config.timeout_seconds)
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timeout)
    return Layout(rank=dist.get_rank(), world=world, device=device, owns_group=owns)


def stop_layout(layout: Layout) -> None:
    """Leave the process group if this layout started it."""
    if layout.owns_group:
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
