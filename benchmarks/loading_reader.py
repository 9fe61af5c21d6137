"""One way to read raw samples, in a process of its own: benchmarks.loading starts it.

usage: python -m benchmarks.loading_reader WAY FOLDER

Prepares what the way needs in FOLDER/WAY, prints "ready", and then answers every line on its input
by reading all samples once: samples, bytes of payload, wall and processor seconds.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

Reader = Callable[[], Iterator[int]]  # yields the size of every payload

SHUFFLE_BUFFER = 1000


def ours(folder: Path, order: str, verify: bool) -> Reader:
    """Return a reader of our shards by their index."""
    from data.dataset.shards import read_index, read_payload

    infos = read_index(folder, "train")
    rng = random.Random(0)

    def read() -> Iterator[int]:
        chosen = rng.sample(infos, len(infos)) if order == "random" else infos
        return (len(read_payload(folder, "train", info, verify)) for info in chosen)

    return read


def webdataset(folder: Path, buffer: int) -> Reader:
    """Return a reader of the same tars by webdataset."""
    from webdataset import WebDataset

    shards = sorted(map(str, (folder / "train").glob("*.tar")))
    samples = WebDataset(shards, shardshuffle=100 if buffer else False, seed=0, empty_check=False)
    if buffer:
        samples = samples.shuffle(buffer)
    return lambda: (len(sample["mp4"]) for sample in samples)


def mosaic(folder: Path, order: str) -> Reader:
    """Return a reader of the same samples in mosaicml-streaming's format."""
    from streaming import MDSWriter, StreamingDataset

    from data.dataset.shards import read_index, read_payload

    made = folder / f"mosaic-{order}"
    if not made.exists():
        columns = {"json": "bytes", "mp4": "bytes"}
        with MDSWriter(out=str(made), columns=columns, size_limit=32_000_000) as writer:
            for info in read_index(folder, "train"):
                text = json.dumps(info.to_json()).encode()
                writer.write({"json": text, "mp4": read_payload(folder, "train", info)})
    samples = StreamingDataset(local=str(made), shuffle=order == "shuffled", batch_size=1)
    rng = random.Random(0)

    def read() -> Iterator[int]:
        if order == "random":
            numbers = rng.sample(range(len(samples)), len(samples))
            return (len(samples[number]["mp4"]) for number in numbers)
        return (len(sample["mp4"]) for sample in samples)

    return read


def energon(folder: Path, buffer: int) -> Reader:
    """Return a reader of the same tars by megatron-energon, which needs files of its own there."""
    import shutil
    import subprocess

    from megatron.energon import (
        Cooker,
        DefaultTaskEncoder,
        WorkerConfig,
        get_loader,
        get_train_dataset,
        stateless,
    )

    made = folder / f"energon-{buffer}"
    if not made.exists():
        made.mkdir()
        for shard in sorted((folder / "train").glob("*.tar")):
            shutil.copy(shard, made / shard.name)
        command = "prepare --non-interactive --split-ratio 1,0,0 --sample-type CrudeWebdataset"
        program = Path(sys.executable).with_name("energon")
        with open(folder / f"energon-{buffer}.log", "wb") as out:
            arguments = [str(program), *command.split(), "--num-workers", "1", str(made)]
            subprocess.run(arguments, check=True, stdout=out, stderr=out)

    class Raw(DefaultTaskEncoder[Any, Any, Any, Any]):
        """Hand samples through as they are."""

        cookers = [Cooker(stateless(lambda sample: sample))]  # noqa: RUF012
        decoder = None

    dataset = get_train_dataset(
        made,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=None,
        shuffle_buffer_size=buffer or None,
        max_samples_per_sequence=None,
        task_encoder=Raw(),
    )
    samples = iter(get_loader(dataset))  # repeats for ever
    count = len((folder / "train" / "index.jsonl").read_text().splitlines())
    return lambda: (len(sample["mp4"]) for sample in islice(samples, count))


WAYS: dict[str, Callable[[Path], Reader]] = {
    "ours-random": lambda folder: ours(folder, "random", True),
    "ours-random-unverified": lambda folder: ours(folder, "random", False),
    "ours-sequential": lambda folder: ours(folder, "stored", True),
    "ours-sequential-unverified": lambda folder: ours(folder, "stored", False),
    "webdataset-sequential": lambda folder: webdataset(folder, 0),
    "webdataset-shuffled": lambda folder: webdataset(folder, SHUFFLE_BUFFER),
    "mosaic-sequential": lambda folder: mosaic(folder, "stored"),
    "mosaic-shuffled": lambda folder: mosaic(folder, "shuffled"),
    "mosaic-random": lambda folder: mosaic(folder, "random"),
    "energon-sequential": lambda folder: energon(folder, 0),
    "energon-shuffled": lambda folder: energon(folder, SHUFFLE_BUFFER),
}


def main() -> None:
    """Answer until the input ends."""
    way, folder = sys.argv[1], Path(sys.argv[2])
    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries print
    read = WAYS[way](folder)
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        count = nbytes = 0
        for size in read():
            count += 1
            nbytes += size
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(json.dumps([count, nbytes, wall, processor]), file=answers, flush=True)


if __name__ == "__main__":
    main()
