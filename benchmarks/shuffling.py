"""How well an order mixes what was stored together: neighbours, sources and lengths over steps.

Printed by benchmarks.packing. The stored order has 50 sources, one after another, each with lengths
of its own, in 200 shards of 100 samples. The columns:

apart      median distance in the new order of two stored neighbours, as a share of the set; 29.3 %
           (1 - 1 / sqrt(2)) for two random places
near       share of stored neighbours that come within 1 % of the set of each other; random: 2 %
clumps     variance of a source's count in a step over that of a random draw; random: 1
source     correlation of a source's count in a step with that in the next step; random: 0
length     the same of a step's mean logarithm of the length; random: 0
"""

import random
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.native_sizes import CELL, as_infos, draw_clips
from data.loading.planner import PackPlanner, shard_numbers
from data.loading.stream import Span, Stream

NUM_SAMPLES, PER_SHARD, PER_SOURCE, STEP = 20_000, 100, 400, 64
WINDOW = 1024  # samples in webdataset's buffer; ours then mixes 10 shards, 1,000 samples
BUDGET, POOL = 2**20, 256
COLUMNS = ("apart", "near", "clumps", "source", "length")

Order = NDArray[np.int64]


def shuffle_quality(
    steps: list[list[int]], sources: Order, lengths: NDArray[np.float64]
) -> dict[str, float]:
    """Return the columns for steps of sample numbers 0 to n - 1, each about once over all steps."""
    order = np.array([number for step in steps for number in step])
    count = len(sources)
    places = np.zeros(count, np.int64)
    places[order] = np.arange(len(order))  # of the few that two passes hold, the last one
    apart = np.abs(np.diff(places)) / count
    steps = steps[:-1]  # the last one may be short
    sizes = np.array([len(step) for step in steps])[:, None]
    num = int(sources.max()) + 1
    counts = np.stack([np.bincount(sources[step], minlength=num) for step in steps])
    share = np.bincount(sources) / count
    expected = sizes * share * (1 - share)  # of a binomial draw
    return {
        "apart": float(np.median(apart)),
        "near": float((apart <= 0.01).mean()),
        "clumps": float(((counts - sizes * share) ** 2 / expected).mean()),
        "source": float(np.mean([_next_step(column) for column in (counts / sizes).T])),
        "length": _next_step(np.array([np.log(lengths[step]).mean() for step in steps])),
    }


def _next_step(values: NDArray[np.float64]) -> float:
    """Return the correlation of a series with itself one step later."""
    return float(np.corrcoef(values[:-1], values[1:])[0, 1])


def stored() -> tuple[Order, NDArray[np.float64], list]:
    """Return source, length and index entry of every sample in the stored order."""
    clips = draw_clips(NUM_SAMPLES)
    # A source's clips are of about one length: sorted in bands, the bands in random order.
    by_length = sorted(clips, key=lambda clip: clip.tokens)
    bands = [by_length[k : k + PER_SOURCE] for k in range(0, NUM_SAMPLES, PER_SOURCE)]
    np.random.default_rng(0).shuffle(bands)
    clips = [clip for band in bands for clip in band]
    sources = np.arange(NUM_SAMPLES) // PER_SOURCE
    return sources, np.array([float(c.tokens) for c in clips]), as_infos(clips, PER_SHARD)


def webdataset_order(buffer: int) -> Order:
    """Return the order of webdataset: shards in random order, then its own shuffle buffer."""
    from webdataset.filters import _shuffle

    rng = random.Random(0)
    shards = list(range(NUM_SAMPLES // PER_SHARD))
    rng.shuffle(shards)
    flat = (shard * PER_SHARD + place for shard in shards for place in range(PER_SHARD))
    return np.array(list(_shuffle(flat, buffer, buffer, rng)))


def stream_steps(infos: list, window: int) -> list[list[int]]:
    """Return the loader's order of one pass before packing, in steps."""
    stream = Stream([1] * len(infos), [Span(0, len(infos), 1.0)], 0, window, shard_numbers(infos))
    return in_steps(np.array([stream.draw()[1].index for _ in infos]))


def packed_steps(infos: list, window: int, in_order: float) -> list[list[int]]:
    """Return the loader's real steps once its pool has settled, about one pass of them."""
    planner = PackPlanner(
        infos, CELL, BUDGET, 4, 4096, POOL, 0, shuffle_shards=window, in_order=in_order
    )
    steps: list[list[int]] = []
    while planner.state_dict()["position"] < 2 * len(infos):
        planned = [p.index for pack in planner.next_step() for p in pack]
        if planner.state_dict()["position"] > len(infos):
            steps.append(planned)
    return steps


def in_steps(order: Order) -> list[list[int]]:
    """Cut an order into steps."""
    return [order[k : k + STEP].tolist() for k in range(0, len(order), STEP)]


def table() -> dict[str, dict[str, float]]:
    """Print the quality of every order and return it."""
    sources, lengths, infos = stored()
    shards = WINDOW // PER_SHARD
    orders: dict[str, Callable[[], list[list[int]]]] = {
        "stored": lambda: in_steps(np.arange(NUM_SAMPLES)),
        "random permutation": lambda: in_steps(np.random.default_rng(1).permutation(NUM_SAMPLES)),
        "ours": partial(stream_steps, infos, 0),
        f"webdataset, buffer of {WINDOW}": lambda: in_steps(webdataset_order(WINDOW)),
        **{
            f"ours, {number} shards at a time": partial(stream_steps, infos, number)
            for number in (shards, 2 * shards, 10 * shards)
        },
        "ours, packed": partial(packed_steps, infos, 0, 0.0),
        "ours, packed 75% in order": partial(packed_steps, infos, 0, 0.75),
    }
    print(f"{f'order (steps of {STEP})':<30}" + "".join(f"{name:>9}" for name in COLUMNS))
    found = {}
    for name, order in orders.items():
        found[name] = shuffle_quality(order(), sources, lengths)
        cells = [f"{found[name][c]:>9.1%}" for c in COLUMNS[:2]]
        cells += [f"{found[name][c]:>9.2f}" for c in COLUMNS[2:]]
        print(f"{name:<30}" + "".join(cells), flush=True)
    return found
