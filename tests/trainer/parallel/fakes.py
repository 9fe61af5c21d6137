"""Worlds of a thousand ranks in one process: torch's fake process group, and fake tensors.

The fake group's collectives do nothing, so shapes, calls and bytes are right and values are not.
"""

import importlib
import json
import multiprocessing
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .worlds import PRELOAD

LIMIT_SECONDS = 300


def in_child(job: str, *arguments: object) -> Any:
    """Return what ``module:function(*arguments)`` returns in a process of its own, as JSON."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[3])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, job, arguments))
    child.start()
    sender.close()
    try:
        assert receiver.poll(LIMIT_SECONDS), f"{job}: no answer in {LIMIT_SECONDS} s"
        return json.loads(receiver.recv())
    finally:
        child.kill()
        child.join()


def _child(sender: Any, job: str, arguments: tuple[object, ...]) -> None:
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    module, _, function = job.partition(":")
    sender.send(json.dumps(getattr(importlib.import_module(module), function)(*arguments)))
    sender.close()


@contextmanager
def fake_world(rank: int, world: int) -> Iterator[None]:
    """Be one rank of a world in which nobody else exists."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(world)}
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()
