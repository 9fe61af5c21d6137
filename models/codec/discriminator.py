"""A patch discriminator on pairs of neighbouring frames, for the optional adversarial loss.

PatchGAN (Isola et al. 2017) with the hinge loss (Lim and Ye 2017). Two frames at once let it see
flicker. The generator's and the discriminator's gradients come from one backward pass: the
generator is judged by a copy of the weights that takes no gradient.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional


class Discriminator(nn.Module):
    """Strided convolutions on two frames to a map of logits; positive means real."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
            for inputs, outputs in pairwise((6, *widths))
        )
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw initial values."""
        with torch.no_grad():
            for layer in (*self.stages, self.head):
                fan_in = layer.weight[0].numel()
                layer.weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
                layer.bias.zero_()

    def forward(self, pixels: Float[Tensor, "B F H W 3"]) -> Float[Tensor, "N 1 h w"]:
        """Judge every frame together with the one before; an image is its own neighbour."""
        before = torch.cat([pixels[:, :1], pixels[:, :-1]], dim=1)
        x = torch.cat([before, pixels], dim=-1).flatten(0, 1).permute(0, 3, 1, 2)
        for stage in self.stages:
            x = functional.leaky_relu(stage(x), 0.2)
        return self.head(x)


def generator_loss(
    discriminator: Discriminator, made: Float[Tensor, "B F H W 3"]
) -> Float[Tensor, ""]:
    """Return the sum of minus the logits of made clips; no gradient to the discriminator."""
    frozen = {name: value.detach() for name, value in discriminator.named_parameters()}
    return -functional_call(discriminator, frozen, (made,)).sum()


def discriminator_loss(
    discriminator: Discriminator,
    made: Float[Tensor, "B F H W 3"],
    real: Float[Tensor, "B F H W 3"],
) -> tuple[Float[Tensor, ""], int]:
    """Return the sum of hinge losses and their number; no gradient to the made clips."""
    on_real, on_made = discriminator(real), discriminator(made.detach())
    loss = functional.relu(1 - on_real).sum() + functional.relu(1 + on_made).sum()
    return loss, on_real.numel() + on_made.numel()
