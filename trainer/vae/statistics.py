"""Measure the statistics of a codec's latents on a training split, and store them beside it.

usage: kinescale codec-statistics codec.path=FOLDER data.root=DATASET [key=value ...]

example:
  kinescale codec-statistics codec.path=models/wan data.root=datasets/demo/video

FOLDER holds an autoencoder that ``diffusers`` saved (``config.json`` and safetensors). Its stride
and channels are found by coding an empty clip; mean, scale and spread by encoding ``samples``
(default 256) training clips. All goes into ``FOLDER/codec.json``; then use it with
``codec=diffusers codec.path=FOLDER``. Networks trained here have their statistics already.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from rich.console import Console
from typing_extensions import Doc

from data.config import DataConfig
from data.loading.loader import load_fixed
from data.shell import command
from data.show.progress import Progress
from models.codec.codec import Codec
from models.config import CodecConfig, CodecKind
from trainer.codec.files import digest_of, resolve, write_card
from trainer.codec.statistics import ChannelStatistics
from trainer.compose import parse_as


@dataclass
class StatisticsConfig:
    """What the command takes; ``codec.path`` and ``data.root`` are needed."""

    codec: CodecConfig = field(default_factory=lambda: CodecConfig(kind=CodecKind.diffusers))
    data: DataConfig = field(default_factory=DataConfig)
    samples: Annotated[
        int,
        Ge(0),
        Doc("Training clips, in a fixed order stratified by source and shape; 0 takes all."),
    ] = 256


def measure_latents(codec: Codec, data: DataConfig, samples: int) -> dict[str, Any]:
    """Return ``mean``, ``scale`` and ``spread`` as CodecConfig wants them.

    The codec must return raw latents. The scale is the largest channel's standard deviation.
    """
    statistics = ChannelStatistics()
    clips = load_fixed(data, data.train_split, samples)
    with Progress("statistics of the latents", Console(stderr=True)) as progress:
        for done, sample in enumerate(clips):
            assert sample.frames is not None
            latent = codec.encode(sample.frames)
            statistics.add(latent, codec.valid(*sample.frames.shape[:3]))
            progress.update(done + 1, len(clips), sample.info.source)
    found = statistics.summary()
    scale = max(found["std"])
    spread = [max(std / scale, 1e-6) for std in found["std"]]
    return {"mean": found["mean"], "scale": scale, "spread": spread}


def describe(folder: Path, data: DataConfig, samples: int) -> dict[str, Any]:
    """Measure a pretrained autoencoder and write its ``codec.json``; return it."""
    from trainer.codec.diffusers import open_autoencoder, weight_files

    codec, network = open_autoencoder(folder)
    card = {
        "kind": CodecKind.diffusers.value,
        "network": network,
        "stride": codec.config.stride,
        "channels": codec.config.channels,
        "digest": digest_of(network, weight_files(folder)),
    } | measure_latents(codec, data, samples)
    write_card(folder, card)
    return card


@command(__doc__)
def main(argv: list[str]) -> int:
    """Parse the command line, measure and write."""
    config = parse_as(StatisticsConfig, argv)
    if not config.codec.path:
        raise ValueError("codec.path=: must name a folder. See --help.")
    if config.codec.kind is not CodecKind.diffusers:
        raise ValueError(
            f"codec.kind={config.codec.kind}: only pretrained networks are measured. "
            "Networks trained here carry their statistics."
        )
    folder = resolve(config.codec.path)
    card = describe(folder, config.data, config.samples)
    print(f"{folder}/codec.json: stride {card['stride']}, {card['channels']} channels")
    print("latent mean per channel:", " ".join(f"{v:+.4f}" for v in card["mean"]))
    print(f"latent scale: {card['scale']:.4f}")
    print("spread per channel:", " ".join(f"{v:.4f}" for v in card["spread"]))
    return 0


if __name__ == "__main__":
    main.run()
