"""What the captioner reads: clips fitted into its limits, and the stems that make tokens."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, pad

from models.config import CaptionerConfig
from models.dit.embed import patchify

CELL = (4, 16, 16)  # source pixels of a token as (frames, height, width); the first frame is alone


@dataclass(frozen=True)
class View:
    """A clip as the captioner reads it.

    pixels: frames (F, H, W, 3) 0..255, or frozen features (C, f, h, w), h and w even.
    fps: frames per second of what is read; 0 for images.
    """

    pixels: Tensor
    fps: float


def fit_view(frames: UInt8[Tensor, "F H W 3"], fps: float, config: CaptionerConfig) -> View:
    """Spread at most ``max_frames`` over a clip and scale it down to ``max_video_tokens``.

    Clips inside both limits are returned as they are.
    """
    count, height, width, _ = frames.shape
    if count > config.max_frames:
        spread = torch.linspace(0, count - 1, config.max_frames).round().long()
        frames, fps = frames[spread], fps * (config.max_frames - 1) / (count - 1)
    per_frame = config.max_video_tokens // (1 + -(-(len(frames) - 1) // CELL[0]))
    scale = 1.0
    while _cells(height * scale, width * scale) > max(per_frame, 1) and scale > 1e-3:
        scale *= 0.97
    if scale < 1:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        planes = frames.permute(0, 3, 1, 2).float()
        planes = interpolate(planes, size, mode="bilinear", antialias=True)
        frames = planes.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return View(frames, fps)


def _cells(height: float, width: float) -> int:
    return -(-max(1, round(height)) // CELL[1]) * -(-max(1, round(width)) // CELL[2])


class Stem(nn.Module):
    """Two convolutions over each frame, then one token for 4 frames of 2 x 2 of their cells."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        inner = config.stem_width
        self.first = nn.Conv2d(3, inner, 4, stride=4)
        self.second = nn.Conv2d(inner, 2 * inner, 2, stride=2)
        self.out = nn.Linear(CELL[0] * 4 * 2 * inner, config.width)

    def forward(self, frames: UInt8[Tensor, "F H W 3"]) -> tuple[Tensor, tuple[int, int, int]]:
        """Return tokens (S, D) and the latent size (f, 2h, 2w) they tile by 1 x 2 x 2."""
        count, height, width, _ = frames.shape
        pixels = frames.permute(0, 3, 1, 2).to(self.out.weight.dtype) / 127.5 - 1.0
        pixels = pad(pixels, (0, -width % CELL[2], 0, -height % CELL[1]), mode="replicate")
        late = -(count - 1) % CELL[0]  # any length: the last frame stands still
        before = pixels[:1].expand(CELL[0] - 1, -1, -1, -1)
        pixels = torch.cat([before, pixels, pixels[-1:].expand(late, -1, -1, -1)])
        x = gelu(self.second(gelu(self.first(pixels))))  # (4 f, C, 2 h, 2 w)
        x = x.unflatten(0, (-1, CELL[0])).transpose(1, 2).flatten(1, 2)  # (f, 4 C, 2 h, 2 w)
        size = (x.shape[0], x.shape[2], x.shape[3])
        return self.out(patchify(x.transpose(0, 1))), size


class FeatureStem(nn.Module):
    """One linear map of frozen features, 1 x 2 x 2 of them a token."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.channels = config.feature_channels
        self.out = nn.Linear(4 * config.feature_channels, config.width)

    def forward(self, features: Float[Tensor, "C f h w"]) -> tuple[Tensor, tuple[int, int, int]]:
        """Return tokens (S, D) and the size (f, h, w) of the features."""
        channels, f, h, w = features.shape
        if channels != self.channels or h % 2 or w % 2:
            raise ValueError(
                f"features={tuple(features.shape)}: must be (captioner.feature_channels="
                f"{self.channels}, f, h, w) with even h and w. Use the features it was trained on."
            )
        return self.out(patchify(features.to(self.out.weight.dtype))), (f, h, w)
