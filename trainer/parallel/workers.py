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


def join_workers(device: str, tp: int = 1, cp: int = 1) -> Mesh:
    """Return the mesh of the workers that the environment describes, or of this process alone.

    device: as ``parallel.device`` of a run. tp, cp: tensor and context ranks, which are one worker
    together. Collective.
    """
    parallel = worker_layout(device, tp, cp)
    return start_mesh(parallel) if parallel.processes > 1 else alone(str(device_of(device)))


def worker_layout(device: str, tp: int = 1, cp: int = 1) -> ParallelConfig:
    """Return the layout of the workers that the environment describes."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return ParallelConfig(
        processes=world, tp=tp, cp=cp, device=device, start_timeout_seconds=_WAIT_SECONDS
    )


def own_share(items: Sequence[T], mesh: Mesh) -> list[T]:
    """Return every n-th item from this worker's on, where n are the workers there are."""
    return list(items[mesh.place.dp :: mesh.layout.dp])
