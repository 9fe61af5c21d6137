"""How many tiny runs share a machine: runs an hour of several ways, start-up included.

usage: python -m benchmarks.many_runs [--runs 4] [--steps 150] [--rounds 2] [--json FILE]
       python -m benchmarks.many_runs --steps-alone      what batching models adds to a step alone

A set of runs of one shape with different learning rates is trained to its validation by each way,
from an empty folder, in rounds with all ways in turn; needs an idle machine with at least two cores
and about a quarter of an hour. The reference is the best that runs one after another can do, two
threads. The bar is 1.15 for the way the launcher uses, one thread a process and as many processes
as cores.
"Batched" ways train several models in one step (benchmarks/batched_runs.py). All ways end at the
same losses; the largest relative difference is told. docs/decisions/008 has the choice.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save

from benchmarks.batched_runs import Stacked
from benchmarks.packs import build_sample, mixture, our_step
from data.dataset.shards import ShardWriter, write_manifest
from launch.local.process import Job
from launch.local.run import describe_failures, run_jobs
from models.config import ModelConfig
from models.dit.model import DiT
from trainer.config import RunConfig, compose_run
from trainer.diffusion.micro_batch import MicroBatch
from trainer.identity import freeze
from trainer.kinds import start_command
from trainer.optim_config import OptimConfig

SIZES = [(17, 64, 112), (9, 112, 64), (5, 96, 96), (1, 128, 96), (13, 72, 112), (9, 96, 96)]
CORES = 2
BAR = 1.15


@dataclass(frozen=True)
class Way:
    """How a set of runs is trained: processes at once, threads of each, runs in one step."""

    title: str
    slots: int
    threads: int
    batch: int = 1


def ways(runs: int) -> list[Way]:
    """Return the reference, what the launcher does, and the others."""
    half = max(1, runs // CORES)
    return [
        Way("one after another, two threads (reference)", 1, CORES),
        Way("two processes of one thread (the launcher's)", CORES, 1),
        Way("one after another, one thread", 1, 1),
        Way(f"batched by {runs}, one process, one thread", 1, 1, runs),
        Way(f"batched by {runs}, one process, two threads", 1, CORES, runs),
        Way(f"batched by {half}, two processes of one thread", CORES, 1, half),
    ]


@dataclass
class Timing:
    """What one set took: by the clock, and of the processors."""

    seconds: float
    processor_seconds: float


def write_clips(root: Path, clips: int = 120) -> None:
    """Write latents of drifting waves with captions of the demo's size, to train and validate."""
    for split, count in (("train", clips), ("val_worlds", 16)):
        with ShardWriter(root, split, 1_000_000) as writer:
            for i in range(count):
                frames, height, width = SIZES[i % len(SIZES)]
                draw = torch.Generator().manual_seed(i + (split == "train") * 10_000)
                f, h, w = 1 + (frames - 1) // 4, -(-height // 16) * 2, -(-width // 16) * 2
                phase = torch.randn(6, 4, generator=draw).view(6, 4, 1, 1, 1)
                axes = torch.meshgrid(*(torch.arange(n) for n in (f, h, w)), indexing="ij")
                angle = sum(phase[:, a] * axis for a, axis in enumerate(axes)) + phase[:, 3]
                caption = torch.randn(24, 384, generator=draw)
                meta = {
                    "key": f"{split}-{i}", "media": "latent", "num_frames": frames,
                    "height": height, "width": width, "fps": 12.0 if frames > 1 else 0.0,
                    "duration_seconds": frames / 12, "caption": f"a wave {i}",
                    "source": f"waves/{split}-{i}", "licence": "CC0", "rendered": True,
                    "original": {}, "caption_tokens": len(caption),
                }  # fmt: skip
                tensors = {"latent": torch.sin(angle).half(), "caption": caption.half()}
                writer.write(meta, save(tensors), "safetensors")
    write_manifest(root, {"name": "waves"})


def plan(root: Path, runs: int, steps: int, shape: tuple[int, int]) -> list[RunConfig]:
    """Compose the runs of a set: one shape, seed and data, different learning rates."""
    run = compose_run(
        [
            "experiment=cpu_demo", "codec=wavelet", f"data.root={root}", f"model.width={shape[0]}",
            f"model.depth={shape[1]}", f"model.head_dim={min(shape[0], 48)}", "name=many",
            f"horizon.steps={steps}", "validation.splits=[val_worlds]", "validation.samples=16",
            "validation.curve_points=0", "checkpoint.seconds=0", "log.wandb=disabled",
        ]
    )  # fmt: skip
    rates = [2e-3 * 1.3**i for i in range(runs)]
    return [replace(run, name=f"many-{i}", optim=replace(run.optim, lr=lr))
            for i, lr in enumerate(rates)]  # fmt: skip


def jobs_of(way: Way, runs: list[RunConfig], folder: Path) -> tuple[list[Job], list[Path]]:
    """Freeze the runs into fresh folders; return the jobs that train them, and those folders."""
    folders = [folder / run.name for run in runs]
    for run, place in zip(runs, folders, strict=True):
        freeze(run, place)
    if way.batch == 1:
        jobs = [
            Job(run.name, place, start_command(run, place), 1, 1.0, place / "result.json")
            for run, place in zip(runs, folders, strict=True)
        ]
        return jobs, folders
    jobs = []
    for first in range(0, len(runs), way.batch):
        mark, members = folder / f"batch-{first}", folders[first : first + way.batch]
        command = [sys.executable, "-m", "benchmarks.batched_runs", str(mark), *map(str, members)]
        jobs.append(Job(mark.name, mark, command, 1, 1.0, mark / "result.json"))
    return jobs, folders


def carry_out(way: Way, runs: list[RunConfig], folder: Path) -> tuple[Timing, list[float]]:
    """Train a set by one way; return its timing and the runs' losses."""
    jobs, folders = jobs_of(way, runs, folder)
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    outcomes = run_jobs(
        jobs, way.slots, poll_seconds=0.05, threads_per_process=way.threads, retries=0
    )
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if failed := describe_failures(outcomes):
        raise RuntimeError(failed)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    losses = [json.loads((place / "result.json").read_text())["loss"] for place in folders]
    return Timing(seconds, spent), losses


def compare(asked: argparse.Namespace, root: Path) -> dict[str, object]:
    """Train the set by every way in turn, round after round; print and return the table."""
    runs, tried = plan(root / "clips", asked.runs, asked.steps, asked.shape), ways(asked.runs)
    timings: dict[str, list[Timing]] = {way.title: [] for way in tried}
    reference: list[float] = []
    apart = 0.0
    for number in range(asked.rounds):
        order = tried if number % 2 == 0 else tried[::-1]
        for index, way in enumerate(order):
            timing, losses = carry_out(way, runs, root / f"round-{number}-{index}")
            timings[way.title].append(timing)
            reference = reference or losses
            pairs = zip(losses, reference, strict=True)
            apart = max(apart, *(abs(a / b - 1) for a, b in pairs))
            print(f"round {number + 1}: {way.title}: {timing.seconds:.1f} s", file=sys.stderr)
    base = timings[tried[0].title]
    print(f"{'way':<48}{'runs/hour':>10}{'against it':>11}{'range':>14}{'CPU s a run':>13}")
    rows = []
    for way in tried:
        mine = timings[way.title]
        ratios = [b.seconds / m.seconds for b, m in zip(base, mine, strict=True)]
        hourly = 3600 * len(runs) / statistics.median(m.seconds for m in mine)
        spent = statistics.median(m.processor_seconds for m in mine) / len(runs)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        ratio = statistics.median(ratios)
        print(f"{way.title:<48}{hourly:>10.0f}{ratio:>11.2f}{spread:>14}{spent:>13.1f}")
        rows.append(asdict(way) | {"ratio": ratio, "ratios": ratios, "runs_per_hour": hourly,
                                   "processor_seconds_a_run": spent})  # fmt: skip
    verdict = "reached" if rows[1]["ratio"] >= BAR else "NOT reached"
    print(f"bar of the launcher's way: {BAR}, {verdict}; losses differ by at most {apart:.1e}")
    return {"rows": rows, "losses_differ": apart, "bar": BAR}


def step_gain(rounds: int, calls: int = 4) -> list[dict[str, object]]:
    """Print processor time of separate steps over that of one batched step, by shape and number."""
    torch.set_num_threads(1)
    print(f"{'width x depth':<15}{'models':>7}{'separate / batched':>20}{'quartiles':>14}")
    rows = []
    for width, depth in ((16, 1), (32, 1), (48, 2), (96, 4)):
        config = ModelConfig(width=width, depth=depth, head_dim=min(width, 48))
        sample = build_sample(config, mixture(768, 1))
        values = int(sample.pack.valid.sum())
        batch = MicroBatch(sample.pack, sample.x_0, sample.t, [], 0, values, 0)
        model = DiT(config)
        model.reset_parameters(torch.Generator().manual_seed(0))
        for number in (2, 4, 8):
            initial = {name: p.detach().clone() for name, p in model.named_parameters()}
            stacked = Stacked(config, [OptimConfig()] * number, initial)

            def together(
                stacked: Stacked = stacked, n: int = number, b: MicroBatch = batch
            ) -> None:
                stacked.accumulate([b], float(b.values))
                stacked.update([1e-5] * n)

            separate = our_step(model, [sample])
            ratios = []
            for _ in range(rounds + 1):
                one = _processor_seconds(separate, calls * number)
                ratios.append(one / _processor_seconds(together, calls))
            low, middle, high = statistics.quantiles(ratios[1:], n=4, method="inclusive")
            print(f"{f'{width} x {depth}':<15}{number:>7}{middle:>20.2f}{low:>9.2f}-{high:.2f}")
            rows.append({"width": width, "depth": depth, "models": number, "ratio": middle})
    return rows


def _batched_step(stacked: Stacked, batch: MicroBatch) -> None:
    stacked.accumulate([batch], float(batch.values))
    stacked.update([1e-5] * len(stacked.optims))


def _processor_seconds(work: Callable[[], object], calls: int) -> float:
    begun = time.process_time()
    for _ in range(calls):
        work()
    return time.process_time() - begun


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", default="48x2", help="width x depth")
    parser.add_argument("--steps-alone", action="store_true")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    found = parser.parse_args()
    if min(found.runs - 1, found.steps, found.rounds) < 1:
        parser.error("--runs, --steps, --rounds: must be at least 2, 1 and 1. Use 4, 150 and 2.")
    try:
        width, depth = map(int, found.shape.split("x"))
    except ValueError:
        parser.error(f"--shape={found.shape}: must be width x depth. Use 48x2.")
    found.shape = (width, depth)
    return found


def main() -> int:
    """Measure and print."""
    asked = parse()
    if asked.steps_alone:
        result: object = step_gain(max(2, asked.rounds))
    else:
        if len(os.sched_getaffinity(0)) < CORES:
            print(f"error: needs {CORES} cores, this process may use one.", file=sys.stderr)
            return 2
        with tempfile.TemporaryDirectory() as folder:
            write_clips(Path(folder) / "clips")
            try:
                result = compare(asked, Path(folder))
            except ValueError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
