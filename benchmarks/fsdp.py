"""DeepSpeed's engine against torch's FSDP2, on one small network, over two processes on gloo.

usage: python -m benchmarks.fsdp [--width N] [--steps N]

Both train the same DiT from the same weights on the same packs, one a rank, with AdamW in fp32:
ZeRO 3 of our engine, and FSDP2 with each block sharded. Told are the largest difference of their
losses, what a rank hands to collectives in a step, the bytes of tensors it holds after one, and the
processor seconds of a step as a ratio of medians. Two processes are forked, which import once.
"""

import argparse
import gc
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.packs import build_model, build_sample
from models.architecture import Split
from models.config import ModelConfig
from models.objectives.flow import Flow
from trainer.diffusion.micro_batch import MicroBatch, accumulate
from trainer.layout.config import ParallelConfig
from trainer.layout.layout import Layout
from trainer.optim_config import OptimConfig
from trainer.parallel.engine import Engine, build_optimizer
from trainer.parallel.mesh import join_mesh

RANKS, RATE = 2, 1e-3
CLIPS = [[((2, 4, 6), 5), ((1, 6, 6), 3)], [((3, 4, 4), 7), ((1, 4, 8), 0)]]
OPTIM = OptimConfig(clip=0.0)
# Collectives, and which argument holds what a rank hands in.
SENT = {
    "c10d.allreduce_": ("all-reduce", 0),
    "c10d._allgather_base_": ("gather", 1),
    "c10d.allgather_": ("gather", 1),
    "c10d.allgather_into_tensor_coalesced_": ("gather", 1),
    "c10d._reduce_scatter_base_": ("reduce-scatter", 1),
    "c10d.reduce_scatter_": ("reduce-scatter", 1),
    "c10d.reduce_scatter_tensor_coalesced_": ("reduce-scatter", 1),
    "c10d.broadcast_": ("broadcast", 0),
    "c10d.reduce_": ("reduce", 0),
}
Step = Callable[[], float]


class Sent(TorchDispatchMode):
    """Count what this process hands to collectives, by kind; what is not known by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and note it if it is a collective."""
        name = str(func).rpartition(".")[0]
        if name.startswith(("c10d.", "_c10d_functional.")) and "wait" not in name:
            kind, where = SENT.get(name, (name, 0))
            tensors = [t for t in tree_leaves(args[where]) if isinstance(t, Tensor)]
            self.bytes[kind] = self.bytes.get(kind, 0) + sum(t.nbytes for t in tensors)
        return func(*args, **(kwargs or {}))


def held() -> int:
    """Return the bytes of all tensors of this process that are alive."""
    gc.collect()
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # asking objects of old modules what they are
        for thing in gc.get_objects():
            if type(thing) in (Tensor, torch.nn.Parameter) and thing.device.type == "cpu":
                storage = thing.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def batch_of(model: ModelConfig, rank: int) -> MicroBatch:
    """Return the pack of a rank."""
    sample = build_sample(model, CLIPS[rank], rank)
    values = int(sample.pack.valid.sum())
    return MicroBatch(sample.pack, sample.x_0, sample.t, [], 0, values, 0)


def by_engine(model: ModelConfig, rank: int, total: float) -> Step:
    """Return a step of our engine under ZeRO 3, which returns the error summed over this rank."""
    parallel = ParallelConfig(processes=RANKS, zero_stage=3, device="cpu")
    mesh = join_mesh(Layout(dp=RANKS), torch.device("cpu"))
    weights = [(name, p.detach()) for name, p in build_model(model).named_parameters()]
    engine = Engine(model, lambda names: iter(weights), OPTIM, parallel, mesh)
    batch = batch_of(model, rank)

    def step() -> float:
        (errors,) = accumulate(engine, [batch], total, Flow())
        engine.step(RATE, lambda norm: True)
        return float(errors.double().sum())

    return step


def by_fsdp(model: ModelConfig, rank: int, total: float) -> Step:
    """Return the same step by FSDP2."""
    network, mesh = build_model(model), init_device_mesh("cpu", (RANKS,))
    for block in network.blocks:
        fully_shard(block, mesh=mesh)
    sharded: Any = fully_shard(network, mesh=mesh)
    sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no average
    optimizer, batch = build_optimizer(sharded, model, OPTIM), batch_of(model, rank)
    for group in optimizer.param_groups:
        group["lr"] = RATE * group["lr_scale"]

    def step() -> float:
        errors = Flow().errors(sharded, batch.pack, batch.x_0, batch.t)
        (errors.sum() * (RANKS / total)).backward()  # gradients are averaged over ranks
        optimizer.step()
        optimizer.zero_grad()
        return float(errors.detach().double().sum())

    return step


def work(rank: int, port: int, width: int, steps: int, out: Path) -> None:
    """As one rank: train both ways in turns; the first leaves behind what it found."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "MASTER_PORT": port}
    os.environ |= {key: str(value) for key, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    dist.init_process_group("gloo")
    model = ModelConfig(width=width, depth=4, head_dim=16, text_width=32)
    total = float(sum(batch_of(model, r).values for r in range(RANKS)))
    sides: dict[str, Step] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, build in (("engine", by_engine), ("fsdp", by_fsdp)):
        before = held()
        sides[name] = build(model, rank, total)
        losses = [sides[name]()]
        found[name] = {"bytes": held() - before, "losses": losses, "seconds": []}
        with Sent() as sent:
            losses.append(sides[name]())
        found[name]["sent"] = sent.bytes
    for _ in range(steps):
        for name, step in sides.items():
            dist.barrier()
            began = time.process_time()
            error = step()
            found[name]["seconds"].append(time.process_time() - began)
            found[name]["losses"].append(error)
    for side in found.values():
        errors = torch.tensor(side["losses"], dtype=torch.float64)
        dist.all_reduce(errors)
        side["losses"] = (errors / total).tolist()
    # Where rank 0 holds the rows of the joined projection of queries, keys and values.
    rows = torch.arange(3 * width).unsqueeze(1).expand(-1, 2).contiguous()
    theirs = distribute_tensor(rows, init_device_mesh("cpu", (RANKS,)), [Shard(0)]).to_local()
    ours = Split(0, groups=3).cut(rows, rank, RANKS)
    found["rows"] = {
        "shared": len(set(theirs[:, 0].tolist()) & set(ours[:, 0].tolist())) / len(ours)
    }
    if rank == 0:
        out.write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    told = parser.parse_args()
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed  # noqa: F401  (once, for both processes)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "found.json"
        arguments = (port, told.width, told.steps, out)
        ranks = [context.Process(target=work, args=(rank, *arguments)) for rank in range(RANKS)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            raise RuntimeError(f"exits {[process.exitcode for process in ranks]}")
        found = json.loads(out.read_text(encoding="utf-8"))
    engine, fsdp = found["engine"], found["fsdp"]
    pairs = zip(engine["losses"], fsdp["losses"], strict=True)
    print(
        f"losses of {len(fsdp['losses'])} steps: {max(abs(b / a - 1) for a, b in pairs):.1e} apart"
    )
    print(f"  from {fsdp['losses'][0]:.5f} to {fsdp['losses'][-1]:.5f}")
    for name, side in (("engine, ZeRO 3", engine), ("FSDP2", fsdp)):
        sent = ", ".join(f"{kind} {n / 1e6:.3f} MB" for kind, n in sorted(side["sent"].items()))
        print(f"{name}: tensors held {side['bytes'] / 1e6:.2f} MB; handed in a step: {sent}")
    seconds = [statistics.median(side["seconds"]) for side in (engine, fsdp)]
    print(f"processor seconds of a step, FSDP2 beside the engine: {seconds[1] / seconds[0]:.2f}")
    share = found["rows"]["shared"]
    print(f"rows of the joined projection that Shard(0) puts where their heads are: {share:.0%}")


if __name__ == "__main__":
    main()
