"""How fast a study trains: useful FLOP/s over the rate of large products, start-up included.

usage: python -m benchmarks.study_rate [against=FOLDER] [rounds=1] [scale=1] [json=FILE]

Three small sets of runs are trained by the launcher of a checkout, one at a time, each from empty
folders to their results, on clips like those of `cpu_isoflop` (drawn here; an index of 14,000):

  grid   the five widths of its smallest budget, shortened to a third (`scale` stretches that)
  w48    one shape at two lengths, which tell a step from start-up and validation
  w96    the same at twice the width

All is counted in processor seconds, so that it can run beside other work; wall time is told, too.
`against` names a second checkout (a worktree of an older commit): both are measured in turns, and
runs an hour on the whole grid of `cpu_isoflop` are compared: for each of its committed runs the
start-up, and its steps at the time of a step of its size, on a straight line through both widths.
Both train the same runs; the largest relative difference of their losses is told.
Half a minute a checkout and round on an idle core at scale 0.3, two minutes at scale 1.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from data.command_line import parse
from data.dataset.shards import INDEX_NAME, ShardWriter, write_manifest
from data.shell import command

COMMITTED = Path(__file__).parents[1] / "docs/studies/cpu_isoflop/runs.csv"
BAR = 2.5
GRID = (32, 40, 48, 64, 72)
STEPS = {48: (40, 240), 96: (20, 120)}
# (height, width) in pixels and frames of the law's clips, with how many of a hundred have them.
SIZES = {
    (112, 112): 7, (64, 112): 15, (112, 64): 15, (128, 72): 8, (128, 80): 8, (64, 96): 8,
    (96, 64): 7, (80, 104): 8, (80, 120): 5, (80, 128): 5, (96, 96): 14,
}  # fmt: skip
FRAMES = {5: 8, 9: 14, 13: 16, 17: 62}
INDEX_LINES = 14_000

# Trains frozen runs by the launcher of the checkout that it runs in; older ones had other modules.
DRIVER = """
import json, resource, sys, time
from pathlib import Path
try:
    from launch.local.run import Job, describe_failures, run_jobs
    from trainer.kinds import start_command
    from trainer.identity import freeze
except ImportError:
    from launch.local import describe_failures, run_jobs
    from launch.process import Job
    from trainer.train import start_command
    from trainer.config import freeze
from trainer.config import compose_run
root, runs, jobs = Path(sys.argv[1]), json.loads(sys.argv[2]), []
for name, overrides in runs.items():
    run, folder = compose_run(overrides), root / name
    freeze(run, folder)
    marker = folder / "result.json"
    jobs.append(Job(name, folder, start_command(run, folder), 1, 1.0, marker))
before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
outcomes = run_jobs(jobs, 1, poll_seconds=0.05, threads_per_process=1, retries=0)
seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
if failed := describe_failures(outcomes):
    sys.exit(failed)
results = [json.loads(job.done_marker.read_text()) for job in jobs]
print(json.dumps({
    "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    "seconds": seconds, "flops": [r["flops"] for r in results],
    "loss": [r["loss"] for r in results], "steps": [r["steps"] for r in results],
}))
"""


@dataclass
class Options:
    """What is measured.

    against: another checkout. rounds: of both in turns. scale: length of the sets. json: a file.
    """

    against: str = ""
    rounds: int = 1
    scale: float = 1.0
    json: str = ""


@dataclass
class Rates:
    """What one round found of one checkout: FLOP/s by processor seconds, and seconds a run.

    study: of the grid, start-up included. step: seconds and FLOPs of a step, by width. start_up:
    processor seconds of a run beside its steps: start, validations, end. wall: seconds of the grid.
    """

    study: float
    start_up: float
    wall: float
    step: dict[int, tuple[float, float]]
    losses: list[float] = field(repr=False)

    def grid_hours(self) -> float:
        """Return the processor hours of all runs of the committed grid."""
        (low, x), (high, y) = (self.step[width] for width in sorted(self.step))
        slope = (high - low) / (y - x)
        with COMMITTED.open(newline="") as file:
            rows = [(float(row["flops"]), float(row["steps"])) for row in csv.DictReader(file)]
        trained = sum(steps * (low + slope * (flops / steps - x)) for flops, steps in rows)
        return (trained + len(rows) * self.start_up) / 3600


def write_clips(root: Path, clips: int = 300) -> None:
    """Write latents of drifting waves, with captions, in the sizes of the law's clips."""
    for split, count in (("train", clips), ("val_worlds", 96)):
        draw = torch.Generator().manual_seed(len(split))
        with ShardWriter(root, split, 1 << 24) as writer:
            for number in range(count):
                (height, width), frames = _chosen(SIZES, draw), _chosen(FRAMES, draw)
                f, h, w = 1 + (frames - 1) // 4, -(-height // 16) * 2, -(-width // 16) * 2
                axes = torch.meshgrid(*(torch.arange(n) for n in (f, h, w)), indexing="ij")
                phase = torch.randn(4, 8, 1, 1, 1, generator=draw)
                angle = sum((p * axis for p, axis in zip(phase, axes, strict=False)), phase[3])
                states = torch.randn(24 + number % 25, 384, generator=draw)
                meta = {
                    "key": f"{split}-{number}", "media": "latent", "num_frames": frames,
                    "height": height, "width": width, "fps": 12.0, "caption": f"wave {number}",
                    "duration_seconds": frames / 12, "source": f"waves/{split}-{number}",
                    "licence": "CC0", "rendered": True, "original": {},
                    "caption_tokens": len(states),
                }  # fmt: skip
                tensors = {"latent": torch.sin(angle).half(), "caption": states.half()}
                writer.write(meta, save(tensors), "safetensors")
    write_manifest(root, {"name": "waves"})
    path = root / "train" / INDEX_NAME
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    more = (lines[i % clips] | {"key": f"train-{i}"} for i in range(INDEX_LINES))
    path.write_text("".join(json.dumps(line) + "\n" for line in more))


def _chosen(shares: dict[Any, int], draw: torch.Generator) -> Any:
    weights = torch.tensor([float(share) for share in shares.values()])
    return list(shares)[int(torch.multinomial(weights, 1, generator=draw))]


def overrides(clips: Path, width: int, horizon: str) -> list[str]:
    """Return a run of `cpu_isoflop` of one width and length."""
    return [
        "experiment=cpu_demo", "text.max_tokens=48", f"data.root={clips}", f"model.width={width}",
        "model.depth=1", f"model.head_dim={width // 2}", "name=rate", horizon, "optim.lr=7e-3",
        "validation.splits=[val_worlds]", "validation.samples=96", "checkpoint.seconds=60",
        "parallel.device=cpu",
    ]  # fmt: skip


def train(checkout: Path, folder: Path, runs: dict[str, list[str]]) -> dict[str, Any]:
    """Train runs by a checkout's launcher; raise RuntimeError where one fails."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    env = {**os.environ, **threads, "PYTHONPATH": str(checkout), "DS_ACCELERATOR": "cpu"}
    found = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder), json.dumps(runs)],
        cwd=checkout, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode:
        raise RuntimeError(f"{checkout}: {found.stderr}")
    result: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return result


def measure(checkout: Path, folder: Path, clips: Path, scale: float) -> Rates:
    """Train all sets once."""
    horizon = f"horizon.flops={scale * 4e10:.4g}"
    grid = train(checkout, folder / "grid", {f"w{w}": overrides(clips, w, horizon) for w in GRID})
    step, begun, losses = {}, [], list(grid["loss"])
    for width, lengths in STEPS.items():
        seconds, steps, flops = [], [], 0.0
        for length in (max(2, round(scale * n)) for n in lengths):
            runs = {"run": overrides(clips, width, f"horizon.steps={length}")}
            found = train(checkout, folder / f"w{width}-{length}", runs)
            seconds.append(found["processor_seconds"])
            steps.append(found["steps"][0])
            flops = found["flops"][0] / steps[-1]
            losses += found["loss"]
        one = (seconds[1] - seconds[0]) / (steps[1] - steps[0])
        step[width] = (one, flops)
        begun.append(seconds[0] - one * steps[0])
    low, high = (step[width] for width in sorted(step))
    line = [low[0] + (high[0] - low[0]) * (f / n - low[1]) / (high[1] - low[1])
            for f, n in zip(grid["flops"], grid["steps"], strict=True)]  # fmt: skip
    trained = sum(n * one for n, one in zip(grid["steps"], line, strict=True))
    start_up = (grid["processor_seconds"] - trained) / len(GRID)
    useful = sum(grid["flops"]) / grid["processor_seconds"]
    return Rates(useful, start_up, grid["seconds"], step, losses)


def product_rate(size: int = 1024) -> float:
    """Return FLOP/s of a large product of one thread, by processor time; the best of ten."""
    torch.set_num_threads(1)
    a, b, best = torch.randn(size, size), torch.randn(size, size), float("inf")
    for _ in range(10):
        begun = time.process_time()
        a @ b
        best = min(best, time.process_time() - begun)
    return 2 * size**3 / best


def show(title: str, rounds: list[Rates], product: float) -> dict[str, Any]:
    """Print a checkout's medians and return them."""
    study = statistics.median(r.study for r in rounds)
    start = statistics.median(r.start_up for r in rounds)
    hours = statistics.median(r.grid_hours() for r in rounds)
    wall = statistics.median(r.wall for r in rounds)
    by_width = {w: statistics.median(r.step[w][1] / r.step[w][0] for r in rounds) for w in STEPS}
    steps = ", ".join(f"{rate / 1e9:.1f} at width {w}" for w, rate in by_width.items())
    print(f"{title}\n  the set of a study   {study / 1e9:.1f} GFLOP/s, start-up included: "
          f"{study / product:.0%} of a product's rate; {wall:.0f} s of wall time")  # fmt: skip
    print(f"  a step               {steps} GFLOP/s")
    print(f"  beside its steps     {start:.1f} processor-s a run")
    print(f"  grid of cpu_isoflop  {hours:.2f} processor-hours")
    return {"title": title, "study": study, "start_up": start, "grid_hours": hours,
            "step": by_width, "rounds": [asdict(r) for r in rounds]}  # fmt: skip


def compare(options: Options, root: Path) -> dict[str, Any]:
    """Measure the checkouts in turns, print and return what was found."""
    write_clips(root / "clips")
    checkouts = [Path(__file__).resolve().parents[1]]
    checkouts += [Path(options.against).resolve()] if options.against else []
    found: list[list[Rates]] = [[] for _ in checkouts]
    for number in range(options.rounds):
        order = list(enumerate(checkouts))
        for index, checkout in order if number % 2 == 0 else order[::-1]:
            place = root / f"round-{number}-{index}"
            found[index].append(measure(checkout, place, root / "clips", options.scale))
            print(f"round {number + 1}: {checkout.name}: done", file=sys.stderr)
    product = product_rate()
    print(f"a product of 1,024: {product / 1e9:.1f} GFLOP/s on one thread")
    rows = [show(str(c), rounds, product) for c, rounds in zip(checkouts, found, strict=True)]
    if len(rows) == 2:
        ratio = rows[1]["grid_hours"] / rows[0]["grid_hours"]
        short = rows[0]["study"] / rows[1]["study"]
        pairs = zip(found[0][0].losses, found[1][0].losses, strict=True)
        apart = max(abs(a / b - 1) for a, b in pairs)
        verdict = "reached" if ratio >= BAR else "NOT reached"
        print(f"runs an hour, here over there: {ratio:.2f} on the grid of cpu_isoflop (bar {BAR}: "
              f"{verdict}), {short:.2f} on the set; losses differ by {apart:.1e}")  # fmt: skip
    return {"product": product, "rows": rows}


@command(__doc__, keys=Options, needs_words=False)
def main(argv: list[str]) -> int:
    """Measure and print."""
    options = parse(Options, argv)
    if options.against and not (Path(options.against) / "trainer").is_dir():
        raise ValueError(f"against={options.against}: must be a checkout. Use a worktree's folder.")
    if options.rounds < 1 or not options.scale > 0:
        raise ValueError(f"rounds={options.rounds} scale={options.scale}: must be positive. Use 1.")
    with tempfile.TemporaryDirectory() as folder:
        result = compare(options, Path(folder))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    main.run()
