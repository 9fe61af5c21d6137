"""From latents to tokens and back, and the sinusoids that tell a token when and where it is."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.config import POSITION_FEATURES


def patchify(latent: Float[Tensor, "C f h w"]) -> Float[Tensor, "S V"]:
    """Cut latents into 1x2x2 patches in (f, h, w) order; V = 4 C."""
    C, f, h, w = latent.shape
    patches = latent.reshape(C, f, h // 2, 2, w // 2, 2)
    return patches.permute(1, 2, 4, 0, 3, 5).reshape(f * (h // 2) * (w // 2), 4 * C)


def unpatchify(tokens: Float[Tensor, "S V"], f: int, h: int, w: int) -> Float[Tensor, "C f h w"]:
    """Invert :func:`patchify` for a latent of size (f, h, w)."""
    C = tokens.shape[1] // 4
    patches = tokens.reshape(f, h // 2, w // 2, C, 2, 2)
    return patches.permute(3, 0, 1, 4, 2, 5).reshape(C, f, h, w)


def token_positions(f: int, h: int, w: int) -> Int[Tensor, "S 3"]:
    """Return integer (frame, row, column) of each token of a latent of size (f, h, w)."""
    axes = torch.meshgrid(
        torch.arange(f), torch.arange(h // 2), torch.arange(w // 2), indexing="ij"
    )
    return torch.stack(axes, dim=-1).reshape(-1, 3)


def position_features(
    positions: Int[Tensor, "S 3"], extent: tuple[int, int, int]
) -> Float[Tensor, "S P"]:
    """Embed where a token lies in its frame, as a share of the frame's size.

    Rotary embedding tells tokens their distance, not where the ground is. Rows and columns are
    relative to the frame, so any size is covered; three octaves of sine and cosine an axis.
    """
    size = torch.tensor(extent, dtype=torch.float32, device=positions.device)
    share = (positions.to(torch.float32) + 0.5) / size
    octaves = torch.pi * 2.0 ** torch.arange(POSITION_FEATURES // 6, device=positions.device)
    angle = (share.unsqueeze(-1) * octaves).flatten(1)  # (S, 9)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def sinusoids(value: Float[Tensor, " T"], num_features: int) -> Float[Tensor, "T U"]:
    """Embed a scalar in [0, 1] by ``num_features`` sines and cosines from 1 to 30 radians."""
    half = num_features // 2
    frequency = 30.0 ** (torch.arange(half, device=value.device) / max(half - 1, 1))
    angle = value.to(torch.float32).unsqueeze(-1) * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
