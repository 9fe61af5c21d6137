"""Rectified flow: one function per equation (Liu et al. 2022; Lipman et al. 2022).

x_0 is noise, x_1 data, t = 0 noise and t = 1 data:

    x_t = (1 - t) x_0 + t x_1,    velocity = x_1 - x_0
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.pack import TokenPack


def interpolate(
    x_0: Float[Tensor, "S V"], x_1: Float[Tensor, "S V"], t: Float[Tensor, "S 1"]
) -> Float[Tensor, "S V"]:
    """Return the point x_t on the straight line from noise to data."""
    return torch.lerp(x_0, x_1, t)


def logit_normal_times(
    normal: Float[Tensor, " M"], tokens: Float[Tensor, " M"], shift_tokens: float
) -> Float[Tensor, " M"]:
    """Turn standard normals into training times, noisier for longer clips.

    t = sigmoid(n), then shifted toward noise by s = max(1, sqrt(tokens / shift_tokens)):
    t' = t / (t + s (1 - t)) (Esser et al. 2024, section 5.3.2 with t = 1 as data).
    """
    t = normal.sigmoid()
    shift = (tokens / shift_tokens).sqrt().clamp(min=1.0)
    return t / (t + shift * (1.0 - t))


def squared_errors(
    velocity: Float[Tensor, "S V"],
    x_0: Float[Tensor, "S V"],
    x_1: Float[Tensor, "S V"],
    valid: Bool[Tensor, "S V"],
) -> Float[Tensor, " S"]:
    """Return each token's summed squared velocity error over its valid values."""
    error = (velocity - (x_1 - x_0)) * valid
    return error.square().sum(dim=-1)


def flow_errors(
    model: Callable[[TokenPack, Tensor, Tensor], Tensor],
    pack: TokenPack,
    x_0: Float[Tensor, "S V"],
    t: Float[Tensor, " M"],
) -> Float[Tensor, " S"]:
    """Run the model at (x_0, t) and return each token's summed squared error."""
    per_token = t.index_select(0, pack.segment).unsqueeze(-1)  # (S, 1)
    velocity = model(pack, interpolate(x_0, pack.latent, per_token), t)
    return squared_errors(velocity, x_0, pack.latent, pack.valid)


@torch.no_grad()
def sample(
    model: Callable[[TokenPack, Tensor, Tensor], Tensor],
    pack: TokenPack,
    x_0: Float[Tensor, "S V"],
    num_steps: int,
    guidance: float,
    shift: float,
) -> Float[Tensor, "S V"]:
    """Integrate the flow from noise to data by Heun's method (Karras et al. 2022, algorithm 1).

    guidance: classifier-free guidance weight; 1 means none (Ho and Salimans 2022).
    shift: times are spaced as t' = t / (t + shift (1 - t)), finer near noise for shift > 1.
    """
    uncaptioned = TokenPack(
        **{**vars(pack), "caption": pack.caption[:0], "caption_lengths": [0] * len(pack.lengths)}
    )

    def velocity(x: Tensor, time: float) -> Tensor:
        t = torch.full((len(pack.lengths),), time, device=x.device)
        v = model(pack, x, t)
        if guidance != 1.0:
            free = model(uncaptioned, x, t)
            v = free + guidance * (v - free)
        return v

    grid = torch.linspace(0.0, 1.0, num_steps + 1)
    times = (grid / (grid + shift * (1.0 - grid))).tolist()
    x = x_0
    for now, then in pairwise(times):
        v = velocity(x, now)
        ahead = x + (then - now) * v
        if then < 1.0:
            v = (v + velocity(ahead, then)) / 2
        x = x + (then - now) * v
    return x
