"""Rotary position embedding over three axes (frame, height, width).

RoFormer (Su et al. 2021), with the head split into one group of pairs an axis.
"""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from models.config import ModelConfig


def rope_rotation(
    model: ModelConfig,
    positions: Int[Tensor, "S 3"],
    periods: Int[Tensor, " S"] | None = None,
) -> Complex[Tensor, "S 1 E/2"]:
    """Return the unit complex number that turns each rotary pair of each token.

    periods: after how many latent frames each token's clip begins again, 0 where it does not: its
    frequencies in time are then the nearest of which whole turns fit, so that the last frame lies
    beside the first.
    """
    angles = []
    for axis, pairs in enumerate(model.rope_pairs()):
        exponent = torch.arange(pairs, device=positions.device) / max(pairs, 1)
        frequency = model.rope_theta**-exponent
        if axis == 0 and periods is not None:
            frequency = _periodic(frequency, periods.unsqueeze(-1).to(frequency))
        angles.append(positions[:, axis : axis + 1].to(torch.float32) * frequency)
    angle = torch.cat(angles, dim=-1).unsqueeze(1)  # (S, 1, E / 2)
    return torch.polar(torch.ones_like(angle), angle)


def _periodic(
    frequency: Float[Tensor, " pairs"], periods: Float[Tensor, "S 1"]
) -> Float[Tensor, "S pairs"]:
    """Return frequencies of whole turns a period; a period of 0 leaves them."""
    turn = 2 * torch.pi / periods.clamp(min=1)
    return torch.where(periods > 0, (frequency / turn).round() * turn, frequency)


def rotate(
    x: Float[Tensor, "S *any E"], rotation: Complex[Tensor, "S *any E/2"]
) -> Float[Tensor, "S *any E"]:
    """Rotate neighbouring pairs of the last dimension, as one complex product.

    On CPU three to four times faster than sines, cosines and a concatenation (docs/log.md); in
    compiled code, which makes one loop of either, in real numbers: complex ones stay outside of it.
    """
    if torch.compiler.is_compiling():
        return _rotate_real(x, torch.view_as_real(rotation))
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


def _rotate_real(
    x: Float[Tensor, "S *any E"], rotation: Float[Tensor, "S *any E/2 2"]
) -> Float[Tensor, "S *any E"]:
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = rotation.unbind(-1)
    turned = torch.stack([a * cosine - b * sine, a * sine + b * cosine], dim=-1)
    return turned.flatten(-2).to(x.dtype)
