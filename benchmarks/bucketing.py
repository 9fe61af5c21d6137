"""Useful tokens a second of the training step: our packs against bucketed batches.

usage: python -m benchmarks.bucketing [--rounds 7] [--processor-time] [--json FILE]

All sides train on the same clips of one optimizer step: native shapes and lengths in the shares of
benchmarks/native_sizes.py, scaled down to what a CPU trains on. Ours are the packs that the
loader's planner makes of them, in the trainer's whole step (DeepSpeed, clipping, EMA). The others
are batches of a plain DiT (benchmarks/plain_dit.py: same parameters, same numbers) with AdamW
alone, which favours them:

equal shapes       clips of one shape and length are a batch, as in Open-Sora; what has no twin is
                   sorted by length and padded
sorted by length   all clips sorted by length, batches padded to their longest
as they come       batches in the stream's order, padded to their longest

Times are taken in turn; the table shows the median of the rounds' ratios and the quartiles.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.native_sizes import ASPECTS, CELL, VIDEO_SHARE, Clip, as_infos
from benchmarks.packs import Sample, Work, build_model, build_sample, training_step
from benchmarks.plain_dit import PlainDiT, pad
from benchmarks.train_step import trainer_step
from data.dataset.tokens import grid
from data.loading.planner import PackPlanner
from models.config import ModelConfig

MODEL = ModelConfig(width=128, depth=4, head_dim=32)
BUDGET, PACKS = 1536, 4
SHORT_SIDES = (64, 80, 96, 112, 128, 144)
MAX_FRAMES, CAPTION = 25, 16

Batches = list[list[int]]


def draw_small(count: int, seed: int = 0) -> list[Clip]:
    """Draw clips in the mixture's shapes and share of videos, at sizes that a CPU trains on."""
    rng = np.random.default_rng(seed)
    clips = []
    for _ in range(count):
        aspect = rng.choice(list(ASPECTS), p=list(ASPECTS.values()))
        short = int(rng.choice(SHORT_SIDES))
        long = round(short * max(aspect, 1 / aspect))
        frames = 1 + 4 * int(rng.integers(1, MAX_FRAMES // 4 + 1)) if moving(rng) else 1
        clips.append(Clip(frames, *((short, long) if aspect >= 1 else (long, short))))
    return clips


def moving(rng: np.random.Generator) -> bool:
    """Draw whether a clip is a video."""
    return bool(rng.random() < VIDEO_SHARE)


def plan_step(clips: list[Clip]) -> Batches:
    """Return the clips of one settled step of the loader's planner, pack by pack."""
    infos = as_infos(clips)
    planner = PackPlanner(infos, CELL, BUDGET, PACKS, 64, 64, seed=0, in_order=0.5)
    for _ in range(5):
        step = planner.next_step()
    return [[planned.index for planned in pack] for pack in step]


def fill_padded(order: list[int], lengths: list[int]) -> Batches:
    """Cut an order into batches whose padded size stays within a pack's budget."""
    batches: Batches = []
    for number in order:
        together = [*batches[-1], number] if batches else [number]
        if batches and len(together) * max(lengths[n] for n in together) <= BUDGET:
            batches[-1] = together
        else:
            batches.append([number])
    return batches


def equal_shapes(grids: list[tuple[int, int, int]], lengths: list[int]) -> Batches:
    """Batch what has equal grids; sort the rest by length and pad it."""
    groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for number, shape in enumerate(grids):
        groups[shape].append(number)
    twins = [members for members in groups.values() if len(members) > 1]
    rest = sorted((m[0] for m in groups.values() if len(m) == 1), key=lengths.__getitem__)
    batches = [batch for members in twins for batch in fill_padded(members, lengths)]
    return batches + fill_padded(rest, lengths)


def bucketed_step(whole: Sample, batches: Batches) -> tuple[Work, float]:
    """Return the plain step over padded batches, and their share of padding."""
    model = PlainDiT(MODEL)
    model.load_state_dict(build_model(MODEL).state_dict())
    padded = [pad(whole.pack, whole.x_0, whole.t, batch) for batch in batches]
    room = sum(batch.mask.numel() for batch in padded)
    values = float(whole.pack.valid.sum())
    losses = [partial(lambda batch: model(batch).sum() / values, batch) for batch in padded]
    return training_step(model, losses), 1 - whole.pack.num_tokens / room


def build() -> tuple[dict[str, Work], dict[str, float], int]:
    """Return all sides' steps, their shares of padding, and the useful tokens of the step."""
    clips = draw_small(2000)
    packs = plan_step(clips)
    chosen = [clips[number] for pack in packs for number in pack]
    grids = [grid(c.num_frames, c.height, c.width, CELL) for c in chosen]
    lengths = [f * h * w for f, h, w in grids]
    useful = sum(lengths)
    parts = [[clips[number] for number in pack] for pack in packs]
    samples = [
        build_sample(
            MODEL,
            [(grid(c.num_frames, c.height, c.width, CELL), CAPTION) for c in part],
            seed,
        )
        for seed, part in enumerate(parts)
    ]
    whole = build_sample(MODEL, [(shape, CAPTION) for shape in grids])
    arrival = np.random.default_rng(1).permutation(len(lengths)).tolist()
    ways = {
        "equal shapes": equal_shapes(grids, lengths),
        "sorted by length": fill_padded(sorted(arrival, key=lengths.__getitem__), lengths),
        "as they come": fill_padded(arrival, lengths),
    }
    steps, padding = {"our packs": trainer_step(MODEL, samples)}, {}
    # Packs have a fixed room on a GPU; on CPU nothing is computed for what is left of it.
    padding["our packs"] = 1 - useful / (BUDGET * PACKS)
    for name, batches in ways.items():
        steps[name], padding[name] = bucketed_step(whole, batches)
    return steps, padding, useful


def measure(works: list[Work], rounds: int, clock: Callable[[], float]) -> list[list[float]]:
    """Return each round's seconds of every work; a first round is not counted."""
    found = []
    for _ in range(rounds + 1):
        seconds = []
        for work in works:
            begun = clock()
            work()
            seconds.append(clock() - begun)
        found.append(seconds)
    return found[1:]


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 where bucketed batches are faster."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    steps, padding, useful = build()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    found = measure(list(steps.values()), arguments.rounds, clock)
    torch.distributed.destroy_process_group()
    print(f"{useful} useful tokens a step, {MODEL.width} wide, {MODEL.depth} deep, one thread")
    print(f"{'batches':<20}{'padding':>9}{'tokens/s':>10}{'ours faster by':>16}{'quartiles':>16}")
    rows = {}
    for column, name in enumerate(steps):
        seconds = [times[column] for times in found]
        ratios = [times[column] / times[0] for times in found]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        speed = useful / statistics.median(seconds)
        rows[name] = {"padding": padding[name], "tokens_per_second": speed, "ratio": middle}
        cells = f"{padding[name]:>9.1%}{speed:>10.0f}{middle:>16.2f}{f'{low:.2f}-{high:.2f}':>16}"
        print(f"{name:<20}{cells}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 0 if all(row["ratio"] >= 1 for row in rows.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
