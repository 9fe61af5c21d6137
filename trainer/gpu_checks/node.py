"""Measure the nodes of a job: arithmetic of every rank, its link to the next, an all-reduce of all.

usage: kinescale node-check OUT.json [mebibytes=64] [seconds=1]

A small job that `kinescale doctor nodes=N` starts on every node; rank 0 writes OUT.json.
"""

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from data.files import write_json
from data.shell import command, is_rank

_SIZE = {"cpu": 512, "cuda": 8192}


@command(__doc__)
def main(argv: list[str]) -> int:
    """Join the group, measure, and let rank 0 write what all found."""
    if not is_rank():
        raise ValueError("RANK=: is not set, so this is no job. Use kinescale doctor nodes=N.")
    settings = dict(word.split("=", 1) for word in argv[1:])
    mebibytes, seconds = int(settings.get("mebibytes", "64")), float(settings.get("seconds", "1"))
    cuda = torch.cuda.is_available()
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=300))
    try:
        found = measure(device, mebibytes, seconds)
        rows: list[dict[str, Any]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(rows, found)
        if dist.get_rank() == 0:
            write_json(Path(argv[0]), {"ranks": rows})
    finally:
        dist.destroy_process_group()
    return 0


def measure(device: torch.device, mebibytes: int, seconds: float) -> dict[str, Any]:
    """Return what this rank found; collective.

    flops_per_second: of large fp32 (CPU) or bf16 (GPU) products, the median of many.
    ring_bytes_per_second: to the next rank while all send; all_reduce_bytes_per_second: bus
    bandwidth 2 (n - 1) / n x bytes / time, comparable over sizes of a group (nccl-tests).
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    row = {
        "rank": rank,
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "time": time.time(),
        "flops_per_second": _product_speed(device, seconds),
    }
    if world == 1:
        return row | {"ring_bytes_per_second": None, "all_reduce_bytes_per_second": None}
    sent = torch.ones(mebibytes * 2**18, device=device)
    received = torch.empty_like(sent)

    def ring() -> None:
        operations = [
            dist.P2POp(dist.isend, sent, (rank + 1) % world),
            dist.P2POp(dist.irecv, received, (rank - 1) % world),
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()

    size = sent.nbytes
    row["ring_bytes_per_second"] = size / _timed(ring, device)
    reduce_seconds = _timed(lambda: dist.all_reduce(received), device)
    row["all_reduce_bytes_per_second"] = 2 * (world - 1) / world * size / reduce_seconds
    return row


def _product_speed(device: torch.device, seconds: float) -> float:
    """Return FLOP/s of a matrix product: the median over as many as fit the time, 3 at least."""
    n = _SIZE[device.type]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a = torch.ones(n, n, device=device, dtype=dtype)
    found, started = [_clock(lambda: a @ a, device)], time.monotonic()  # the first one warms up
    while len(found) < 4 or time.monotonic() - started < seconds:
        found.append(_clock(lambda: a @ a, device))
    return 2.0 * n**3 / sorted(found[1:])[len(found[1:]) // 2]


def _timed(what: Callable[[], object], device: torch.device, times: int = 3) -> float:
    """Return the median seconds of a collective, after one to warm up."""
    what()
    return sorted(_clock(what, device) for _ in range(times))[times // 2]


def _clock(what: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    what()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


if __name__ == "__main__":
    main.run()
