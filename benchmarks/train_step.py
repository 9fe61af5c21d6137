"""How fast a training step is on CPU: against other ways to write it, and against the machine.

usage: python -m benchmarks.train_step [--quick] [--profile] [--processor-time] [--json FILE]

Everything is a ratio whose two sides are timed in turn, in one process; the table shows the median
of the rounds' ratios and the quartiles. Needs an idle machine; ``--processor-time`` counts the
processor's time instead of the wall's, for a busy one, and then leaves two threads out.

1. Useful tokens a second of our step over packs, against a plain DiT on padded batches
   (benchmarks/plain_dit.py: same parameters, same numbers) and against diffusers' Wan transformer
   on the same clips, one size at a time. All sides see the same latents, noise, times and captions.
2. Model FLOPs of our step (models/count.py) as a share of a 2048^3 fp32 matmul, same threads.
3. What the trainer's step costs over forward, backward and AdamW alone: DeepSpeed, clipping, EMA.
4. What compiling the blocks gains on CPU, with a C++ compiler at hand; half a minute a shape.
"""

import argparse
import dataclasses
import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from benchmarks.packs import (
    Sample,
    Work,
    build_model,
    build_sample,
    flops_of,
    mixture,
    our_step,
)
from benchmarks.rivals import plain_steps, wan_steps
from models.config import ModelConfig
from models.objectives.flow import Flow

WIDE = ModelConfig(width=384, depth=12, head_dim=64)
NARROW = ModelConfig(width=64, depth=4, head_dim=16)
MATMUL = 2048


@dataclass(frozen=True)
class Row:
    """One line of the table: the ratio's median and quartiles beside the bar it has to reach."""

    title: str
    detail: str
    ratio: float
    low: float
    high: float
    bar: str
    passed: bool


def trainer_step(config: ModelConfig, samples: list[Sample]) -> Work:
    """Return the trainer's step but for reading clips: DeepSpeed, clipping, schedule, EMA."""
    from trainer.diffusion.ema import PowerEma
    from trainer.diffusion.micro_batch import MicroBatch, accumulate
    from trainer.layout.config import ParallelConfig
    from trainer.optim import learning_rate
    from trainer.optim_config import OptimConfig
    from trainer.parallel.engine import Engine
    from trainer.parallel.mesh import start_mesh

    optim, parallel = OptimConfig(lr=1e-5), ParallelConfig(device="cpu")
    values = [(name, p.detach()) for name, p in build_model(config).named_parameters()]
    engine = Engine(config, lambda names: iter(values), optim, parallel, start_mesh(parallel))
    ema, steps = PowerEma(engine, optim.ema_sigma), count(1)
    batches = [
        MicroBatch(s.pack, s.x_0, s.t, [], s.pack.num_tokens, int(s.pack.valid.sum()), 0)
        for s in samples
    ]

    def step() -> None:
        done = next(steps)
        errors = accumulate(engine, batches, float(sum(b.values for b in batches)), Flow())
        sum(float(error.sum(dtype=torch.float64)) for error in errors)
        engine.step(learning_rate(optim, done, 1_000_000), lambda norm: True)
        ema.update(done)

    return step


def matmul() -> Work:
    """Return the product that FLOP shares are shares of."""
    a, b, out = (torch.randn(MATMUL, MATMUL) for _ in range(3))
    return lambda: torch.mm(a, b, out=out)


class Bench:
    """Times ways to do one thing in turn, prints and keeps the rows of the table."""

    def __init__(self, rounds: int, clock: Callable[[], float]) -> None:
        self.rounds, self.clock = rounds, clock
        self.rows: list[Row] = []

    def seconds(self, work: Work) -> float:
        """Time one call."""
        begun = self.clock()
        work()
        return self.clock() - begun

    def rounds_of(self, works: list[Work]) -> list[list[float]]:
        """Return each round's seconds of each way; the first call of each is not counted."""
        for work in works:
            work()
        return [[self.seconds(work) for work in works] for _ in range(self.rounds)]

    def add(self, title: str, detail: str, ratios: list[float], bar: float, most: bool) -> None:
        """Add a row; ``most`` says that the bar is the largest allowed value, not the smallest."""
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        passed = middle <= bar if most else middle >= bar
        sign = "<=" if most else ">="
        row = Row(title, detail, middle, low, high, f"{sign} {bar:g}", passed)
        self.rows.append(row)
        spread, reached = f"{low:.3f}-{high:.3f}", "yes" if passed else "NO"
        left = f"{title:<92}{middle:>7.3f}{spread:>14}{row.bar:>9}"
        print(f"{left}  {reached:<4}{detail}", flush=True)  # now: an interrupt loses nothing

    def versus(
        self, title: str, ours: Work, others: dict[str, Work], tokens: int, bar: float
    ) -> None:
        """Compare with other ways to train on the same tokens; their fastest is what counts."""
        found = self.rounds_of([ours, *others.values()])
        medians = [statistics.median(column) for column in zip(*found, strict=True)]
        fastest = min(range(1, len(medians)), key=medians.__getitem__)
        for column, name in enumerate(others, start=1):
            speed = f"{tokens / medians[0]:.0f} against {tokens / medians[column]:.0f} tokens/s"
            ratios = [times[column] / times[0] for times in found]
            mark = "" if column == fastest else " (not its fastest way)"
            self.add(f"{title}: {name}{mark}", speed, ratios, bar, most=False)

    def flop_share(self, title: str, step: Work, flops: int, bar: float) -> None:
        """Compare a step's model FLOPs a second with those of one large product."""
        product = matmul()
        found = self.rounds_of([product, step, product])
        speed = 2 * MATMUL**3
        ratios = [flops / t / (speed / ((before + after) / 2)) for before, t, after in found]
        medians = [statistics.median(column) for column in zip(*found, strict=True)]
        detail = f"{flops / medians[1] / 1e9:.0f} of {speed / medians[0] / 1e9:.0f} GFLOP/s"
        self.add(title, detail, ratios, bar, most=False)

    def overhead(self, title: str, bare: Work, full: Work, bar: float) -> None:
        """Add what a full step costs over a bare one."""
        found = self.rounds_of([bare, full])
        medians = [statistics.median(column) for column in zip(*found, strict=True)]
        detail = f"{medians[1] * 1e3:.0f} against {medians[0] * 1e3:.0f} ms"
        self.add(title, detail, [full / bare - 1 for bare, full in found], bar, most=True)


def compare_shape(bench: Bench, name: str, config: ModelConfig, samples: list[Sample]) -> None:
    """Add the rows of part 1 for one shape."""
    model, tokens = build_model(config), sum(s.pack.num_tokens for s in samples)
    step = our_step(model, samples)
    bench.versus(name, step, plain_steps(model, samples), tokens, bar=1.5)
    try:
        wan = wan_steps(config, samples)
    except (ImportError, ValueError) as reason:
        print(f"{name}: no comparison with diffusers: {reason}")
        return
    bench.versus(name, step, wan, tokens, bar=1.3)


def shares(bench: Bench, cases: dict[str, list[Sample]], threads: list[int]) -> None:
    """Add the rows of part 2."""
    for number in threads:
        torch.set_num_threads(number)
        for name, samples in cases.items():
            title = f"share of a {MATMUL}^3 product, {name}, {number} thread{'s' * (number > 1)}"
            ours = build_model(WIDE)
            flops = flops_of(WIDE, samples)
            bench.flop_share(title, our_step(ours, samples), flops, bar=0.75)
            if len(samples) == 1:  # one clip has no padding: the plain model does the same work
                (plain, *_) = plain_steps(ours, samples).values()
                bench.flop_share(f"{title}, plain DiT", plain, flops, bar=0.70)
    torch.set_num_threads(1)


def trainer_overhead(bench: Bench, samples: list[Sample]) -> None:
    """Add the row of part 3."""
    try:
        full = trainer_step(WIDE, samples)
    except (ImportError, TypeError, AttributeError, ValueError) as reason:
        print(f"no trainer step: {type(reason).__name__}: {reason}")
        return
    bare = our_step(build_model(WIDE), samples)
    bench.overhead("the trainer's step over the bare step", bare, full, bar=0.05)
    torch.distributed.destroy_process_group()


def compiled_gain(bench: Bench, config: ModelConfig, samples: list[Sample]) -> None:
    """Add a row of part 4."""
    from trainer.layout.config import Recompute
    from trainer.parallel.recompute import wrap_blocks

    if shutil.which("g++") is None:
        print("no compiled step: there is no g++")
        return
    compiled = build_model(config)
    wrap_blocks(list(compiled.blocks), Recompute.none, compiled=True)
    plain, other = our_step(build_model(config), samples), our_step(compiled, samples)
    found = bench.rounds_of([plain, other])
    medians = [statistics.median(column) for column in zip(*found, strict=True)]
    detail = f"{medians[1] * 1e3:.0f} against {medians[0] * 1e3:.0f} ms"
    title = f"plain over compiled blocks, {config.width} x {config.depth}"
    bench.add(title, detail, [before / after for before, after in found], 1.0, most=False)


def profile(samples: list[Sample]) -> None:
    """Print the operations of one step by their own share of the time."""
    step = our_step(build_model(WIDE), samples)
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        step()
    events = sorted(found.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print(f"{'operation':<60}{'share':>8}{'calls':>8}")
    for event in events[:20]:
        print(f"{event.key[:58]:<60}{event.self_cpu_time_total / total:>8.1%}{event.count:>8}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--profile", action="store_true", help="where a step's time goes, and exit")
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    return parser.parse_args()


def main() -> None:
    """Time everything and print the table as it grows."""
    arguments = parse()
    torch.set_num_threads(1)
    one_clip = [build_sample(WIDE, [((4, 16, 16), 24)])]
    if arguments.profile:
        return profile(one_clip)
    clock = time.process_time if arguments.processor_time else time.perf_counter
    print(f"{'what':<92}{'ratio':>7}{'quartiles':>14}{'bar':>9}  reached", flush=True)
    bench = Bench(3 if arguments.quick else 9, clock)
    mixed = [build_sample(WIDE, mixture(1536, seed)) for seed in (1, 2)]
    compare_shape(bench, "384 x 12", WIDE, mixed)
    compare_shape(bench, "64 x 4", NARROW, mixed)
    threads = [1] if arguments.processor_time else [1, 2]
    shares(bench, {"one clip of 1,024 tokens": one_clip, "mixture": mixed}, threads)
    trainer_overhead(bench, one_clip)
    for config in (NARROW, WIDE):
        compiled_gain(bench, config, [build_sample(config, mixture(1536, seed)) for seed in (1, 2)])
    if arguments.json:
        arguments.json.write_text(json.dumps([dataclasses.asdict(row) for row in bench.rows]))


if __name__ == "__main__":
    main()
