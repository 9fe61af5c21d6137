"""Pixels as latents, without a codec: blocks of pixels become channels, for pictures of few pixels.

A block of ``stride`` is one latent value of 3 x prod(stride) channels, ordered (frame, row, column,
colour), so that a token of 1 x 2 x 2 latents is a block of twice its rows and columns. The first
frame of a clip is the last of its block; the frames before it are zero and carry no loss. With
mean 0 and scale 1 the loss is that of pixels in [-1, 1].
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import pad

from models.codec.patches import from_patches, to_patches
from models.config import CodecConfig


class PixelCodec:
    """Pixels to latents and back, exactly; see the module docstring and ``codec.Codec``."""

    def __init__(self, config: CodecConfig) -> None:
        self.config = config
        self._mean = torch.tensor(config.mean).view(-1, 1, 1, 1)
        self._before = lead_in_values(config)

    def encode(self, frames: UInt8[Tensor, "F H W 3"]) -> Float[Tensor, "C f h w"]:
        """Encode a clip of 1 + k * stride frames; sizes off the grid are edge-padded."""
        num_frames, height, width, _ = frames.shape
        stride = self.config.stride
        _, h, w = self.config.latent_shape(num_frames, height, width)
        planes = frames.permute(3, 0, 1, 2).to(torch.float32) / 127.5 - 1.0  # (3, F, H, W)
        grown = (0, w * stride[2] - width, 0, h * stride[1] - height)
        planes = pad(planes, grown, mode="replicate")
        planes = pad(planes, (0, 0, 0, 0, stride[0] - 1, 0))
        blocks = to_patches(planes.permute(1, 2, 3, 0)[None], stride)[0]  # (f, h, w, C)
        latent = (blocks.permute(3, 0, 1, 2) - self._mean) / self.config.scale
        latent[: self._before, 0] = 0.0
        return latent

    def decode(
        self, latent: Float[Tensor, "C f h w"], height: int, width: int
    ) -> UInt8[Tensor, "F H W 3"]:
        """Decode latents, trimmed to ``height`` x ``width`` pixels."""
        blocks = (latent * self.config.scale + self._mean.to(latent)).permute(1, 2, 3, 0)
        pixels = from_patches(blocks[None], self.config.stride)[0]  # (F, H, W, 3)
        pixels = pixels[self.config.stride[0] - 1 :, :height, :width]
        return ((pixels + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def valid(self, num_frames: int, height: int, width: int) -> Bool[Tensor, "C f h w"]:
        """Mark the values of real pixels."""
        return valid_pixels(self.config, num_frames, height, width)


def lead_in_values(config: CodecConfig) -> int:
    """Return the channels of the first block that lie before the first frame."""
    return config.channels // config.stride[0] * (config.stride[0] - 1)


def valid_pixels(
    config: CodecConfig, num_frames: int, height: int, width: int
) -> Bool[Tensor, "C f h w"]:
    """Mark the latent values that carry loss: those of pixels that the clip has."""
    _, h, w = config.latent_shape(num_frames, height, width)
    _, rows, columns = config.stride
    real = torch.zeros(1, num_frames + config.stride[0] - 1, h * rows, w * columns, 3)
    real[:, config.stride[0] - 1 :, :height, :width] = 1.0
    return to_patches(real, config.stride)[0].permute(3, 0, 1, 2) > 0
