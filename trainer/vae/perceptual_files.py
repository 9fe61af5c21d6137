"""A perceptual encoder's folder: ``codec.json`` and weights, as a codec's."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from data.bounds import check_bounds
from data.files import replacing
from models.codec.perceptual import PerceptualEncoder
from models.config import PerceptualConfig
from trainer.codec.files import CARD, WEIGHTS, digest_of
from trainer.vae.perceptual_card import read_perceptual_card, write_perceptual_card


def save_perceptual(encoder: PerceptualEncoder, folder: Path, about: dict[str, Any]) -> str:
    """Write an encoder; return the digest of its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file(state, temporary)
    network = asdict(encoder.config)
    digest = digest_of(network, [folder / WEIGHTS])
    write_perceptual_card(folder, {"network": network, "digest": digest} | about)
    return digest


def load_perceptual(folder: Path) -> PerceptualEncoder:
    """Load an encoder, frozen. Raises ValueError where it is missing or damaged."""
    card, path = read_perceptual_card(folder), folder / WEIGHTS
    try:
        if digest_of(card["network"], [path]) != card["digest"]:
            raise ValueError(f"{path}: is not what {CARD} says. Restore it or train it again.")
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read ({error}). Restore it.") from error
    merged = OmegaConf.merge(OmegaConf.structured(PerceptualConfig), card["network"])
    config = OmegaConf.to_object(merged)
    assert isinstance(config, PerceptualConfig)
    check_bounds(config, "perceptual.")
    with torch.device("meta"):
        encoder = PerceptualEncoder(config)
    encoder.load_state_dict(weights, assign=True)
    return encoder.requires_grad_(False).eval()
