"""Preconditioning: the network sees and predicts unit-variance values at every noise level.

EDM (Karras et al. 2022, equation 7 and appendix B.6), carried over to the rectified-flow path
x_t = (1 - t) x_0 + t x_1 for data whose channels have standard deviation sigma:

    velocity = c_skip x_t + c_out network(c_in x_t, t),    s = (1 - t)^2 + t^2 sigma^2
    c_in = 1 / sqrt(s),  c_skip = (t sigma^2 - (1 - t)) / s,  c_out = sigma / sqrt(s)

The skip is the best guess that is linear in x_t, so that an untrained network (zero output) starts
at a loss of sigma pi / 2 a channel, and noise need not pass through the network's output.

A network that is to predict the data or the noise itself, without a skip, has the coefficients that
turn what it says into a velocity:

    x_1 = sigma network:  c_skip = -1 / (1 - t),  c_out = sigma / (1 - t)
    x_0 = network:        c_skip = 1 / t,         c_out = -1 / t

The divisor is at least NEAREST (Li and He 2025, for x_1): at the end of the path the
velocity is not told by the network's output.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

# (t, sigma) -> (c_in, c_skip, c_out): what the network's output stands for
Coefficients = Callable[
    [Float[Tensor, "S 1"], Float[Tensor, " V"]],
    tuple[Float[Tensor, "S V"], Float[Tensor, "S V"], Float[Tensor, "S V"]],
]

NEAREST = 0.05


def velocity_coefficients(
    t: Float[Tensor, "S 1"], sigma: Float[Tensor, " V"]
) -> tuple[Float[Tensor, "S V"], Float[Tensor, "S V"], Float[Tensor, "S V"]]:
    """Return (c_in, c_skip, c_out) for each token and value."""
    variance = (1 - t).square() + (t * sigma).square()
    c_in = variance.rsqrt()
    return c_in, (t * sigma.square() - (1 - t)) / variance, sigma * c_in


def data_coefficients(
    t: Float[Tensor, "S 1"], sigma: Float[Tensor, " V"]
) -> tuple[Float[Tensor, "S V"], Float[Tensor, "S V"], Float[Tensor, "S V"]]:
    """Return (c_in, c_skip, c_out) for a network whose output is x_1 / sigma."""
    c_in, _, _ = velocity_coefficients(t, sigma)
    left = (1 - t).clamp(min=NEAREST)
    return c_in, (-1 / left).expand_as(c_in), sigma / left


def noise_coefficients(
    t: Float[Tensor, "S 1"], sigma: Float[Tensor, " V"]
) -> tuple[Float[Tensor, "S V"], Float[Tensor, "S V"], Float[Tensor, "S V"]]:
    """Return (c_in, c_skip, c_out) for a network whose output is x_0."""
    c_in, _, _ = velocity_coefficients(t, sigma)
    gone = 1 / t.clamp(min=NEAREST)
    return c_in, gone.expand_as(c_in), (-gone).expand_as(c_in)


def value_spread(spread: list[float]) -> Float[Tensor, " V"]:
    """Return sigma of each value of a 1x2x2 patch, in the order of ``embed.patchify``."""
    return torch.tensor(spread).repeat_interleave(4)
