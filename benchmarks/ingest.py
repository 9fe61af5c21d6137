"""Compare ingest with ffmpeg at the same work: ``python -m benchmarks.ingest [key=value ...]``.

Both read the demo's real films (or a film made here, where those are absent), scale them to the
size of a 17-frame clip, and encode closed groups into one file for each clip, with the same x264
preset and rate factor, two single-threaded processes at once. ffmpeg is told where ingest cut; it
neither looks for shots, nor measures, hashes, deduplicates, checks or packs what it writes. Nothing
is remuxed, so ingest too encodes every clip. Starting up counts on both sides.

The yardstick is frames per processor second of all processes, which other users of the machine
hardly change; by the clock they do. Rounds alternate, so noise meets both.
"""

import dataclasses
import io
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
from annotated_types import Ge
from rich.console import Console
from rich.table import Table
from typing_extensions import Doc

from data.command_line import help_text, parse
from data.config import IngestConfig
from data.dataset.shards import read_index
from data.ingest.ingest import ingest
from data.media.h264 import encode_h264
from data.media.probe import Facts, fit_size, probe_video

FILM_SUFFIXES = (".mp4", ".avi", ".mpg", ".mov", ".mkv", ".webm")
LENGTH = 17
SPLIT = "train"
NEVER = 1_000_000  # a frame number no film reaches


@dataclass
class BenchConfig:
    """What to measure."""

    films: Annotated[str, Doc("Folder of films, searched with its sub-folders.")] = (
        "datasets/demo/cache"
    )
    copies: Annotated[
        int, Ge(1), Doc("How often each film is read, so that starting up weighs little.")
    ] = 4
    rounds: Annotated[int, Ge(1), Doc("Alternating runs of each side; the median counts.")] = 1
    workers: Annotated[int, Ge(1), Doc("Processes at once, on both sides.")] = 2
    token_cap: Annotated[
        list[Annotated[int, Ge(8)]],
        Doc("Clip sizes to measure, in tokens; 20000 leaves 720p as it is."),
    ] = dataclasses.field(default_factory=lambda: [512, 20000])


def find_films(config: BenchConfig, folder: Path) -> list[Path]:
    """Return ``copies`` of each film, in ``folder``; make a film if there is none."""
    found = [p for p in sorted(Path(config.films).rglob("*")) if p.suffix in FILM_SUFFIXES]
    if not found:
        y, x = np.mgrid[0:720, 0:1280]
        frames = np.stack([np.stack([x + 9 * t, y + 5 * t, x + y], -1) % 256 for t in range(102)])
        made = folder.parent / "made.mp4"
        made.write_bytes(encode_h264(frames.astype(np.uint8), 25.0))
        found = [made]
    folder.mkdir()
    films = []
    for copy in range(config.copies):
        for film in found:
            films.append(folder / f"{copy}-{film.name}")
            shutil.copyfile(film, films[-1])
    return films


def facts_of(film: Path, config: IngestConfig) -> Facts:
    """Return what a film holds."""
    with open(film, "rb") as stream:
        return probe_video(stream, config)


def run_ours(films: list[Path], config: IngestConfig, out: Path) -> None:
    """Ingest the films' folder."""
    config = dataclasses.replace(config, input=str(films[0].parent), output=str(out))
    ingest(config, Console(file=io.StringIO()))


def run_ffmpeg(commands: list[list[str]], num_workers: int, out: Path) -> None:
    """Do the same decoding, scaling and encoding with ffmpeg, which writes into ``out``."""
    out.mkdir()
    with ThreadPoolExecutor(num_workers) as pool:
        list(pool.map(lambda words: subprocess.run(words, check=True), commands))


def clip_starts(root: Path) -> dict[str, list[int]]:
    """Return the first frames of the clips that ingest made, by film."""
    starts: dict[str, list[int]] = defaultdict(list)
    for info in read_index(root, SPLIT):
        starts[info.source].append(int(info.original["start_frame"]))
    return {source: sorted(found) for source, found in starts.items()}


def command(film: Path, out: Path, starts: list[int], config: IngestConfig) -> list[str]:
    """Return ffmpeg's command line for one film; a file begins at each of ``starts``."""
    facts = facts_of(film, config)
    height, width = fit_size(LENGTH, facts.height, facts.width, config)
    later = [start for start in starts if start > 0] or [NEVER]
    groups = f"bframes=0:keyint={NEVER}:scenecut=0:open-gop=0"
    return [
        *("ffmpeg", "-v", "error", "-nostdin", "-y", "-filter_threads", "1", "-threads", "1"),
        *("-i", str(film), "-an", "-vf", f"scale={width}:{height}:flags=area"),
        *("-pix_fmt", "yuv420p", "-c:v", "libx264", "-threads", "1", "-preset", config.preset),
        *("-crf", str(config.crf), "-x264-params", groups, "-vsync", "passthrough"),
        *("-force_key_frames", "expr:" + "+".join(f"eq(n,{start})" for start in later)),
        *("-f", "segment", "-segment_frames", ",".join(map(str, later))),
        *("-reset_timestamps", "1", str(out / f"{film.stem}-%06d.mp4")),
    ]


def timed(work: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    """Return (seconds on the clock, processor seconds of all processes) of one run."""
    shutil.rmtree(folder, ignore_errors=True)
    clock, before = time.perf_counter(), processor_seconds()
    work(folder)
    return time.perf_counter() - clock, processor_seconds() - before


def processor_seconds() -> float:
    """Return what this process and its finished children have used."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def settings_of(token_cap: int, config: BenchConfig) -> IngestConfig:
    """Return ingest's settings: every clip is encoded and kept."""
    return IngestConfig(
        token_cap=token_cap,
        split=SPLIT,
        num_workers=config.workers,
        duplicate_bits=-1,
        repeat_bits=-1,
        max_black=1.0,
        max_clips_per_source=10_000,
        remux=False,
    )


def measure_size(
    films: list[Path], folder: Path, settings: IngestConfig, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Return each side's (wall, processor) seconds by round; ingest goes first and tells cuts."""
    runs: dict[str, list[tuple[float, float]]] = {"ffmpeg": [], "data.ingest": []}
    commands: list[list[str]] = []
    for _ in range(rounds):
        root = folder / "ours"
        runs["data.ingest"].append(timed(partial(run_ours, films, settings), root))
        if not commands:
            starts = clip_starts(root)
            out = folder / "theirs"
            commands = [command(film, out, starts[film.name], settings) for film in films]
            num_clips = sum(map(len, starts.values()))
        work = partial(run_ffmpeg, commands, settings.num_workers)
        runs["ffmpeg"].append(timed(work, folder / "theirs"))
        assert len(list((folder / "theirs").iterdir())) == num_clips  # the same cuts
    return runs


def measure(config: BenchConfig, folder: Path, console: Console) -> None:
    """Run both sides in turn and print frames per second and the ratio, for each size."""
    films = find_films(config, folder / "films")
    table = Table(title=f"{len(films)} films, {config.workers} processes, median of rounds")
    for column in ("token_cap", "", "frames/CPU s", "of ffmpeg", "frames/s by clock", "of ffmpeg"):
        table.add_column(column, justify="right")
    for token_cap in config.token_cap:
        settings = settings_of(token_cap, config)
        frames = sum(facts_of(film, settings).num_frames for film in films)
        runs = measure_size(films, folder, settings, config.rounds)
        rates = {n: [median(frames / r[i] for r in runs[n]) for i in (0, 1)] for n in runs}
        for name, (wall, processor) in rates.items():
            ratios = [rates[name][i] / rates["ffmpeg"][i] for i in (0, 1)]
            table.add_row(
                *(str(token_cap), name, f"{processor:.0f}", f"{ratios[1]:.0%}"),
                *(f"{wall:.0f}", f"{ratios[0]:.0%}"),
            )
    console.print(table)


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    if {"-h", "--help", "help"} & set(arguments):
        print(f"{__doc__}\nKeys and defaults:\n{help_text(BenchConfig)}")
        return 0
    if not shutil.which("ffmpeg"):
        print("error: ffmpeg is not installed. Install Debian's package ffmpeg.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            measure(parse(BenchConfig, arguments), Path(folder), Console())
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
