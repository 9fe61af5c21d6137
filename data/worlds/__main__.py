"""Film worlds without end: ``kinescale worlds root=datasets/worlds num_train_clips=3000``.

The dataset is ``ROOT/video`` with the splits train and val_worlds, whose seeds and maps are
disjoint. Every clip carries a dense and a short caption and the truth of its simulator. It may be
interrupted and started again; finished work is kept. More data: another ``seed`` and root.

    kinescale worlds root=datasets/worlds worlds.physics=0.5 worlds.doom=0 seed=3
    kinescale worlds root=datasets/framing preset=framing num_val_clips=128
    kinescale worlds root=datasets/tiny_worlds preset=tiny num_train_clips=20000 lawless=all
Keys as ``ingest.KEY`` are those of ``kinescale ingest``.
"""

import time
from pathlib import Path
from typing import Any

import av
import numpy as np
from rich.console import Console

from data.command_line import parse
from data.config import WorldPreset, WorldsConfig
from data.engine.parts import build_dataset
from data.engine.settings import check
from data.engine.source import Notes, Source
from data.shell import command
from data.show.progress import Progress
from data.show.report import print_report, print_share
from data.show.sheet import write_sheet
from data.worlds.plan import plan_framing, plan_tiny, plan_worlds

MAKER = "data.worlds"
TINY_CELL = (2, 4, 4)


def build(config: WorldsConfig, console: Console) -> dict[str, Any]:
    """Film the dataset, or find it finished, and return its manifest."""
    check(config.ingest)
    if config.preset is WorldPreset.tiny:  # tokens are counted in cells without a codec
        config.ingest.cell = list(TINY_CELL)
    counts = config.num_train_clips, config.num_val_clips
    if config.preset is WorldPreset.framing:
        parts = plan_framing(config.seed, *counts)
    elif config.preset is WorldPreset.tiny:
        parts = plan_tiny(config.seed, config.tiny, config.lawless, *counts)
    else:
        parts = plan_worlds(config.seed, config.worlds, *counts)
    sources: list[Source] = [*parts]
    extra = {"maker": MAKER, "libraries": [av.__version__, np.__version__]}
    with Progress("film", console) as progress:
        return build_dataset(
            Path(config.root) / "video", sources, config.ingest, Notes(), progress.update, extra
        )


@command(
    __doc__,
    keys=WorldsConfig,
    needs_words=False,
    kept="finished parts are kept; run the same command again",
)
def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    console = Console()
    started = time.monotonic()
    config = parse(WorldsConfig, arguments)
    manifest = build(config, console)
    if not manifest:
        return print_share(config.ingest, console)
    print_report(manifest, console)
    seconds = time.monotonic() - started
    root = Path(config.root) / "video"
    console.print(f"dataset: {root} ({seconds:.0f} s)", highlight=False)
    console.print(f"page:    {write_sheet(root)}", highlight=False)
    return 0


if __name__ == "__main__":
    main.run()
