"""Which way to pack: padding, balance over ranks, time to plan, and how long a sample waits.

usage: python -m benchmarks.packing [--clips 20000] [--json FILE]

Clips of native sizes are simulated (benchmarks/native_sizes.py) and packed in every way of
benchmarks/packers.py. The columns:

padding    tokens of room that hold nothing useful
dropped    source tokens that were cropped away
8, 64      how much longer the slowest of so many ranks takes than the mean rank, over all steps of
           four batches a rank, by modelled cost (data.loading.planner.pack_cost):
           dealt out at random, and by data.loading.planner.deal
us         microseconds to plan one sample
wait       most batches made between the arrival of a sample and its own
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import shuffling
from benchmarks.native_sizes import CELL, draw_clips
from benchmarks.packers import (
    Batch,
    best_fit_window,
    buckets,
    longest_wait,
    next_fit,
    num_buckets,
    pad_to_longest,
    refill_and_cut,
    refill_pool,
)
from data.loading.planner import deal, pack_cost

BUDGET = 2**20
TIGHT_BUDGET = 2**17
PACKS_A_RANK = 4
SHIPPED = (256, 0.0), (256, 0.75)  # data.pool and data.in_order: the default, the best
BARS = {"padding": 0.01, "spread": 0.05}


@dataclass(frozen=True)
class Row:
    """One way to pack, with the figures of the table."""

    name: str
    padding: float
    dropped: float
    random_8: float
    dealt_8: float
    random_64: float
    dealt_64: float
    microseconds: float
    wait: int
    batches: int


def spread(costs: list[float], world: int, dealt: bool, packs_a_rank: int = PACKS_A_RANK) -> float:
    """Return how much longer steps take than if every rank had the mean work; nan below 1 step."""
    size = world * packs_a_rank
    rng = np.random.default_rng(0)
    slowest = mean = 0.0
    for start in range(0, len(costs) - size + 1, size):
        step = sorted(costs[start : start + size], reverse=True)
        order = deal(step, world) if dealt else rng.permutation(size).reshape(world, -1)
        loads = [sum(step[n] for n in hand) for hand in order]
        slowest += max(loads)
        mean += statistics.fmean(loads)
    return slowest / mean - 1 if mean else float("nan")


def measure(name: str, packer: Iterator[Batch], wait: int | None = None) -> Row:
    """Run a packer over all its clips; ``wait`` where the packer does not count it."""
    batches = [next(packer)]  # not timed: some begin with work for the whole set
    begun = time.process_time()
    batches += packer
    seconds = time.process_time() - begun
    useful = sum(sum(b.lengths) for b in batches)
    room = sum(b.budget for b in batches)
    dropped = sum(b.dropped for b in batches)
    costs = [pack_cost(b.computed) for b in batches]
    return Row(
        name,
        1 - useful / room,
        dropped / (useful + dropped),
        *(spread(costs, world, dealt) for world in (8, 64) for dealt in (False, True)),
        1e6 * seconds / max(sum(len(b.lengths) for b in batches[1:]), 1),
        max(b.wait for b in batches) if wait is None else wait,
        len(batches),
    )


def candidates(count: int) -> list[Row]:
    """Measure every way to pack, at a budget that holds the largest clip, and at a tight one."""
    clips = draw_clips(count)
    settings = [(64, 0.0), SHIPPED[0], (1024, 0.0), (256, 0.5), SHIPPED[1], (256, 0.9)]
    works = {
        "next fit": (partial(next_fit, clips, BUDGET), None),
        "best fit in a window of 256": (partial(best_fit_window, clips, BUDGET, 256), None),
        **{
            name_of(*way): (
                partial(refill_pool, clips, BUDGET, *way),
                longest_wait(clips, BUDGET, *way),
            )
            for way in settings
        },
        "pool of 256, cutting": (partial(refill_and_cut, clips, BUDGET, 256), None),
        f"{num_buckets()} buckets": (partial(buckets, clips, BUDGET), None),
        "pad to the longest": (partial(pad_to_longest, clips, BUDGET), None),
        "tight: pool, equal parts": (partial(refill_and_cut, clips, TIGHT_BUDGET, 256, True), None),
        "tight: pool, cutting": (partial(refill_and_cut, clips, TIGHT_BUDGET, 256), None),
    }
    rows = []
    for name, (work, wait) in works.items():
        rows.append(measure(name, work(), wait))
        print_row(rows[-1])
    return rows


def name_of(pool: int, in_order: float) -> str:
    """Name a setting of the loader's packer."""
    return f"pool of {pool}" + (f", {in_order:.0%} in order" if in_order else "")


def print_row(row: Row) -> None:
    """Print one line of the table."""
    shares = (row.padding, row.dropped, row.random_8, row.dealt_8, row.random_64, row.dealt_64)
    cells = "".join(f"{'-' if np.isnan(share) else f'{share:.2%}':>9}" for share in shares)
    print(f"{row.name:<30}{cells}{row.microseconds:>7.1f}{row.wait:>7}{row.batches:>9}", flush=True)


def packs_a_rank(count: int) -> dict[str, dict[str, float]]:
    """Print what more packs a rank and step do to the balance of the loader's packs."""
    found = {}
    costs = [pack_cost(b.lengths) for b in refill_pool(draw_clips(count), BUDGET, *SHIPPED[1])]
    print(f"\n{'packs a rank':<14}{'8 ranks':>10}{'64 ranks':>10}{'planning a step of 64':>24}")
    for packs in (1, 2, 4, 8):
        if len(costs) < 64 * packs:
            break  # too few clips for a step of 64 ranks
        step = sorted(costs[: 64 * packs], reverse=True)
        begun = time.process_time()
        deal(step, 64)
        milliseconds = 1e3 * (time.process_time() - begun)
        spreads = [spread(costs, world, True, packs) for world in (8, 64)]
        found[str(packs)] = {"8": spreads[0], "64": spreads[1], "deal_ms": milliseconds}
        cells = "".join(f"{value:>10.2%}" for value in spreads)
        print(f"{packs:<14}{cells}{milliseconds:>21.1f} ms", flush=True)
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 where the shipped way misses a bar."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=20_000, help="simulated clips")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args(argv)
    lengths = [clip.tokens for clip in draw_clips(arguments.clips)]
    print(
        f"{len(lengths)} clips at {'x'.join(map(str, CELL))}: median {np.median(lengths):,.0f}, "
        f"mean {np.mean(lengths):,.0f}, largest {max(lengths):,} tokens; packs of {BUDGET:,}, "
        f"tight ones of {TIGHT_BUDGET:,}\n"
    )
    heads = ("padding", "dropped", "8 random", "8 dealt", "64 rand.", "64 dealt")
    head = "".join(f"{head:>9}" for head in heads)
    print(f"{'':<30}{head}{'us':>7}{'wait':>7}{'batches':>9}")
    rows = candidates(arguments.clips)
    balance = packs_a_rank(arguments.clips)
    print()
    quality = shuffling.table()
    shipped = [row for row in rows if row.name in {name_of(*way) for way in SHIPPED}]
    passed = all(
        row.padding <= BARS["padding"] and max(row.dealt_8, row.dealt_64) <= BARS["spread"]
        for row in shipped
    )
    names = " and ".join(row.name for row in shipped)
    print(f"\n{names}: padding and spread within 1 % and 5 %: {passed}")
    if arguments.json:
        found = {"rows": [asdict(r) for r in rows], "packs_a_rank": balance, "shuffle": quality}
        arguments.json.write_text(json.dumps(found, indent=1))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
