"""A fixed space-time wavelet as the codec between pixels and latents, no weights to train.

Each block of 4 frames x 8 x 8 pixels becomes 6 values: the block means of luma and of two chroma
channels, and luma's three first-order Haar details (in time, height and width). It is a linear
map with orthogonal rows (Haar 1910), so ``decode`` is its transpose and the projection onto what
it keeps. The trained video compression network will stand behind the same two methods.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from models.config import CodecConfig

# Orthogonal opponent colours: luma, blue-yellow, red-green; rows have unit mean or zero sum.
_COLOUR = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [-0.25, -0.25, 0.5], [0.5, -0.5, 0.0]])
_TIME_DETAIL = 3  # channel of luma's temporal detail: structurally zero in a lone first frame


def _signs(like: Tensor) -> list[Tensor]:
    """Return (-1, 1) along the two halves of a block in time, height and width."""
    sign = torch.tensor([-1.0, 1.0]).to(like)
    return [sign.view(2, 1, 1, 1, 1), sign.view(2, 1, 1), sign.view(2)]


class WaveletCodec:
    """Pixels to latents and back for clips and images of any size; see the module docstring."""

    def __init__(self, config: CodecConfig) -> None:
        if config.stride != [4, 8, 8] or config.channels != 6:
            raise ValueError(
                f"codec.stride={config.stride}, codec.channels={config.channels}: the wavelet "
                "codec is built for stride [4, 8, 8] and 6 channels. Use those."
            )
        self.config = config
        self._mean = torch.tensor(config.mean).view(-1, 1, 1, 1)
        self._rgb = torch.linalg.inv(_COLOUR)

    def encode(self, frames: UInt8[Tensor, "F H W 3"]) -> Float[Tensor, "C f h w"]:
        """Encode a clip of 1 + 4k frames; sizes off the 16-pixel grid are edge-padded."""
        num_frames, height, width, _ = frames.shape
        f, h, w = self.config.latent_shape(num_frames, height, width)
        pixels = frames.permute(3, 0, 1, 2).to(torch.float32)  # (3, F, H, W)
        pixels = pad(pixels, (0, w * 8 - width, 0, h * 8 - height), mode="replicate")
        pixels = avg_pool2d(pixels, 4)  # all that follows is linear, so shrink first
        pixels = torch.einsum("cd,dfhw->cfhw", _COLOUR.to(pixels), pixels / 127.5 - 1.0)
        pixels = torch.cat([pixels[:, :1].expand(-1, 3, -1, -1), pixels], dim=1)
        halves = pixels.reshape(3, f, 2, 2, h, 2, w, 2).mean(dim=3)
        # halves: (3, f, 2, h, 2, w, 2), the mean of each eighth of a block
        mean = halves.mean(dim=(2, 4, 6))
        details = [(halves[0] * sign).mean(dim=(1, 3, 5)) for sign in _signs(halves)]
        latent = torch.cat([mean, torch.stack(details)])  # (6, f, h, w)
        return (latent - self._mean.to(latent)) / self.config.scale

    def decode(
        self, latent: Float[Tensor, "C f h w"], height: int, width: int
    ) -> UInt8[Tensor, "F H W 3"]:
        """Decode latents to 1 + 4 (f - 1) frames, trimmed to ``height`` x ``width`` pixels."""
        latent = latent * self.config.scale + self._mean.to(latent)
        _, f, h, w = latent.shape
        luma = latent[0].view(f, 1, h, 1, w, 1)
        for detail, sign in zip(latent[3:], _signs(latent), strict=True):
            luma = luma + detail.view(f, 1, h, 1, w, 1) * sign
        luma = luma.reshape(1, 2 * f, 2 * h, 2 * w)
        luma = luma.repeat_interleave(2, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
        chroma = latent[1:3].repeat_interleave(4, 1)
        chroma = chroma.repeat_interleave(8, 2).repeat_interleave(8, 3)
        planes = torch.cat([luma, chroma])[:, 3:, :height, :width]  # drop the repeated first frame
        pixels = torch.einsum("cd,dfhw->fhwc", self._rgb.to(planes), planes)
        return ((pixels + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def valid(self, num_frames: int, height: int, width: int) -> Bool[Tensor, "C f h w"]:
        """Mark the latent values that carry loss.

        False where a value sees only edge padding, and for the temporal detail of the first
        frame, which is zero by construction.
        """
        return valid_cells(self.config, num_frames, height, width)


def valid_cells(
    config: CodecConfig, num_frames: int, height: int, width: int
) -> Bool[Tensor, "C f h w"]:
    """Mark the latent values that carry loss; see :meth:`WaveletCodec.valid`."""
    f, h, w = config.latent_shape(num_frames, height, width)
    mask = torch.zeros(config.channels, f, h, w, dtype=torch.bool)
    mask[:, :, : -(-height // 8), : -(-width // 8)] = True
    mask[_TIME_DETAIL, 0] = False
    return mask
