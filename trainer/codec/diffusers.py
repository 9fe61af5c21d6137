"""Pretrained video autoencoders that ``diffusers`` saved, from a local folder, as codecs.

``AutoencoderKLWan``, ``-CogVideoX``, ``-LTXVideo`` and ``-HunyuanVideo``: causal, so that 1 + k
frames make an image and k more. Nothing is downloaded and only safetensors are read. Their
latents' statistics are measured once: ``kinescale codec-statistics``.
"""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from safetensors import SafetensorError
from torch import Tensor

from models.codec.codec import pad_edges, to_frames, to_pixels, valid_values
from models.config import CodecConfig, CodecKind
from models.text import quiet_torchao
from trainer.codec.files import digest_of, read_card

CLASSES = (
    "AutoencoderKLWan",
    "AutoencoderKLCogVideoX",
    "AutoencoderKLLTXVideo",
    "AutoencoderKLHunyuanVideo",
)
_PROBE = (17, 64, 96)  # frames and sides that every stride divides (after the first frame)


class DiffusersCodec:
    """An autoencoder of ``diffusers`` as a codec; the posterior's mode is the latent."""

    def __init__(self, config: CodecConfig, network: Any) -> None:
        self.config, self.network = config, network.eval().requires_grad_(False)
        self._mean = torch.tensor(config.mean).view(-1, 1, 1, 1)
        # It takes the first of an even number of latent frames for four frames, not for one.
        self._wants_odd = type(network).__name__ == "AutoencoderKLCogVideoX"

    @torch.no_grad()
    def encode(self, frames: UInt8[Tensor, "F H W 3"]) -> Float[Tensor, "C f h w"]:
        """Encode a clip of 1 + k * stride frames; sizes off the grid are edge-padded."""
        num_frames, height, width, _ = frames.shape
        _, h, w = self.config.latent_shape(num_frames, height, width)
        pixels = pad_edges(to_pixels(frames), h * self.config.stride[1], w * self.config.stride[2])
        raw = self.network.encode(pixels.permute(3, 0, 1, 2)[None]).latent_dist.mode()[0]
        return (raw - self._mean.to(raw)) / self.config.scale

    @torch.no_grad()
    def decode(
        self, latent: Float[Tensor, "C f h w"], height: int, width: int
    ) -> UInt8[Tensor, "F H W 3"]:
        """Decode latents, trimmed to ``height`` x ``width`` pixels."""
        raw = latent.to(torch.float32) * self.config.scale + self._mean.to(latent.device)
        num_frames = 1 + (raw.shape[1] - 1) * self.config.stride[0]
        if self._wants_odd and raw.shape[1] % 2 == 0:
            raw = torch.cat([raw, raw[:, -1:]], dim=1)  # time is causal: the copy is trimmed again
        pixels = self.network.decode(raw[None]).sample[0]  # (3, F, H, W)
        return to_frames(pixels.permute(1, 2, 3, 0)[:num_frames, :height, :width])

    def valid(self, num_frames: int, height: int, width: int) -> Bool[Tensor, "C f h w"]:
        """Mark the latent values that see more than edge padding."""
        return valid_values(self.config, num_frames, height, width)


def weight_files(folder: Path) -> list[Path]:
    """Return the folder's safetensors. Raises ValueError where there are none."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise ValueError(
            f"codec.path={folder}: holds no safetensors. Save the network with "
            "save_pretrained(FOLDER); pickled weights are not read."
        )
    return found


def load_network(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Load an autoencoder in fp32; return it and its ``config.json``."""
    path = folder / "config.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        name = about["_class_name"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"codec.path={folder}: has no config.json of diffusers ({error}). Save the network "
            "with save_pretrained(FOLDER)."
        ) from error
    if name not in CLASSES:
        raise ValueError(f"{path}: _class_name={name}: must be one of {', '.join(CLASSES)}.")
    weight_files(folder)
    quiet_torchao()
    import diffusers
    from diffusers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        network = getattr(diffusers, name).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,  # the other way needs the package accelerate
        )
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"codec.path={folder}: cannot be loaded ({reason}).") from error
    return network, {key: value for key, value in about.items() if key != "_name_or_path"}


def open_autoencoder(folder: Path) -> tuple[DiffusersCodec, dict[str, Any]]:
    """Return a codec of raw latents, its stride found by coding an empty clip."""
    network, about = load_network(folder)
    num_frames, height, width = _PROBE
    with torch.no_grad():
        latent = network.encode(torch.zeros(1, 3, *_PROBE)).latent_dist.mode()
    _, channels, f, h, w = latent.shape
    stride = [(num_frames - 1) // max(f - 1, 1), height // h, width // w]
    config = CodecConfig(
        kind=CodecKind.diffusers,
        stride=stride,
        channels=channels,
        mean=[0.0] * channels,
        spread=[1.0] * channels,
        path=str(folder),
    )
    return DiffusersCodec(config, network), about


def load_diffusers(config: CodecConfig, folder: Path) -> DiffusersCodec:
    """Load a measured autoencoder; refuse other weights than those that were measured."""
    card = read_card(folder)
    network, about = load_network(folder)
    found = digest_of(about, weight_files(folder))
    if found != card["digest"] or config.digest not in ("", found):
        raise ValueError(
            f"codec.digest={(config.digest or card['digest'])[:12]}: {folder} has {found[:12]}. "
            "The network was replaced; measure it again and encode anew."
        )
    return DiffusersCodec(config, network)
