"""Peak memory of ZeRO 0 to 3 on two processes, against the closed form.

usage: python -m benchmarks.zero_memory [--width 1024]

Each stage runs in fresh processes: the growth of their resident peak (VmHWM) over what they held
before the engine was built, while it is built and, apart, in two steps on a tiny pack. The closed
form is trainer/layout/cost.py's state and buffers, and the fp32 copy of a partition's gradients
that ZeRO 1 and 2 make in the step.
"""

import argparse
import multiprocessing
import os
from pathlib import Path

STAGES, RANKS, MIB = (0, 1, 2, 3), 2, 2**20


def peak_bytes() -> int:
    """Return this process's largest resident size so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure(
    rank: int, port: int, stage: int, width: int, out: "multiprocessing.Queue[tuple[int, int]]"
) -> None:
    """Build an engine, train two steps, and report the growth of the peak."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "MASTER_PORT": port}
    os.environ |= {key: str(value) for key, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}  # the parent's, held open
    import deepspeed  # noqa: F401  (its import must not count)
    import torch

    from benchmarks.packs import build_sample
    from models.config import ModelConfig
    from models.network import initial_values
    from models.objectives.flow import Flow
    from trainer.diffusion.ema import PowerEma
    from trainer.diffusion.micro_batch import MicroBatch, accumulate
    from trainer.layout.config import ParallelConfig
    from trainer.optim_config import OptimConfig
    from trainer.parallel.engine import Engine
    from trainer.parallel.mesh import start_mesh, stop_mesh

    torch.set_num_threads(1)
    model = ModelConfig(width=width, depth=4, head_dim=64)
    parallel = ParallelConfig(processes=RANKS, zero_stage=stage, device="cpu")
    mesh = start_mesh(parallel)
    sample = build_sample(model, [((1, 4, 4), 8)])
    batch = MicroBatch(sample.pack, sample.x_0, sample.t, [], 16, sample.pack.valid.sum().item(), 0)
    before = peak_bytes()
    engine = Engine(
        model,
        lambda names: initial_values(model, torch.Generator().manual_seed(0)),
        OptimConfig(),
        parallel,
        mesh,
    )
    ema = PowerEma(engine, 0.04)
    building = peak_bytes() - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    for step in (1, 2):
        accumulate(engine, [batch], float(RANKS * batch.values), Flow())
        engine.step(1e-5, lambda norm: True)
        ema.update(step)
    out.put((building, peak_bytes() - before))
    stop_mesh(mesh)


def run_stage(stage: int, width: int) -> tuple[int, int]:
    """Return the largest growths of all ranks, while building and in the steps."""
    from torch.distributed import TCPStore

    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = [
        context.Process(target=measure, args=(rank, meeting.port, stage, width, out))
        for rank in range(RANKS)
    ]
    for process in ranks:
        process.start()
    found = [out.get(timeout=300) for _ in ranks]
    for process in ranks:
        process.join()
    return max(b for b, _ in found), max(s for _, s in found)


def main() -> None:
    """Measure all stages and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=1024)
    width = parser.parse_args().width
    from models.config import ModelConfig
    from models.count import count_params
    from trainer.layout.config import ParallelConfig
    from trainer.layout.cost import rank_bytes
    from trainer.layout.layout import Coordinates

    model = ModelConfig(width=width, depth=4, head_dim=64)
    params = count_params(model).total
    print(f"{params / 1e6:.1f} M parameters, {RANKS} ranks; MiB a rank")
    columns = ("state", "buffers", "step", "predicted", "in steps", "error", "building")
    print(f"{'ZeRO':<6}" + "".join(f"{column:>11}" for column in columns))
    for stage in STAGES:
        parallel = ParallelConfig(processes=RANKS, zero_stage=stage)
        held = rank_bytes(model, parallel, Coordinates())
        step = 4 * params // RANKS if stage in (1, 2) else 0
        building, peak = run_stage(stage, width)
        predicted = held.total + step
        sizes = (held.state, held.buffers, step, predicted, peak)
        parts = "".join(f"{size / MIB:>11.0f}" for size in sizes)
        print(f"{stage:<6}{parts}{peak / predicted - 1:>11.1%}{building / MIB:>11.0f}", flush=True)


if __name__ == "__main__":
    main()
