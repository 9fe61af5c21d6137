"""How long a run takes to know a million clips, in what memory, and how fast single ones are read.

usage: python -m benchmarks.index [--samples N] [--ranks 4] [--folder FOLDER] [--list | --hollow]

Writes an index of made-up clips (1,000 shapes, 200 films) with its columns, then opens it in ranks
that are processes, as on a node: seconds until it is open, until a first step is planned, and of a
resume in the middle of a pass; what the memory of all ranks grew by (proportional set size: a page
that ranks share counts once); lines that a rank reads and parses in a second. ``--list``
measures the index as a list beside it, as it was read before it had columns. ``--hollow`` writes
the columns of an index whose lines are a hole in the file, in seconds, and reads no line.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from array import array
from collections import Counter
from math import nan
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from data.config import DataConfig
from data.dataset.columns import ColumnBuilder, key_number
from data.dataset.sample import MEDIA
from data.dataset.shards import INDEX_NAME, read_index
from data.loading.mixture import Dataset, planner_of, read_split
from data.loading.stream import Span

CELL = (4, 16, 16)
HOLLOW_BYTES = 700  # of a line that is not written
SHAPES = [(1 + 4 * (i % 20), 256 + 16 * (i % 10), 256 + 16 * (i // 20)) for i in range(1000)]
CAPTION = "A red ball rolls slowly over a green floor towards a wall, seen from above. " * 3


def write_split(root: Path, count: int, hollow: bool) -> None:
    """Write the index of a split ``train`` and its columns, as a writer of shards would.

    Columns are filled with arrays: ``ColumnBuilder.add`` takes 6 microseconds a sample.
    """
    folder = root / "train"
    folder.mkdir(parents=True)
    template = json.dumps(
        {
            "media": "latent", "fps": 24.0, "duration_seconds": 1.0, "licence": "CC0",
            "rendered": False, "original": {"num_frames": 480, "height": 1080, "width": 1920},
            "nbytes": 30_000, "short_caption": "A red ball", "short_caption_tokens": 3,
        }
    )[:-1]  # fmt: skip
    own = (
        ', "key": "clip-%08d", "num_frames": %d, "height": %d, "width": %d, "caption_tokens": %d, '
        f'"caption": "{CAPTION}", "source": "film-%d", "sha256": "%064x", "offset": %d, '
        '"shard": "shard-%06d.tar"}\n'
    )
    columns, place = ColumnBuilder(), 0
    numbers, sizes = np.arange(count), len(SHAPES)
    columns.rows |= {
        "shape": array("I", (numbers % sizes).astype("u4").tobytes()),
        "source": array("I", (numbers % 200).astype("u4").tobytes()),
        "shard": array("I", (numbers // 1000).astype("u4").tobytes()),
        "caption": array("H", (40 + numbers % 50).astype("u2").tobytes()),
        "short": array("H", np.full(count, 4, "u2").tobytes()),
    }
    columns.shapes = {(MEDIA.index("latent"), *shape): i for i, shape in enumerate(SHAPES)}
    columns.sources = {f"film-{i}": i for i in range(200)}
    columns.shards = {f"shard-{i:06d}.tar": i for i in range(-(-count // 1000))}
    columns.kinds = Counter({(i, 40 + i % 50, 4): -(-(count - i) // sizes) for i in range(sizes)})
    lines, keys, digest = columns.rows["line"], columns.rows["key"], columns.digest
    with open(folder / INDEX_NAME, "wb") as stream:
        if hollow:
            lines.frombytes((numbers.astype("u8") * HOLLOW_BYTES).tobytes())
            keys.frombytes(np.random.default_rng(0).bytes(8 * count))
            stream.truncate(HOLLOW_BYTES * count)
        for i in range(0 if hollow else count):
            shape = SHAPES[i % sizes]
            words = (i, *shape, 40 + i % 50, i % 200, i, 512 * i, i // 1000)
            lines.append(place)
            keys.append(key_number(f"clip-{i:08d}"))
            digest.update(b"clip-%08d %064x %d %d %d\n" % (i, i, *shape))
            place += stream.write((template + own % words).encode())
    columns.write(folder)


def rank(root: Path, as_list: bool, hollow: bool, all_here: Barrier, pipe: Connection) -> None:
    """Open the index as a rank does; send what it took."""
    before = psutil.Process().memory_full_info().pss
    config = DataConfig(root=str(root), pack_tokens=65_536, packs_per_step=8)
    all_here.wait()
    start = time.perf_counter()
    if as_list:
        infos = read_index(root, "train")
        dataset = Dataset(infos, [])
    else:
        dataset = read_split(config, "train")
    opened = time.perf_counter() - start
    spans = [Span(0, len(dataset.infos), 1.0)]
    planner = planner_of(config, dataset.infos, spans, CELL, 0)
    planner.next_step()
    planned = time.perf_counter() - start
    state = planner.state_dict()
    state["position"] = len(dataset.infos) // 2
    state["sources"] = [[state["position"], 0]]
    start = time.perf_counter()
    again = planner_of(config, dataset.infos, spans, CELL, 0)
    again.load_state_dict(state)
    step = again.next_step()
    resumed = time.perf_counter() - start
    places = [p.index for pack in step for p in pack]
    while len(places) < 3000:
        places += [p.index for pack in again.next_step() for p in pack]
    start = time.process_time()
    for place in [] if hollow else places:
        dataset.infos[place]
    lines = nan if hollow else len(places) / (time.process_time() - start)
    all_here.wait()  # pages are shared while all hold them
    memory = psutil.Process().memory_full_info().pss - before
    all_here.wait()
    pipe.send([opened, planned, resumed, lines, memory / 1e6])


def measure(root: Path, ranks: int, as_list: bool, hollow: bool) -> list[list[float]]:
    """Return what each rank of a node measured."""
    context = multiprocessing.get_context("spawn")
    all_here = context.Barrier(ranks)
    pipes = [context.Pipe(duplex=False) for _ in range(ranks)]
    started = [
        context.Process(target=rank, args=(root, as_list, hollow, all_here, theirs))
        for _, theirs in pipes
    ]
    for process in started:
        process.start()
    found = [ours.recv() for ours, _ in pipes]
    for process in started:
        process.join()
    return found


def row_of(name: str, found: list[list[float]]) -> str:
    """Return a line of the table: the slowest rank, and the memory of all."""
    opened, planned, resumed = (max(values) for values in list(zip(*found, strict=True))[:3])
    lines = min(values[3] for values in found)
    memory = sum(values[4] for values in found)
    return (
        f"{name:<8} {opened:>10.3f} {planned:>12.3f} {resumed:>10.3f} {lines:>12,.0f} "
        f"{memory:>12.1f}"
    )


def parse_arguments() -> Any:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="is kept; a temporary one is not")
    parser.add_argument("--list", action="store_true", help="measure the list, too")
    parser.add_argument("--hollow", action="store_true", help="write columns alone")
    return parser.parse_args()


def main() -> None:
    """Write, open and print."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as temporary:
        root = (arguments.folder or Path(temporary)) / str(arguments.samples)
        if not root.exists():
            start = time.perf_counter()
            write_split(root, arguments.samples, arguments.hollow)
            print(f"written in {time.perf_counter() - start:.0f} s")
        sizes = [path.stat().st_size / 1e6 for path in sorted((root / "train").iterdir())]
        print(
            f"{arguments.samples:,} samples, {arguments.ranks} ranks; columns and index: {sizes} MB"
        )
        print(f"{'':<8} {'opened, s':>10} {'and planned':>12} {'resumed, s':>10} {'lines/s':>12}"
              f" {'MB, all ranks':>12}")  # fmt: skip
        print(row_of("columns", measure(root, arguments.ranks, False, arguments.hollow)))
        if arguments.list:
            print(row_of("list", measure(root, arguments.ranks, True, False)))


if __name__ == "__main__":
    main()
