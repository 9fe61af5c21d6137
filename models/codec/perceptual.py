"""A small convolutional network on frames whose features measure how alike two pictures look.

It is trained to say what a simulator knows of its frames (trainer/vae/perceptual.py), so that its
features respond to objects, materials and light rather than to pixels. The distance is that of
LPIPS (Zhang et al. 2018, equation 1) with unit weights: features of both pictures are scaled to
unit length at every position, and squared differences averaged over positions and summed over
channels.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.config import PerceptualConfig


class PerceptualEncoder(nn.Module):
    """Stages of strided convolutions, and a linear head on their pooled features."""

    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        self.config = config
        widths = [3, *config.widths]
        self.stages = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
            for inputs, outputs in pairwise(widths)
        )
        # Mean and largest value: an object is somewhere, a floor is everywhere.
        self.head = nn.Linear(2 * widths[-1], len(config.outputs))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw initial values that keep the size of activations (He et al. 2015)."""
        with torch.no_grad():
            for stage in self.stages:
                assert isinstance(stage, nn.Conv2d)
                assert stage.bias is not None
                fan_in = stage.weight[0].numel()
                stage.weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
                stage.bias.zero_()
            self.head.weight.normal_(0.0, 0.01, generator=generator)
            self.head.bias.zero_()

    def features(self, pixels: Float[Tensor, "N H W 3"]) -> list[Float[Tensor, "N D h w"]]:
        """Return the activations after every stage, for pixels in [-1, 1]."""
        x = pixels.permute(0, 3, 1, 2)
        found = []
        for stage in self.stages:
            x = functional.silu(stage(x))
            found.append(x)
        return found

    def forward(self, pixels: Float[Tensor, "N H W 3"]) -> Float[Tensor, "N K"]:
        """Return a logit for every output, of frames in [-1, 1]."""
        last = self.features(pixels)[-1]
        return self.head(torch.cat([last.mean(dim=(2, 3)), last.amax(dim=(2, 3))], dim=1))


def perceptual_distance(
    encoder: PerceptualEncoder, first: Float[Tensor, "N H W 3"], second: Float[Tensor, "N H W 3"]
) -> Float[Tensor, "N"]:
    """Return the distance of each pair of frames; gradients flow into ``first`` alone."""
    with torch.no_grad():
        wanted = encoder.features(second)
    total = first.new_zeros(len(first))
    for ours, theirs in zip(encoder.features(first), wanted, strict=True):
        difference = functional.normalize(ours, dim=1) - functional.normalize(theirs, dim=1)
        total = total + difference.square().sum(dim=1).mean(dim=(1, 2))
    return total
