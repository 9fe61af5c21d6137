"""What lies in a codec's folder: ``codec.json`` and weights; torch-free, so composing stays quick.

``codec.json`` tells the shape, the statistics of the latents and the digest of the weights. A run
is composed with them, so its config says all that its latents depend on.
"""

import hashlib
import json
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

from data.files import write_text
from models.config import CodecConfig, CodecKind

FORMAT = 1
CARD = "codec.json"
WEIGHTS = "weights.safetensors"
PACKAGE = Path(__file__).parents[2] / "models"
WITHOUT_WEIGHTS = (CodecKind.wavelet, CodecKind.pixels)
_NUMBERS = ("mean", "spread")
_KEYS = ("format", "kind", "network", "stride", "channels", "mean", "scale", "spread", "digest")


def resolve(path: str) -> Path:
    """Return a codec's folder: as it stands, or in the ``models`` folder of this package."""
    found = [p for p in (Path(path), PACKAGE / path) if p.is_dir()]
    if not found:
        raise ValueError(
            f"codec.path={path}: must be a folder, here or under {PACKAGE}. "
            "Use weights/vae_tiny, or the folder of a network you trained."
        )
    return found[0]


def read_card(folder: Path) -> dict[str, Any]:
    """Return a codec's ``codec.json``. Raises ValueError where it is missing or incomplete."""
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(
            f"codec.path={folder}: has no {CARD}. Train a network (kinescale train "
            "experiment=vae_tiny), or measure a pretrained one: kinescale codec-statistics."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON. Restore it or make it again.") from error
    missing = [key for key in _KEYS if key not in card]
    if missing or card["format"] != FORMAT:
        raise ValueError(f"{path}: lacks {missing or 'format 1'}. Make it again with this version.")
    if any(len(card[name]) != card["channels"] for name in _NUMBERS):
        raise ValueError(f"{path}: mean and spread need one number a channel. Make it again.")
    return card


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write ``codec.json`` atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT} | card, indent=1) + "\n"
    write_text(folder / CARD, text)


def digest_of(network: dict[str, Any], weights: list[Path]) -> str:
    """Return the SHA-256 over a network's shape and its weight files."""
    digest = hashlib.sha256(json.dumps(network, sort_keys=True).encode())
    for path in weights:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").hexdigest().encode())
    return digest.hexdigest()


def fill(codec: CodecConfig) -> None:
    """Take shape, statistics and digest from the folder that a codec names, in place.

    Raises ValueError where a frozen config was made with other weights.
    """
    if codec.kind in WITHOUT_WEIGHTS:
        if codec.path:
            raise ValueError(
                f"codec.path={codec.path}: codec.kind={codec.kind} has no weights. Use "
                "codec=vae_tiny, or codec.kind=vae or diffusers."
            )
        if codec.kind is CodecKind.pixels:
            fill_pixels(codec)
        return
    if not codec.path:
        raise ValueError(f"codec.path=: codec.kind={codec.kind} needs a folder. Set codec.path.")
    folder = resolve(codec.path)
    card = read_card(folder)
    if card["kind"] != codec.kind.value:
        raise ValueError(f"codec.kind={codec.kind}: {folder} holds kind {card['kind']}. Use that.")
    if codec.digest and codec.digest != card["digest"]:
        raise ValueError(
            f"codec.digest={codec.digest[:12]}: must equal {card['digest'][:12]} of {folder}. The "
            "network was replaced since; restore the old one, or encode and train anew."
        )
    for key in ("stride", "channels", "mean", "scale", "spread", "digest"):
        setattr(codec, key, card[key])


def fill_pixels(codec: CodecConfig) -> None:
    """Give all channels of pixels the one mean and deviation that is stated, in place.

    Raises ValueError where the channels are not those of the stride.
    """
    channels = 3 * prod(codec.stride)
    if codec.channels != channels:
        raise ValueError(
            f"codec.channels={codec.channels}: must be 3 x the pixels of codec.stride="
            f"{list(codec.stride)}. Use {channels}."
        )
    for name in ("mean", "spread"):
        if len(getattr(codec, name)) == 1:
            setattr(codec, name, list(getattr(codec, name)) * channels)


def fingerprint(codec: CodecConfig) -> dict[str, Any]:
    """Return what a codec's latents depend on: all but where its folder lies."""
    found = asdict(codec)
    del found["path"]
    if not codec.digest:
        del found["digest"]  # of a wavelet, whose runs and latents keep their old names
    return found
