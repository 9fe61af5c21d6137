"""Our checkpoints against torch's distributed checkpoints in safetensors, side by side on gloo.

usage: python -m benchmarks.checkpoint_dcp [--parameters N] [--rounds N] [--processes N]

Ranks hold equal shares of matrices with two moments and an average, save them both ways in turns,
and load them cut as they were, whole in one process, and along the other dimension. Processor
seconds of a rank are medians over rounds, in which the two take turns; torch's are told as a ratio
to ours. Then one bit of a file is flipped, and one file is taken away.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from models.architecture import Split
from trainer.checkpoint.read import Loaded, Stored, load_latest, verify
from trainer.checkpoint.write import CheckpointWriter
from trainer.layout.layout import Layout
from trainer.layout.plan import Fragment
from trainer.parallel.mesh import Mesh, alone

KINDS = ("param", "exp_avg", "exp_avg_sq", "ema")
SHAPE = (512, 256)
LIMIT_SECONDS = 600.0
Values = dict[str, dict[str, Tensor]]  # by kind and name


def values(count: int) -> Values:
    """Return the matrices of all kinds, the same on every rank."""
    generator = torch.Generator().manual_seed(0)
    return {
        kind: {f"blocks.{i}.weight": torch.randn(SHAPE, generator=generator) for i in range(count)}
        for kind in KINDS
    }


def timed(work: Callable[[], Any]) -> float:
    """Return the processor seconds of this process, all its threads; walls tell of others' work."""
    if dist.is_initialized():
        dist.barrier()
    began = time.process_time()
    work()
    return time.process_time() - began


def halves(whole: Values, mesh: Mesh) -> list[Fragment]:
    """Return this rank's share of each matrix as ZeRO has it: a piece of the flat whole."""
    found = []
    for name, first in whole["param"].items():
        size = first.numel() // mesh.world
        start = mesh.rank * size
        pieces = {kind: whole[kind][name].view(-1)[start : start + size] for kind in KINDS}
        found.append(Fragment(name, start, pieces))
    return found


def sharded(whole: Values, dim: int, mesh: Any) -> dict[str, Tensor]:
    """Return the same as torch has it: distributed tensors, cut along a dimension."""
    return {
        f"{kind}.{name}": distribute_tensor(tensor.clone(), mesh, [Shard(dim)])
        for kind, tensors in whole.items()
        for name, tensor in tensors.items()
    }


def read_ours(loaded: Loaded, whole: Values, cut: Split | None, mesh: Mesh) -> None:
    """Read this rank's part of every matrix, cut or as a flat piece, and compare it."""
    for kind, tensors in whole.items():
        for name, tensor in tensors.items():
            stored = Stored(loaded, kind, name, SHAPE, cut)
            size = tensor.numel() // mesh.world
            if cut is None:
                start = mesh.rank * size
                found = stored.piece(None, 0, 1, start, size)
                right = tensor.view(-1)[start : start + size]
            else:
                found = stored.piece(cut, mesh.rank, mesh.world, 0, size)
                right = cut.cut(tensor, mesh.rank, mesh.world).reshape(-1)
            assert torch.equal(found, right), (kind, name)


def read_theirs(folder: Path, into: dict[str, Tensor], alone: bool = False) -> None:
    """Load a checkpoint of torch into tensors."""
    dcp.load(into, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)


def write_theirs(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Save a checkpoint of torch, a file a rank."""
    shutil.rmtree(folder, ignore_errors=True)
    dcp.save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def work(rank: int, world: int, port: int, root: Path, count: int, rounds: int) -> None:
    """As one rank: save and load both ways; the first leaves the seconds behind."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    mesh = Mesh(Layout(dp=world), rank, torch.device("cpu"))
    their_mesh, whole = init_device_mesh("cpu", (world,)), values(count)
    rows, columns = (sharded(whole, dim, their_mesh) for dim in (0, 1))
    empty = [{k: torch.zeros_like(v) for k, v in t.items()} for t in (rows, columns)]
    seconds: dict[str, list[float]] = {}

    def note(what: str, side: str, run: Callable[[], Any]) -> None:
        seconds.setdefault(f"{what}|{side}", []).append(timed(run))

    writer = CheckpointWriter(root / "ours", mesh, keep=1, background=False)

    def turn(number: int) -> None:
        pieces = halves(whole, mesh)
        note("save", "ours", lambda: writer.save(number, pieces, {}))
        note("save", "theirs", lambda: write_theirs(root / "theirs", rows))
        found = load_latest(root / "ours", mesh)
        assert found is not None
        note("verify", "ours", lambda: verify(found.folder, rank, world))
        note("load as saved", "ours", lambda: read_ours(found, whole, None, mesh))
        note("load as saved", "theirs", lambda: read_theirs(root / "theirs", empty[0]))
        note("load cut along columns", "ours", lambda: read_ours(found, whole, Split(1), mesh))
        note("load cut along columns", "theirs", lambda: read_theirs(root / "theirs", empty[1]))
        for dim, right in ((0, rows), (1, columns)):
            for name, tensor in empty[dim].items():
                mine, expected = tensor.to_local(), right[name].to_local()  # type: ignore[attr-defined]
                assert torch.equal(mine, expected), name

    for number in range(rounds):
        turn(number)
    if rank == 0:
        (root / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")
    dist.destroy_process_group()


def in_processes(world: int, *arguments: Any) -> None:
    """Run :func:`work` in so many forked processes; raise TimeoutError where they do not end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=work, args=(r, world, port, *arguments)) for r in range(world)]
    for process in ranks:
        process.start()
    end = time.monotonic() + LIMIT_SECONDS
    for process in ranks:
        process.join(max(0.0, end - time.monotonic()))
    late = [process for process in ranks if process.is_alive()]
    for process in late:
        process.kill()
    if late or any(process.exitcode for process in ranks):
        raise TimeoutError(f"{len(late)} ranks are late, exits {[p.exitcode for p in ranks]}")


def fresh(whole: Values) -> dict[str, Tensor]:
    """Return whole tensors of zeros, as torch loads into."""
    return {f"{k}.{n}": torch.zeros_like(t) for k, ts in whole.items() for n, t in ts.items()}


def outcome(folder: Path, whole: Values) -> str:
    """Load a checkpoint of torch in one process; tell what became of it."""
    into = fresh(whole)
    try:
        read_theirs(folder, into, alone=True)
    except BaseException as error:  # noqa: BLE001 - what it says is the answer
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    wrong = sum(
        not torch.equal(t, whole[k.split(".", 1)[0]][k.split(".", 1)[1]]) for k, t in into.items()
    )
    return f"loaded without a word, {wrong} of {len(into)} tensors wrong"


def ours_outcome(folder: Path) -> str:
    """Load ours; tell what became of it."""
    loaded = load_latest(folder, alone())
    return "refused, no other is there" if loaded is None else "loaded"


def damage(folder: Path) -> None:
    """Flip one bit in the middle of the largest file."""
    path = max(folder.rglob("*.safetensors"), key=lambda p: p.stat().st_size)
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))


def lose(folder: Path) -> None:
    """Remove one of the files of ranks."""
    max(folder.rglob("*.safetensors"), key=lambda p: p.name).unlink()


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    told = parser.parse_args()
    whole = values(told.parameters)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        in_processes(told.processes, root, told.parameters, told.rounds)
        seconds = json.loads((root / "seconds.json").read_text(encoding="utf-8"))
        loaded = load_latest(root / "ours", alone())
        assert loaded is not None
        for _ in range(told.rounds):
            for side, run in (
                ("ours", lambda: read_ours(loaded, whole, None, alone())),
                ("theirs", lambda: read_theirs(root / "theirs", fresh(whole), alone=True)),
            ):
                seconds.setdefault(f"load whole in one process|{side}", []).append(timed(run))
        megabytes = sum(t.nbytes for ts in whole.values() for t in ts.values()) / 1e6
        print(f"{megabytes:.1f} MB of tensors, {told.processes} ranks, {told.rounds} rounds")
        for what in dict.fromkeys(key.split("|")[0] for key in seconds):
            ours, theirs = (seconds.get(f"{what}|{side}") for side in ("ours", "theirs"))
            text = f"{what}: ours {statistics.median(ours):.3f} s"
            if theirs:
                text += f", torch's {statistics.median(theirs) / statistics.median(ours):.2f} times"
            print(text, flush=True)
        for side in ("ours", "theirs"):
            files = [path for path in (root / side).rglob("*") if path.is_file()]
            size = sum(path.stat().st_size for path in files) / 1e6
            print(f"{side}: {size:.2f} MB in {len(files)} files")
        for what, harm in (("one bit flipped", damage), ("one file gone", lose)):
            for side, look in (
                ("ours", lambda f: ours_outcome(f)),
                ("theirs", lambda f: outcome(f, whole)),
            ):
                copy = root / "harmed"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(root / side, copy, symlinks=True)
                harm(copy)
                print(f"{what}, {side}: {look(copy)}", flush=True)


if __name__ == "__main__":
    main()
