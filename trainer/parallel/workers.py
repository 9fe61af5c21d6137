"""Processes that share requests or clips, each with whole models: every job but training.

torchrun starts them. What a worker computes at once is cut the same for any number of workers, so
that what they write is too, bit for bit where each has as many threads.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

from trainer.layout.config import ParallelConfig
from trainer.parallel.mesh import Mesh, alone, device_of, start_mesh

T = TypeVar("T")
_WAIT_SECONDS = 7 * 86400.0  # for the slowest worker's share, which may take days


def join_workers(device: str) -> Mesh:
    """Return the mesh of the workers that the environment describes, or of this process alone.

    device: as ``parallel.device`` of a run. Collective.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return alone(str(device_of(device)))
    return start_mesh(
        ParallelConfig(processes=world, device=device, start_timeout_seconds=_WAIT_SECONDS)
    )


def own_share(items: Sequence[T], mesh: Mesh) -> list[T]:
    """Return every world-th item from this worker's on."""
    return list(items[mesh.rank :: mesh.world])
