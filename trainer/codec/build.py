"""Build the codec that a config names: fixed, trained here, or pretrained."""

from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.bounds import check_bounds
from data.files import replacing
from models.codec.codec import Codec, VaeCodec
from models.codec.pixels import PixelCodec
from models.codec.vae import Vae
from models.codec.wavelet import WaveletCodec
from models.config import CodecConfig, CodecKind, VaeConfig
from trainer.codec.diffusers import DiffusersCodec, load_diffusers
from trainer.codec.files import WEIGHTS, digest_of, read_card, resolve


class OnDevice:
    """A codec whose network computes on a device; clips and latents stay on the host."""

    def __init__(self, codec: VaeCodec | DiffusersCodec, device: torch.device) -> None:
        self.config, self._codec, self._device = codec.config, codec, device
        network: torch.nn.Module = codec.vae if isinstance(codec, VaeCodec) else codec.network
        network.to(device)

    def encode(self, frames: UInt8[Tensor, "F H W 3"]) -> Float[Tensor, "C f h w"]:
        """Encode as the codec does."""
        return self._codec.encode(frames.to(self._device)).cpu()

    def decode(
        self, latent: Float[Tensor, "C f h w"], height: int, width: int
    ) -> UInt8[Tensor, "F H W 3"]:
        """Decode as the codec does."""
        return self._codec.decode(latent.to(self._device), height, width).cpu()

    def valid(self, num_frames: int, height: int, width: int) -> Bool[Tensor, "C f h w"]:
        """Mark the latent values that see more than edge padding."""
        return self._codec.valid(num_frames, height, width)


def load_codec(config: CodecConfig, device: torch.device | None = None) -> Codec:
    """Build a codec; weights come from its folder, networks compute on ``device`` (CPU).

    Raises ValueError where the folder is missing or damaged, or its weights are not those that the
    config was composed with.
    """
    if config.kind is CodecKind.wavelet:
        return WaveletCodec(config)
    if config.kind is CodecKind.pixels:
        return PixelCodec(config)
    folder = resolve(config.path)
    if config.kind is CodecKind.diffusers:
        codec: VaeCodec | DiffusersCodec = load_diffusers(config, folder)
    else:
        codec = VaeCodec(config, load_vae(folder, config.digest))
    return codec if device is None or device.type == "cpu" else OnDevice(codec, device)


def load_vae(folder: Path, digest: str = "") -> Vae:
    """Load a network trained here; ``digest`` is what its weights must have."""
    card = read_card(folder)
    path = folder / WEIGHTS
    try:
        found = digest_of(card["network"], [path])
        if found != card["digest"] or digest not in ("", found):
            raise ValueError(
                f"codec.digest={(digest or card['digest'])[:12]}: {path} has {found[:12]}. The "
                "weights were replaced or damaged; restore them, or encode and train anew."
            )
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read ({error}). Restore it.") from error
    network = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(VaeConfig), card["network"]))
    assert isinstance(network, VaeConfig)
    check_bounds(network, "vae.")
    vae = Vae(network)
    vae.load_state_dict({name: value.to(torch.float32) for name, value in weights.items()})
    return vae.eval()


def save_vae(vae: Vae, folder: Path) -> str:
    """Write a network's weights; return their digest."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as temporary:
        save_file({name: value.contiguous() for name, value in vae.state_dict().items()}, temporary)
    return digest_of(asdict(vae.config), [folder / WEIGHTS])
