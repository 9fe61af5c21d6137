"""Rotary position embedding over three axes (frame, height, width).

RoFormer (Su et al. 2021), with the head split into one group of pairs an axis.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.config import ModelConfig


def rope_angles(model: ModelConfig, positions: Int[Tensor, "S 3"]) -> Float[Tensor, "S 1 E/2"]:
    """Return the rotation angle of each token and rotary pair, in radians."""
    angles = []
    for axis, pairs in enumerate(model.rope_pairs()):
        exponent = torch.arange(pairs, device=positions.device) / max(pairs, 1)
        frequency = model.rope_theta**-exponent
        angles.append(positions[:, axis : axis + 1].to(torch.float32) * frequency)
    return torch.cat(angles, dim=-1).unsqueeze(1)


def rotate(
    x: Float[Tensor, "S N E"],
    cosine: Float[Tensor, "S 1 E/2"],
    sine: Float[Tensor, "S 1 E/2"],
) -> Float[Tensor, "S N E"]:
    """Rotate the pairs (x_i, x_{i + E/2}) by their angles."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)
