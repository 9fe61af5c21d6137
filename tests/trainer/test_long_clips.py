"""A minute of 720p trains: cut in time, over eight context ranks of four heads, as on one."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
import torch.distributed as dist

from data.dataset.shards import ShardWriter, write_manifest
from data.loading.mixture import read_mixture
from data.loading.pieces import Piece, cut_long
from tests.data.conftest import encode, meta
from trainer.config import RunConfig
from trainer.diffusion.attempt import train_run
from trainer.identity import freeze
from trainer.run.metrics import read_metrics

from .conftest import compose_smoke, read_json
from .parallel.worlds import run_world

FRAMES, HEIGHT, WIDTH, FPS = 721, 720, 1280, 12  # 181 x 45 x 80 tokens: 651,600
PACK_TOKENS = 16_200  # four and a half of 181 frames of the grid, so four of them a piece
LOSS = 1e-5


def film() -> bytes:
    """Return a minute of a bright square that crosses a gradient, frame by frame."""
    buffer = io.BytesIO()
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    ground = np.stack([rows // 4, columns // 8, (rows + columns) // 12], -1).astype(np.uint8)
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.options = {"crf": "30", "preset": "ultrafast", "bf": "0"}
        for number in range(FRAMES):
            frame = ground.copy()
            left = number * (WIDTH - 100) // FRAMES
            frame[300:400, left : left + 100] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def compose(root: Path, processes: int) -> RunConfig:
    """Compose a run of two steps: reduced width, four heads, context over all processes."""
    return compose_smoke(
        root,
        "horizon.steps=2",
        "model.head_dim=8",
        "data.packs_per_step=1",
        f"data.pack_tokens={PACK_TOKENS}",
        "data.pool=4",
        "validation.splits=[val]",
        "validation.samples=1",
        f"parallel.processes={processes}",
        f"parallel.cp={processes}",
        f"parallel.zero_stage={int(processes > 1)}",
    )


def train(root: Path, folder: Path, processes: int) -> None:
    """Train as one of so many processes."""
    run = compose(root, processes)
    if dist.get_rank() == 0:
        freeze(run, folder)
    dist.barrier()
    train_run(run, folder, lambda: False)


@pytest.mark.dist
@pytest.mark.slow
def test_a_minute_of_720p_trains_on_eight_context_ranks_as_on_one(tmp_path: Path) -> None:
    root, shape = tmp_path / "film", (FRAMES, HEIGHT, WIDTH)
    with ShardWriter(root, "train", 10**9) as writer:
        about = meta("minute", "video", shape, fps=FPS, duration_seconds=FRAMES / FPS)
        writer.write(about, film(), "mp4")
    with ShardWriter(root, "val", 10**9) as writer:
        clip = np.full((5, 64, 64, 3), 90, np.uint8)
        writer.write(meta("still", "video", clip.shape[:3]), encode(clip), "mp4")
    write_manifest(root, {"name": "film"})
    run = compose(root, 8)
    assert run.parallel.context_split(run.model.num_heads) == (4, 2)
    cut = cut_long(read_mixture(run.data, "train"), run.cell, PACK_TOKENS)
    assert len(cut.infos) == 60
    assert all(isinstance(info, Piece) for info in cut.infos)
    folders = {size: tmp_path / f"run-{size}" for size in (1, 8)}
    for size, folder in folders.items():
        run_world(size, "tests.trainer.test_long_clips:train", root, folder, size)
    results = {size: read_json(folder / "result.json") for size, folder in folders.items()}
    losses = {
        size: [
            row["train_loss"]
            for row in read_metrics(folder / "metrics.jsonl")
            if "train_loss" in row
        ]
        for size, folder in folders.items()
    }
    assert len(losses[1]) == 2
    assert losses[8] == pytest.approx(losses[1], rel=LOSS)
    assert results[8]["loss"] == pytest.approx(results[1]["loss"], rel=LOSS)
