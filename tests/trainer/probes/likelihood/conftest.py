"""Tiny runs that saw the strip, lawful and not: two steps on eight clips."""

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from data.dataset.shards import ShardWriter, write_manifest
from data.worlds.tiny.film import film
from models.codec.pixels import PixelCodec
from trainer.config import RunConfig

from ...conftest import compose_smoke

SHAPE = ("codec=pixels", "model.width=48", "model.depth=1", "horizon.steps=2")


def strip_config(latents: Path, *overrides: str) -> RunConfig:
    """Compose a run on strips of pixels."""
    return compose_smoke(latents, *SHAPE, "validation.splits=[val_worlds]", *overrides)


def write_strips(root: Path, lawless: str = "") -> Path:
    """Write latents of a few clips of the strip."""
    codec = PixelCodec(strip_config(root).codec)
    for split, count in (("train", 8), ("val_worlds", 6)):
        with ShardWriter(root, split, 1_000_000) as writer:
            for index in range(count):
                clip = film("strip", 0, index, lawless)
                num_frames, height, width, _ = clip.frames.shape
                latent = codec.encode(torch.from_numpy(clip.frames)).half().contiguous()
                meta = {"media": "latent", "num_frames": num_frames, "height": height}
                meta |= {"width": width, "fps": clip.fps, "key": clip.key, "source": clip.source}
                meta |= {"duration_seconds": num_frames / clip.fps, "caption": clip.caption}
                meta |= {"licence": "CC0", "rendered": True, "original": {}, "caption_tokens": 1}
                payload = save({"latent": latent, "caption": torch.zeros(1, 32).half()})
                writer.write(meta, payload, "safetensors")
    write_manifest(root, {"name": "strips"})
    return root


def train_strips(folder: Path, *overrides: str, lawless: str = "") -> Path:
    """Train a run on strips; return its folder."""
    from trainer.diffusion.attempt import train_run
    from trainer.identity import freeze

    run = strip_config(write_strips(folder / "data", lawless), *overrides)
    freeze(run, folder / "run")
    with warnings.catch_warnings():
        # torch 2.13 renamed collectives that deepspeed 0.19 still calls by their old names.
        warnings.filterwarnings("ignore", ".*is deprecated. Please use", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        assert train_run(run, folder / "run", lambda: False)
    return folder / "run"


@pytest.fixture(scope="session")
def strips(group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that saw lawful strips."""
    return train_strips(tmp_path_factory.mktemp("strips"))


@pytest.fixture(scope="session")
def lawless_strips(group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of its twin."""
    return train_strips(tmp_path_factory.mktemp("lawless"), lawless="all")
