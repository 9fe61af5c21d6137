"""How well a codec keeps a clip: PSNR, SSIM, temporal flicker and rate; and the plain rivals.

The rivals are space-time downsamplings: means over boxes, then bicubic interpolation in space and
linear in time. They get at least as many values as the codec they are compared with, and of
several splits between space and time the best one for each clip.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from math import ceil, log10, sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data.loading.batch import Sample
from models.codec.codec import Codec

PLAIN_STRIDES = (1, 2, 4, 8)  # frames that share one value, of the plain rivals
_WINDOW, _SIGMA = 11, 1.5
_LUMA = (0.299, 0.587, 0.114)

# Frames to (reconstruction, number of stored values).
Coder = Callable[[Tensor], tuple[Tensor, int]]


@dataclass(frozen=True)
class Quality:
    """What a coder made of one clip.

    psnr: decibels over all values of the clip. ssim: mean over frames, of luma. flicker: mean
    absolute difference between the reconstruction's and the source's change from frame to frame, in
    grey levels; nan for an image. values: stored; pixels: of the source, over all frames.
    """

    psnr: float
    ssim: float
    flicker: float
    values: int
    pixels: int


def codec_coder(codec: Codec) -> Coder:
    """Return a codec as a coder."""

    def code(frames: Tensor) -> tuple[Tensor, int]:
        latent = codec.encode(frames)
        return codec.decode(latent, *frames.shape[1:3]), latent.numel()

    return code


def judge(coder: Coder, frames: Tensor) -> Quality:
    """Code a clip (F, H, W, 3) and say how well."""
    made, values = coder(frames)
    return Quality(
        psnr=psnr(made, frames),
        ssim=ssim(made, frames),
        flicker=flicker(made, frames),
        values=values,
        pixels=frames[..., 0].numel(),
    )


def psnr(made: Tensor, frames: Tensor) -> float:
    """Return the peak signal-to-noise ratio over all values of a clip, in decibels."""
    error = (made.float() - frames.float()).square().mean(dtype=torch.float64)
    return 10 * log10(255**2 / max(float(error), 1e-4))


def flicker(made: Tensor, frames: Tensor) -> float:
    """Return the mean absolute difference of changes from frame to frame, in grey levels.

    That of Chu et al. 2020 (TecoGAN, tLP) with pixels in place of LPIPS: 0 for a codec that adds no
    change of its own and loses none.
    """
    if len(frames) < 2:
        return float("nan")
    difference = made.float() - frames.float()  # the difference of changes is the change of this
    return float((difference[1:] - difference[:-1]).abs().mean())


def ssim(made: Tensor, frames: Tensor) -> float:
    """Return the structural similarity of luma (Wang et al. 2004), over windows that fit."""
    weights = torch.tensor(_LUMA)
    x, y = ((clip.float() @ weights)[:, None] for clip in (made, frames))  # (F, 1, H, W)
    size = min(_WINDOW, *frames.shape[1:3])
    offsets = torch.arange(size) - (size - 1) / 2
    line = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    line = line / line.sum()

    def blur(planes: Tensor) -> Tensor:
        planes = functional.conv2d(planes, line.view(1, 1, size, 1))
        return functional.conv2d(planes, line.view(1, 1, 1, size))

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    both = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    index = index / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(index.mean())


def plain(frames: Tensor, stride: int, values: int, hold: bool = False) -> tuple[Tensor, int]:
    """Code by plain downsampling to at least ``values`` values, ``stride`` frames sharing one.

    The first frame stands alone. hold: repeat in time instead of interpolating.
    """
    num_frames, height, width, _ = frames.shape
    planes = frames.permute(0, 3, 1, 2).float()
    groups = [planes[:1], *(planes[1:].split(stride) if num_frames > 1 else ())]
    means = torch.cat([group.mean(0, keepdim=True) for group in groups])  # (f, 3, H, W)
    budget = values / (3 * len(means))
    rows = min(height, max(1, ceil(sqrt(budget * height / width))))
    columns = min(width, max(1, ceil(budget / rows)))
    small = functional.adaptive_avg_pool2d(means, (rows, columns))
    large = functional.interpolate(small, (height, width), mode="bicubic", align_corners=False)
    centres, start = [0.0], 1
    for group in groups[1:]:
        centres.append(start + (len(group) - 1) / 2)
        start += len(group)
    owner = [0] + [1 + i // stride for i in range(num_frames - 1)]
    if hold:
        made = large[owner]
    else:
        place = np.interp(np.arange(num_frames), centres, np.arange(len(centres)))
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, len(centres) - 1)
        share = torch.from_numpy((place - low).astype(np.float32)).view(-1, 1, 1, 1)
        made = torch.lerp(large[torch.from_numpy(low)], large[torch.from_numpy(high)], share)
    made = made.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return made, small.numel()


def best_plain(frames: Tensor, values: int) -> tuple[str, Quality]:
    """Return the plain downsampling with the highest PSNR, and its name."""
    strides = [s for s in PLAIN_STRIDES if s == 1 or s < len(frames)]
    coders = {
        f"{stride} frames{', held' if hold else ''}": partial(
            plain, stride=stride, values=values, hold=hold
        )
        for stride in strides
        for hold in ((False,) if stride == 1 else (False, True))
    }
    name = max(coders, key=lambda name: psnr(coders[name](frames)[0], frames))
    return name, judge(coders[name], frames)


def judge_all(coder: Coder, samples: Iterable[Sample]) -> list[Quality]:
    """Judge a coder on decoded clips."""
    return [judge(coder, s.frames) for s in samples if s.frames is not None]


def summary(qualities: list[Quality]) -> dict[str, float]:
    """Return the means over clips; the rate is one ratio of sums."""
    flickers = [q.flicker for q in qualities if q.flicker == q.flicker]
    pixels = sum(q.pixels for q in qualities)
    return {
        "psnr": float(np.mean([q.psnr for q in qualities])),
        "ssim": float(np.mean([q.ssim for q in qualities])),
        "flicker": float(np.mean(flickers)) if flickers else float("nan"),
        "values_per_pixel": sum(q.values for q in qualities) / pixels,
        "clips": len(qualities),
    }


def interval(values: list[float], seed: int = 0, draws: int = 2000) -> tuple[float, float, float]:
    """Return mean and 95 % bootstrap interval of the mean over clips; nan values are left out."""
    kept = np.array([v for v in values if v == v])
    if not len(kept):
        return float("nan"), float("nan"), float("nan")
    random = np.random.Generator(np.random.Philox(key=seed))
    means = kept[random.integers(0, len(kept), (draws, len(kept)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(kept.mean()), float(low), float(high)
