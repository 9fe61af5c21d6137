"""What saving costs: seconds of training lost to one checkpoint, in the background and at once.

usage: python -m benchmarks.saving [--minutes 10]

Trains a model of width 384 and depth 12 in one process, and saves weights, optimizer state and
averages in the middle. Lost is what training waited for, and what its steps took longer than the
median step before, until the checkpoint was published. The share is that at one save every so many
minutes; the interval of large runs is of that order.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.packs import build_model, build_sample, mixture
from models.config import ModelConfig
from models.objectives.flow import Flow
from trainer.checkpoint.write import CheckpointWriter
from trainer.diffusion.ema import PowerEma
from trainer.diffusion.micro_batch import MicroBatch, accumulate
from trainer.layout.config import ParallelConfig
from trainer.layout.plan import Fragment
from trainer.optim_config import OptimConfig
from trainer.parallel.engine import Engine
from trainer.parallel.mesh import start_mesh

MODEL = ModelConfig(width=384, depth=12, head_dim=64)
STEPS = 5


def build_run() -> tuple[Engine, Callable[[], float], Callable[[], list[Fragment]]]:
    """Return an engine, a step that returns its seconds, and what a checkpoint of it holds."""
    parallel = ParallelConfig(device="cpu", zero_stage=1)
    values = [(name, p.detach()) for name, p in build_model(MODEL).named_parameters()]
    engine = Engine(
        MODEL, lambda names: iter(values), OptimConfig(), parallel, start_mesh(parallel)
    )
    ema = PowerEma(engine, 0.04)
    sample = build_sample(MODEL, mixture(768, 1))
    batch = MicroBatch(sample.pack, sample.x_0, sample.t, [], 0, sample.pack.valid.sum().item(), 0)

    def step() -> float:
        begun = time.perf_counter()
        accumulate(engine, [batch], float(batch.values), Flow())
        engine.step(1e-5, lambda norm: True)
        ema.update(1)
        return time.perf_counter() - begun

    def fragments() -> list[Fragment]:
        return [
            Fragment(f.name, f.start, {**f.tensors, "ema": ema.average[f.name]})
            for f in engine.fragments()
        ]

    return engine, step, fragments


def lost_seconds(writer: CheckpointWriter, step: Callable[[], float], save: Callable) -> float:
    """Return the seconds that one save costs."""
    usual = statistics.median(step() for _ in range(STEPS))
    begun, done = time.perf_counter(), 0
    save(writer)
    while writer.is_busy or not done:
        step()
        done += 1
    writer.wait()
    return time.perf_counter() - begun - done * usual


def main() -> None:
    """Measure both ways and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="between two saves")
    minutes = parser.parse_args().minutes
    torch.set_num_threads(1)
    engine, step, fragments = build_run()
    size = sum(t.nbytes for f in fragments() for t in f.tensors.values())
    step()
    print(
        f"checkpoint of {size / 2**20:.0f} MiB; seconds lost, share at one save in {minutes:g} min"
    )
    for name, background in (("in the background", True), ("at once", False)):
        with tempfile.TemporaryDirectory() as folder:
            writer = CheckpointWriter(Path(folder), engine.mesh, 1, background)
            count = iter(range(1, 100))
            losses = [
                lost_seconds(writer, step, lambda w: w.save(next(count), fragments(), {}))  # noqa: B023
                for _ in range(3)
            ]
        middle = statistics.median(losses)
        each = ", ".join(f"{lost:.2f}" for lost in losses)
        print(f"{name:<20}{middle:>7.2f} s  {middle / (60 * minutes):>7.2%}   (saves: {each})")


if __name__ == "__main__":
    main()
