"""A tiny latent data set: drifting blobs, clips and images of several sizes, two splits."""

import copy
import json
import os
import signal
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save

from data.dataset.shards import ShardWriter, read_index, write_manifest
from trainer.config import RunConfig, compose_run

SIZES = [(17, 64, 96), (9, 96, 64), (5, 64, 64), (1, 128, 96), (13, 72, 56), (1, 64, 64)]


def blob_latent(index: int, num_frames: int, height: int, width: int) -> torch.Tensor:
    """Return a latent (6, f, h, w) of a blob that drifts, different for each index."""
    f, h, w = 1 + (num_frames - 1) // 4, -(-height // 16) * 2, -(-width // 16) * 2
    draw = np.random.Generator(np.random.Philox(key=index))
    start, speed = draw.uniform(0.2, 0.8, 2), draw.uniform(-0.1, 0.1, 2)
    frames = torch.arange(f).view(-1, 1, 1)
    rows = torch.linspace(0, 1, h).view(1, -1, 1) - (start[0] + speed[0] * frames)
    columns = torch.linspace(0, 1, w).view(1, 1, -1) - (start[1] + speed[1] * frames)
    blob = torch.exp(-8 * (rows**2 + columns**2))
    gains = torch.from_numpy(draw.normal(size=6)).view(6, 1, 1, 1)
    return (gains * (2 * blob - 0.5)).to(torch.float32)


def write_latents(root: Path, samples: int = 60) -> Path:
    """Write splits train, val_worlds and val_real; a third of the train sources is 'real'."""
    for split, count in (("train", samples), ("val_worlds", 8), ("val_real", 6)):
        with ShardWriter(root, split, 1_000_000) as writer:
            for i in range(count):
                frames, height, width = SIZES[i % len(SIZES)]
                index = i + {"train": 0, "val_worlds": 10_000, "val_real": 20_000}[split]
                latent = blob_latent(index, frames, height, width)
                caption = torch.randn(4 + i % 5, 32, generator=torch.Generator().manual_seed(index))
                meta = {
                    "key": f"{split}-{i:05d}",
                    "media": "latent",
                    "num_frames": frames,
                    "height": height,
                    "width": width,
                    "fps": 0.0 if frames == 1 else 12.0,
                    "duration_seconds": 0.0 if frames == 1 else frames / 12.0,
                    "caption": f"a drifting blob number {index}",
                    "source": f"blobs/{split}-{i // 6}",
                    "licence": "CC0",
                    "rendered": i % 3 > 0,
                    "original": {},
                    "caption_tokens": len(caption),
                }
                payload = save({"latent": latent.half(), "caption": caption.half()})
                writer.write(meta, payload, "safetensors")
    write_manifest(root, {"name": "blobs"})
    return root


def damage(root: Path, numbers: Iterable[int]) -> list[str]:
    """Overwrite bytes of training samples of such places in the index; return their keys."""
    infos = read_index(root, "train")
    chosen = [infos[number] for number in numbers]
    for info in chosen:
        path = root / "train" / info.shard
        path.chmod(0o644)
        with path.open("r+b") as stream:
            stream.seek(info.offset + info.nbytes // 2)
            stream.write(b"\xff\x00\xff")
    return [info.key for info in chosen]


@pytest.fixture(scope="session")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny latent data set."""
    return write_latents(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="session")
def group() -> Iterator[None]:
    """Join a process group of one for the session: DeepSpeed keeps the first one it sees."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        del os.environ[key]


@pytest.fixture
def handlers() -> Iterator[None]:
    """Give signals back their handlers after a test whose command listens to them."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def read_json(path: Path) -> dict:
    """Read a JSON file."""
    return json.loads(path.read_text())


@cache
def composed_once(*overrides: str) -> RunConfig:
    """Compose a run that nobody may change; composing takes 0.1 s."""
    return compose_run(list(overrides))


def compose_smoke(latents: Path, *overrides: str) -> RunConfig:
    """Compose the smallest run on the tiny data set; a copy, since tests change it."""
    fixed = ["experiment=cpu_smoke", f"data.root={latents}", "log.wandb=disabled"]
    return copy.deepcopy(composed_once(*fixed, *overrides))


@pytest.fixture(scope="session")
def trained(latents: Path, group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished smoke run."""
    import warnings

    from trainer.diffusion.attempt import train_run
    from trainer.identity import freeze

    folder = tmp_path_factory.mktemp("trained")
    run = compose_smoke(latents, "horizon.steps=3")
    freeze(run, folder)
    with warnings.catch_warnings():
        # torch 2.13 renamed collectives that deepspeed 0.19 still calls by their old names.
        warnings.filterwarnings("ignore", ".*is deprecated. Please use", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        assert train_run(run, folder, lambda: False)
    return folder
