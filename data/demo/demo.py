"""Make the demo dataset: ``kinescale demo-data root=datasets/demo [tiny=true]``.

Real clips and pictures that registry packages carry, plus worlds rendered on the spot, become
``ROOT/video`` with the splits train, val_worlds (rendered, unseen seeds and maps) and val_real
(held-out real sources). It may be interrupted and started again; finished work is kept.
Keys as ``ingest.KEY`` are those of ``kinescale ingest``.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from rich.console import Console

from data.command_line import parse
from data.config import DemoConfig
from data.dataset.shards import read_manifest
from data.demo.packages import TABLE, fetch_all
from data.engine.drafts import digest_of
from data.engine.parts import build_dataset
from data.engine.settings import check
from data.engine.source import Notes, Source
from data.ingest.media_file import MediaFile
from data.media.h264 import encode_h264
from data.shell import command
from data.show.progress import Progress
from data.show.report import print_report, print_share
from data.show.sheet import write_sheet
from data.worlds.plan import plan_worlds
from data.worlds.sources import RECIPE

TINY_TRAIN, TINY_VAL = 48, 12
MAKER = "data.demo"


def made_files(folder: Path) -> list[MediaFile]:
    """Write a few small videos and a picture that stand in for real files, without downloads."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[0:144, 0:256]
    shapes = {"waves": ("train", 40, 144, 256), "tall": ("train", 23, 240, 136)}
    shapes["rings"] = ("val_real", 30, 160, 160)
    files: list[MediaFile] = []
    for name, (split, num_frames, height, width) in shapes.items():
        y, x = np.mgrid[0:height, 0:width]
        t = np.arange(num_frames)[:, None, None]
        planes = [np.sin(x / 9 + t / 3), np.sin(y / 7 - t / 4), np.sin(np.hypot(x, y) / 11 + t / 5)]
        frames = ((np.stack(np.broadcast_arrays(*planes), -1) + 1) * 127).astype(np.uint8)
        path = folder / f"{name}.mp4"
        path.write_bytes(encode_h264(frames, 25.0))
        caption = f"Coloured {name} of light move across a {width} by {height} test picture"
        files.append(MediaFile(path.name, split, path, "made here", caption))
    picture = folder / "still.png"
    Image.fromarray(frames[0]).save(picture)
    files.append(MediaFile(picture.name, "train", picture, "made here", "Coloured rings of light"))
    return [
        dataclasses.replace(f, path=f.path.absolute(), nbytes=f.path.stat().st_size) for f in files
    ]


def real_files(config: DemoConfig, console: Console, notes: Notes) -> list[MediaFile]:
    """Get the files that were not rendered here; what cannot be had becomes a warning."""
    root = Path(config.root)
    if config.tiny:
        return made_files(root / "cache" / "made")
    if not config.real:
        return []
    with Progress("download", console) as progress:
        files, warnings = fetch_all(
            root / "cache", config.download_timeout_seconds, progress.update
        )
    for warning in warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False)
    notes.warnings += warnings
    return files


def build(config: DemoConfig, console: Console) -> dict[str, Any]:
    """Build the demo dataset, or find it finished, and return its manifest."""
    check(config.ingest)
    counts = (
        (TINY_TRAIN, TINY_VAL) if config.tiny else (config.num_train_clips, config.num_val_clips)
    )
    worlds = plan_worlds(config.seed, config.worlds, *counts)
    root = Path(config.root) / "video"
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k != "root"}
    for name in ("engine", "address", "share"):  # demos of before 2026-12-01 had none
        del settings["ingest"][name]
    settings["table"] = TABLE.read_text(encoding="utf-8")
    settings["recipe"] = RECIPE
    settings["libraries"] = [av.__version__, np.__version__]
    digest = digest_of(settings)
    overwrite = config.ingest.overwrite
    if (root / "manifest.json").is_file():
        manifest = read_manifest(root)
        ours = manifest.get("maker") == MAKER
        if ours and manifest.get("demo_digest") == digest and not manifest["packages_missing"]:
            return manifest
        overwrite = overwrite or ours  # the demo may replace its own work
    notes = Notes()
    started = time.monotonic()
    sources: list[Source] = [*real_files(config, console, notes)]
    downloaded = time.monotonic() - started
    sources += worlds
    extra = {
        "maker": MAKER,
        "demo_digest": digest,
        "packages_missing": list(notes.warnings),
        "download_seconds": round(downloaded, 1),
    }
    ingest = dataclasses.replace(config.ingest, overwrite=overwrite)
    with Progress("render and ingest", console) as progress:
        return build_dataset(root, sources, ingest, notes, progress.update, extra)


@command(
    __doc__,
    keys=DemoConfig,
    needs_words=False,
    kept="finished parts are kept; run the same command again",
)
def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    console = Console()
    started = time.monotonic()
    config = parse(DemoConfig, arguments)
    manifest = build(config, console)
    if not manifest:
        return print_share(config.ingest, console)
    print_report(manifest, console)
    seconds = time.monotonic() - started
    root = Path(config.root) / "video"
    console.print(f"dataset: {root} ({seconds:.0f} s)", highlight=False)
    console.print(f"page:    {write_sheet(root)}", highlight=False)
    return 0
