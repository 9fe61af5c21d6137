"""Runs of two steps on a few clips of tiny worlds."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from data.dataset.shards import ShardWriter, write_manifest
from data.worlds.tiny.film import film
from models.codec.pixels import PixelCodec
from models.config import CodecConfig
from trainer.config import RunConfig


def write_tiny(
    root: Path, codec: CodecConfig, worlds: Sequence[str] = ("strip",), lawless: str = ""
) -> Path:
    """Write latents of a few clips of every world."""
    encoder = PixelCodec(codec)
    for split, count in (("train", 8), ("val_worlds", 6)):
        with ShardWriter(root, split, 1_000_000) as writer:
            for clip in (film(name, 0, n, lawless) for name in worlds for n in range(count)):
                num_frames, height, width, _ = clip.frames.shape
                latent = encoder.encode(torch.from_numpy(clip.frames)).half().contiguous()
                meta = {"media": "latent", "num_frames": num_frames, "height": height}
                meta |= {"width": width, "fps": clip.fps, "key": clip.key, "source": clip.source}
                meta |= {"duration_seconds": num_frames / clip.fps, "caption": clip.caption}
                meta |= {"licence": "CC0", "rendered": True, "original": {}, "caption_tokens": 1}
                payload = save({"latent": latent, "caption": torch.zeros(1, 32).half()})
                writer.write(meta, payload, "safetensors")
    write_manifest(root, {"name": "tiny"})
    return root


def train_tiny(run: RunConfig, folder: Path) -> Path:
    """Train a run in a folder, and return that."""
    from trainer.diffusion.attempt import train_run
    from trainer.identity import freeze

    freeze(run, folder)
    with warnings.catch_warnings():
        # torch 2.13 renamed collectives that deepspeed 0.19 still calls by their old names.
        warnings.filterwarnings("ignore", ".*is deprecated. Please use", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        assert train_run(run, folder, lambda: False)
    return folder
