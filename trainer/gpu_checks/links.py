"""What goes between processes beside a step: packs that a reader hands to its peers, and the record
of collectives that a stall is explained by.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from trainer.gpu_checks.layouts import start_world
from trainer.gpu_checks.report import Case, Finding, Settings, Skip
from trainer.layout.config import ParallelConfig
from trainer.parallel.mesh import flight_record, start_mesh, stop_mesh

SECONDS, REPEATS = 120, 5


def cases(settings: Settings) -> Iterator[Case]:
    """Yield the record of this process alone, and packs between two."""
    yield Case("the flight recorder names the last collective", partial(_record, settings))
    yield Case("a pack of 256 MiB handed to a peer", partial(_hand_over, settings))


def _parallel(settings: Settings, processes: int) -> ParallelConfig:
    return ParallelConfig(
        processes=processes,
        cp=processes,
        device=settings.device.type,
        timeout_seconds=60,
        start_timeout_seconds=60,
    )


def _record(settings: Settings) -> Finding:
    mesh = start_mesh(_parallel(settings, 1))
    try:
        dist.all_reduce(torch.ones(3, device=mesh.device))
        text = flight_record()
    finally:
        stop_mesh(mesh)
    names = [str(entry.get("profiling_name")) for entry in json.loads(text).get("entries", [])]
    if not names and not settings.on_cuda:
        raise Skip("the record over gloo names no collectives")
    last = names[-1] if names else "nothing"
    return Finding(last, "all_reduce", "all_reduce" in last)


def _hand_over(settings: Settings) -> Finding:
    if settings.on_cuda and torch.cuda.device_count() < 2:
        raise Skip("one GPU has no peer; needs two")
    mebibytes = 256 if settings.on_cuda else 1
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "seconds.json"
        arguments = [settings.device.type, str(mebibytes), str(out)]
        log = start_world(2, "trainer.gpu_checks.links", arguments, Path(scratch), SECONDS)
        if not out.exists():
            raise RuntimeError(log)
        second = float(json.loads(out.read_text()))
    return Finding(f"{mebibytes * 2**20 / second / 1e9:.2f} GB/s")


def _worker(device: str, mebibytes: int, out: Path) -> None:
    """Hand a buffer over as one of two context ranks; the second checks it, the first times it."""
    mesh = start_mesh(_parallel(Settings(torch.device(device), False), 2))
    peers = mesh.peers
    assert peers is not None
    buffer = torch.full((mebibytes * 2**18,), float(peers.reads))
    seconds = []
    for _ in range(REPEATS):
        mesh.barrier()
        begun = time.perf_counter()
        peers.spread(buffer)
        mesh.barrier()
        seconds.append(time.perf_counter() - begun)
    if not bool((buffer == 1).all()):
        raise RuntimeError("a peer holds other values than the rank that read them")
    stop_mesh(mesh)
    if peers.reads:
        out.write_text(json.dumps(sorted(seconds)[REPEATS // 2]))


if __name__ == "__main__":
    _worker(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
