"""Where a network's linear path starts: the principal components of the training blocks.

Of all linear codecs with so many values a block they lose least (Karhunen-Loeve); on the demo's
clips that is 0.6 to 1.1 dB above the wavelet's rows with as many channels (docs/log.md).
"""

import torch
from rich.console import Console
from torch import Tensor

from data.config import DataConfig
from data.loading.loader import load_fixed
from data.show.progress import Progress
from models.codec.codec import pad_edges, to_pixels
from models.codec.patches import to_patches
from models.codec.vae import Vae, lead_in
from models.config import CodecConfig, VaeConfig


def set_low_pass(vae: Vae, data: DataConfig, samples: int) -> None:
    """Let the linear path be the principal components of ``samples`` training clips."""
    config, total = vae.config, torch.zeros(())
    clips = load_fixed(data, data.train_split, samples)
    with Progress("principal components", Console(stderr=True)) as progress:
        for done, sample in enumerate(clips):
            assert sample.frames is not None
            total = total + scatter(sample.frames, config)
            progress.update(done + 1, len(clips), sample.info.source)
    vae.set_low_pass(components(total, config.channels))


def scatter(frames: Tensor, config: VaeConfig) -> Tensor:
    """Return the sum of outer products of a clip's blocks, in fp64; no mean is taken off."""
    codec = CodecConfig(stride=config.stride, channels=config.channels)
    _, h, w = codec.latent_shape(*frames.shape[:3])
    pixels = pad_edges(to_pixels(frames), h * config.stride[1], w * config.stride[2])
    patches = to_patches(lead_in(pixels[None], config.stride[0]), config.patch)
    blocks = to_patches(patches, config.fold).flatten(0, 3)
    return (blocks.T @ blocks).double()


def components(total: Tensor, channels: int) -> Tensor:
    """Return the leading eigenvectors as rows, the largest first, each with a positive sum."""
    _, vectors = torch.linalg.eigh(total)
    rows = vectors[:, -channels:].flip(1).T
    return (rows * torch.where(rows.sum(1, keepdim=True) < 0, -1.0, 1.0)).float()
