"""Raw samples a second of our shards, against other loaders; and whether our memory stays flat.

usage: python -m benchmarks.loading [--python PATH] [--clips 2000] [--rounds 5] [--processor-time]
       python -m benchmarks.loading --memory [--packs 10000]

Every way reads the same clips (real H.264 in tars), undecoded, in a process of its own; the
processes take turns, so that other load on the machine meets all of them. Names: benchmarks/
loading_reader.py. ``--python`` is an interpreter of an environment with mosaicml-streaming and
megatron-energon, whose pins do not agree with this project's:

  python -m venv rivals && rivals/bin/pip install mosaicml-streaming megatron-energon

``--memory`` runs the loader with its decoders over small clips and prints the resident memory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.loading_reader import WAYS
from data.config import DataConfig
from data.dataset.shards import ShardWriter
from data.loading.loader import Loader
from data.media.h264 import encode_h264

RIVALS = {"webdataset": "webdataset", "mosaic": "streaming", "energon": "megatron.energon"}
NUM_CONTENTS = 24  # different clips; the set repeats them under new keys
CELL = (4, 16, 16)
MIB = 2**20


@dataclass(frozen=True)
class Speed:
    """Samples a second of one way: median and quartiles of the rounds."""

    way: str
    median: float
    low: float
    high: float


def write_clips(folder: Path, count: int, shape: tuple[int, int, int]) -> None:
    """Write a split ``train`` of moving clips (frames, height, width) in shards of 32 MB."""
    num_frames, height, width = shape
    f, h, w = np.meshgrid(*map(np.arange, shape), indexing="ij")
    rng = np.random.default_rng(0)
    payloads = []
    for number in range(NUM_CONTENTS):
        planes = [h * 3 + f * 9 + number * 31, w * 2 + f * 5, h + w + f * 7 + number]
        frames = np.stack([plane % 256 for plane in planes], -1)
        noise = rng.integers(0, 24, frames.shape)
        payloads.append(encode_h264(np.clip(frames + noise, 0, 255).astype(np.uint8), 24.0))
    with ShardWriter(folder, "train", 32_000_000) as writer:
        for number in range(count):
            meta = {"key": f"clip-{number:06d}", "media": "video", "num_frames": num_frames}
            meta |= {"height": height, "width": width, "fps": 24.0, "caption": "moving bars"}
            meta |= {"duration_seconds": num_frames / 24, "source": "bars", "licence": "CC0-1.0"}
            meta |= {"rendered": True, "original": {}}
            writer.write(meta, payloads[number % NUM_CONTENTS], "mp4")


class ReaderProcess:
    """A way to read in a process of its own."""

    def __init__(self, way: str, python: str, folder: Path) -> None:
        self.way, self.seconds = way, list[tuple[float, float]]()
        root = str(Path(__file__).resolve().parents[1])
        self.errors = folder / f"{way}.log"
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [python, "-m", "benchmarks.loading_reader", way, str(folder)],
                cwd=root,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
                text=True,
            )
        self.ready = self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def round(self) -> tuple[int, int]:
        """Read all samples once and return their number and the bytes of their payloads."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        line = self._line()
        if not line:
            raise OSError(f"{self.way}: ended. {self.reason()}")
        count, nbytes, wall, processor = json.loads(line)
        self.seconds.append((wall, processor))
        return count, nbytes

    def reason(self) -> str:
        """Return the last line of what it wrote to its standard error."""
        lines = self.errors.read_text(errors="replace").strip().splitlines()
        return lines[-1][:160] if lines else "It left no message."

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def missing(python: str, way: str) -> str:
    """Return why a way cannot run under an interpreter, or nothing."""
    module = RIVALS.get(way.split("-")[0])
    if module is None:
        return ""
    probe = f"import importlib.util as u, sys; sys.exit(not u.find_spec({module!r}))"
    try:
        done = subprocess.run([python, "-c", probe], capture_output=True)
    except OSError as error:
        return f"{python} cannot be started ({error.strerror})"
    return f"{python} has no {module}" if done.returncode else ""


def compare(folder: Path, rival_python: str, rounds: int, by_processor: bool) -> list[Speed]:
    """Let every way read all samples in turn, and print the table."""
    readers = []
    for way in WAYS:
        python = rival_python if way.startswith(("mosaic", "energon")) else sys.executable
        if reason := missing(python, way):
            print(f"{way}: left out, {reason}", flush=True)
            continue
        reader = ReaderProcess(way, python, folder)
        if reader.ready:
            readers.append(reader)
        else:
            reader.close()
            print(f"{way}: left out, it did not start: {reader.reason()}", flush=True)
    try:
        sizes = set()
        for _ in range(rounds + 1):
            sizes |= {reader.round() for reader in readers}
        # A shuffle buffer that runs over the end of a pass reads some samples twice, others not.
        count, nbytes = max(sizes)
        assert all(c == count and abs(n / nbytes - 1) < 0.01 for c, n in sizes), sizes
    finally:
        for reader in readers:
            reader.close()
    print(f"{count} samples of {nbytes / count / 1024:.0f} KiB, {rounds} rounds in turn")
    print(f"{'way':<28}{'samples/s':>12}{'quartiles':>22}")
    speeds = []
    for reader in readers:
        # The first round of each is not counted: it fills the page cache.
        rates = [count / pair[by_processor] for pair in reader.seconds[1:]]
        low, middle, high = statistics.quantiles(rates, n=4, method="inclusive")
        speeds.append(Speed(reader.way, middle, low, high))
        print(f"{reader.way:<28}{middle:>12,.0f}{f'{low:,.0f} to {high:,.0f}':>22}", flush=True)
    return speeds


def verdict(speeds: list[Speed]) -> bool:
    """Print ours over every rival's fastest way, and return whether it is faster than all.

    No rival verifies what it reads, so ours counts without SHA-256; with it is printed, too.
    """
    found = {speed.way: speed.median for speed in speeds}
    passed = True
    for rival in RIVALS:
        theirs = {way: speed for way, speed in found.items() if way.startswith(rival)}
        if theirs:
            way = max(theirs, key=theirs.__getitem__)
            ratio = found["ours-random-unverified"] / theirs[way]
            passed &= ratio > 1
            verified = found["ours-random"] / theirs[way]
            print(f"ours at random over {way}: {ratio:.2f}, every sample verified {verified:.2f}")
    return passed


def memory(folder: Path, packs: int) -> float:
    """Run the loader over packs; print and return the growth in MiB after the first tenth."""
    write_clips(folder, 200, (5, 48, 64))
    config = DataConfig(root=str(folder), pack_tokens=64, packs_per_step=10, pool=64)
    loader = Loader(config, "train", CELL, 0, 0, 1)
    marks = []
    try:
        print(f"{'packs':>8}{'this process':>16}{'decoders':>12}   MiB resident")
        for step in range(1, packs // 10 + 1):
            loader.next_step()
            if step % max(packs // 100, 1) == 0:
                own = psutil.Process().memory_info().rss / MIB
                pids = loader._reader.pool.pids()
                children = sum(psutil.Process(pid).memory_info().rss for pid in pids) / MIB
                marks.append(own + children)
                print(f"{10 * step:>8}{own:>16.1f}{children:>12.1f}", flush=True)
        print(loader.accounting().table())
    finally:
        loader.close()
    return marks[-1] - marks[0]


def main(argv: list[str] | None = None) -> int:
    """Measure; 1 where a rival is faster or memory grows by more than 16 MiB."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter with the rivals")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine")
    parser.add_argument("--memory", action="store_true", help="resident memory over packs")
    parser.add_argument("--packs", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        if arguments.memory:
            growth = memory(Path(name), arguments.packs)
            print(f"growth after the first tenth: {growth:.1f} MiB")
            return 0 if growth < 16 else 1
        write_clips(Path(name), arguments.clips, (17, 96, 128))
        speeds = compare(Path(name), arguments.python, arguments.rounds, arguments.processor_time)
    passed = verdict(speeds)
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(speed) for speed in speeds], indent=1))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
