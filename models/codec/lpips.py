"""LPIPS with the features of AlexNet (Zhang et al. 2018); weights are handed in.

Pixels in [-1, 1] are normalised as for ImageNet; the features of five layers are scaled to unit
length a position, squared differences weighted a channel and averaged over positions.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# Inputs, outputs, kernel, stride, padding; whether a pooling comes before.
_LAYERS = (
    (3, 64, 11, 4, 2, False),
    (64, 192, 5, 1, 2, True),
    (192, 384, 3, 1, 1, True),
    (384, 256, 3, 1, 1, False),
    (256, 256, 3, 1, 1, False),
)
SMALLEST = 31  # pixels of a side that leave one position after both poolings


class Lpips(nn.Module):
    """The distance of pairs of frames."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel, stride, padding)
            for inputs, outputs, kernel, stride, padding, _ in _LAYERS
        )
        self.weights = nn.ParameterList(torch.zeros(layer[1]) for layer in _LAYERS)
        self.register_buffer("shift", torch.tensor(_SHIFT), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE), persistent=False)

    def features(self, pixels: Float[Tensor, "N H W 3"]) -> list[Float[Tensor, "N D h w"]]:
        """Return the five layers' activations; frames with a short side are enlarged."""
        x = ((pixels - self.shift) / self.scale).permute(0, 3, 1, 2)
        short = min(x.shape[2:])
        if short < SMALLEST:
            x = functional.interpolate(x, scale_factor=SMALLEST / short, mode="bilinear")
        found = []
        for convolution, layer in zip(self.convolutions, _LAYERS, strict=True):
            if layer[-1]:
                x = functional.max_pool2d(x, 3, stride=2)
            x = functional.relu(convolution(x))
            found.append(x)
        return found

    def forward(
        self, first: Float[Tensor, "N H W 3"], second: Float[Tensor, "N H W 3"]
    ) -> Float[Tensor, "N"]:
        """Return the distance of each pair; gradients flow into ``first`` alone."""
        with torch.no_grad():
            wanted = self.features(second)
        total = first.new_zeros(len(first))
        layers = zip(self.features(first), wanted, self.weights, strict=True)
        for ours, theirs, weights in layers:
            difference = functional.normalize(ours, dim=1) - functional.normalize(theirs, dim=1)
            weighted = difference.square() * weights.view(1, -1, 1, 1)
            total = total + weighted.sum(dim=1).mean(dim=(1, 2))
        return total
