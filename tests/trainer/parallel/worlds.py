"""Worlds of real processes on gloo that share one start of the interpreter.

Importing torch, DeepSpeed and megatron-core costs half a minute for eight processes. A fork server
imports them once; ranks are forked from it, each world does many jobs.
"""

import importlib
import multiprocessing
import multiprocessing.connection
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

from ..rendezvous import Rendezvous

PRELOAD = ["torch", "deepspeed", "trainer.diffusion.attempt", "trainer.parallel.tensor"]
LIMIT_SECONDS = 900
ROOT = str(Path(__file__).parents[3])


def run_world(size: int, job: str, *arguments: object) -> None:
    """Run ``module:function(*arguments)`` on every rank of a new world; raise if a rank fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    if (
        ROOT not in sys.path
    ):  # ranks inherit the path, and other packages bring "tests" of their own
        sys.path.insert(0, ROOT)
    meeting, errors = Rendezvous(), context.SimpleQueue()
    ranks = [
        context.Process(target=_rank, args=(rank, size, meeting.variables, errors, job, arguments))
        for rank in range(size)
    ]
    for process in ranks:
        process.start()
    try:
        end = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < end and any(process.is_alive() for process in ranks):
            multiprocessing.connection.wait([p.sentinel for p in ranks if p.is_alive()], timeout=1)
            if any(process.exitcode for process in ranks):
                break  # its peers would wait for it
        failed = [rank for rank, process in enumerate(ranks) if process.exitcode]
        failed += [rank for rank, process in enumerate(ranks) if process.is_alive()]
        assert not failed, f"ranks {failed} failed: {'' if errors.empty() else errors.get()}"
    finally:
        for process in ranks:
            process.kill()
            process.join()


def _rank(
    rank: int, size: int, meeting: dict[str, str], errors: object, job: str, arguments: tuple
) -> None:
    import torch
    import torch.distributed as dist

    # torch 2.13 renamed collectives that deepspeed 0.19 still calls by their old names.
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
    os.environ |= {key: str(value) for key, value in place.items()}
    os.environ |= meeting | {"DS_ACCELERATOR": "cpu"}
    module, _, function = job.partition(":")
    try:
        dist.init_process_group("gloo")
        getattr(importlib.import_module(module), function)(*arguments)
        dist.destroy_process_group()
    except BaseException:
        errors.put(f"rank {rank}: {traceback.format_exc()}")  # type: ignore[attr-defined]
        raise


def rank_file(folder: Path, name: str, rank: int) -> Path:
    """Return where a rank leaves what it found."""
    return folder / f"{name}-rank-{rank}.json"
