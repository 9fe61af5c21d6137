"""Patches of pixels, their Haar transform, and the rows of it that a linear codec keeps."""

import math
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from models.config import VaeConfig

# Opponent colours with orthonormal rows: luma, blue-yellow, red-green.
COLOURS = ((1.0, 1.0, 1.0), (-1.0, -1.0, 2.0), (1.0, -1.0, 0.0))
# Typical sizes of a natural clip's Haar coefficients (docs/log.md): of a mean of luma in [-1, 1],
# of chroma beside luma, and of a detail along an axis beside the mean. The spectrum is so steep
# that without them the network would see the means alone.
LUMA_SIZE, CHROMA_SHARE, DETAIL_SHARE = 0.6, 0.3, 0.09


def to_patches(x: Float[Tensor, "B F H W D"], patch: list[int]) -> Float[Tensor, "B f h w P"]:
    """Fold blocks of positions into channels, ordered (frame, row, column, channel)."""
    b, f, h, w, d = x.shape
    t, r, c = patch
    x = x.reshape(b, f // t, t, h // r, r, w // c, c, d)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, f // t, h // r, w // c, t * r * c * d)


def from_patches(x: Float[Tensor, "B f h w P"], patch: list[int]) -> Float[Tensor, "B F H W D"]:
    """Undo :func:`to_patches`."""
    b, f, h, w, p = x.shape
    t, r, c = patch
    d = p // (t * r * c)
    x = x.reshape(b, f, h, w, t, r, c, d).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, f * t, h * r, w * c, d)


def haar(size: int) -> Float[Tensor, "N N"]:
    """Return the orthonormal Haar transform of a power of two of samples (Haar 1910)."""
    rows = torch.ones(1, 1)
    while len(rows) < size:
        n = len(rows)
        details = torch.eye(n).repeat_interleave(2, 1)
        details[:, 1::2] *= -1
        rows = torch.cat([rows.repeat_interleave(2, 1), details]) / math.sqrt(2)
    return rows


def haar_patch(patch: list[int]) -> Float[Tensor, "P P"]:
    """Return the transform of a patch of RGB pixels in three axes and opponent colours."""
    colours = functional.normalize(torch.tensor(COLOURS), dim=1)
    transform = colours
    for size in reversed(patch):
        transform = torch.kron(haar(size), transform)
    return transform


def patch_sizes(patch: list[int]) -> Float[Tensor, "P"]:
    """Return typical sizes of a patch's Haar coefficients, in the order of the transform's rows.

    A detail is the smaller, the finer it is along all axes together.
    """
    levels = torch.zeros(1)
    for size in patch:
        axis = torch.arange(size).float().log2().floor().add(1).clamp(min=0)  # 0 1 2 2 3 3 3 3
        levels = (levels[:, None] + axis).flatten()
    shares = torch.where(levels == 0, 1.0, DETAIL_SHARE / levels.clamp(min=1))
    colours = torch.tensor([1.0, CHROMA_SHARE, CHROMA_SHARE])
    return torch.kron(shares, colours) * LUMA_SIZE * math.sqrt(3 * math.prod(patch))


def latent_sizes(channels: int) -> Float[Tensor, "C"]:
    """Return typical sizes of the low-pass path's latents: luma, chroma, details."""
    shares = torch.full((channels,), DETAIL_SHARE)
    shares[:3] = torch.tensor([1.0, CHROMA_SHARE, CHROMA_SHARE])[:channels]
    return LUMA_SIZE * shares


def low_pass(config: VaeConfig) -> Float[Tensor, "C block"]:
    """Return the first rows of a block's Haar transform, each value about 1.

    A step of Adam is as long for all parameters, so the encoder divides by the block's size itself.

    Luma's and chroma's means come first, then luma's details in time, height and width, which are
    the wavelet codec's, then finer ones. Blocks are ordered as two foldings leave them.
    """
    colours = functional.normalize(torch.tensor(COLOURS), dim=1)
    order = [(0, 0, 0, 0), (1, 0, 0, 0), (2, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    finer = sorted(product(range(3), range(2), range(2), range(2)), key=lambda i: (sum(i[1:]), i))
    order += [index for index in finer if index not in order]
    axes = [haar(size) for size in config.stride]
    rows = []
    for colour, t, h, w in order[: config.channels]:
        block = torch.einsum("t,h,w,c->thwc", axes[0][t], axes[1][h], axes[2][w], colours[colour])
        patches = to_patches(block[None], config.patch)
        rows.append(to_patches(patches, config.fold).flatten())
    return torch.stack(rows) * math.sqrt(rows[0].numel())
