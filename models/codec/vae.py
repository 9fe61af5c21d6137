"""The video compression network: a causal 3-D autoencoder for clips and images of any size.

A block of ``stride`` source pixels becomes ``channels`` latent values. Pixels enter as patches
under a fixed orthonormal Haar transform (as in Cosmos Tokenizer, arXiv 2501.03575), pass blocks at
the patches' resolution, and after a fold in space (and time) blocks at the latent's. A linear
low-pass path runs beside the network from block to latent and back; the network's last layers are
zero at first, so training starts at a wavelet codec and learns what that one misses.

Time is causal and norms look at one position only, so a clip can be coded in chunks (each layer
remembers its last frames) and in tiles with a halo as wide as the receptive field, with the same
result. The first frame stands alone: it is repeated to fill the first block in time, which makes an
image the start of a video. A convolution is depthwise in space, then depthwise and causal in time,
then pointwise (ConvNeXt, arXiv 2201.03545): dense 3-D kernels are ten times slower on a CPU.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.codec.patches import (
    from_patches,
    haar_patch,
    latent_sizes,
    low_pass,
    patch_sizes,
    to_patches,
)
from models.config import VaeConfig

TAPS = 3  # frames that one layer sees in time: its own and two before
# The posterior's first standard deviation is exp(-5) of a pixel's range from -1 to 1: 43 dB.
FIRST_LOG_VARIANCE = -10.0
LOG_VARIANCE_RANGE = (-16.0, 2.0)
Memory = list[Tensor]


class Block(nn.Module):
    """A residual block at one resolution; see the module's docstring."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.space = nn.Parameter(torch.empty(width, 1, 3, 3))
        self.time = nn.Parameter(torch.empty(TAPS, width))
        self.gain = nn.Parameter(torch.empty(width))
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)

    def forward(
        self, x: Float[Tensor, "B F H W D"], past: Float[Tensor, "B T H W D"] | None
    ) -> tuple[Float[Tensor, "B F H W D"], Float[Tensor, "B T H W D"]]:
        """Return the output and what the next chunk must be given as ``past``."""
        b, f, h, w, d = x.shape
        planes = x.reshape(b * f, h, w, d).permute(0, 3, 1, 2)  # channels last
        planes = functional.conv2d(planes, self.space, padding=1, groups=d)
        y = planes.permute(0, 2, 3, 1).reshape(b, f, h, w, d)
        if past is None:
            past = y.new_zeros(b, TAPS - 1, h, w, d)
        joined = torch.cat([past, y], dim=1)  # (B, T + F, H, W, D)
        y = y * self.time[0]
        for tap in range(1, TAPS):
            y = y + joined[:, TAPS - 1 - tap : -tap] * self.time[tap]
        # A view would keep all frames of every block alive, where no graph does so anyway.
        past = joined[:, f:].detach() if torch.is_grad_enabled() else joined[:, f:].clone()
        del joined, planes
        y = functional.rms_norm(y, (d,), self.gain, 1e-6)
        y = self.down(functional.silu(self.up(y)))
        return x + y, past

    def reset_parameters(self, generator: torch.Generator, depth: int) -> None:
        """Draw initial values; ``depth`` blocks together keep the size of their input."""
        with torch.no_grad():
            self.space.normal_(0.0, 1 / 9, generator=generator)
            self.space[:, :, 1, 1] += 1.0
            self.time.zero_()
            self.time[0] = 1.0
            self.gain.fill_(1.0)
        _reset(self.up, 1.0, generator)
        _reset(self.down, 1.0 / math.sqrt(depth), generator)


class Encoder(nn.Module):
    """Pixels in [-1, 1] to mean and log variance of the latent."""

    haar: Tensor
    sizes: Tensor

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        outer, inner = config.encoder_widths
        sizes = patch_sizes(config.patch)
        self.register_buffer("haar", haar_patch(config.patch) / sizes[:, None], persistent=False)
        self.register_buffer("sizes", latent_sizes(config.channels), persistent=False)
        self.patch = nn.Linear(len(sizes), outer)
        self.outer = _blocks(outer, config.encoder_blocks[0], config.expansion)
        self.fold = nn.Linear(outer * math.prod(config.fold), inner)
        self.inner = _blocks(inner, config.encoder_blocks[1], config.expansion)
        self.gain = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, 2 * config.channels)
        self.low_pass = nn.Parameter(low_pass(config))  # (C, block)

    def forward(
        self, pixels: Float[Tensor, "B F H W 3"], memory: Memory | None = None
    ) -> tuple[Float[Tensor, "B C f h w"], Float[Tensor, "B C f h w"], Memory]:
        """Return mean, log variance, and the memory for the next chunk.

        ``F`` is a multiple of the stride: the caller repeats a clip's first frame.
        """
        patches = to_patches(pixels, self.config.patch)  # (B, f, h, w, P)
        # One product instead of two: the transform is folded into the layer's weight.
        x = functional.linear(patches, self.patch.weight @ self.haar, self.patch.bias)
        x, remembered = _run(self.outer, x, memory, 0)
        x = self.fold(to_patches(x, self.config.fold))
        x, more = _run(self.inner, x, memory, len(self.outer))
        x = self.out(functional.rms_norm(x, (x.shape[-1],), self.gain, 1e-6))
        mean, log_variance = x.chunk(2, dim=-1)
        block = to_patches(patches, self.config.fold)
        mean = self.sizes * mean + block @ self.low_pass.T / block.shape[-1]
        log_variance = (log_variance + FIRST_LOG_VARIANCE).clamp(*LOG_VARIANCE_RANGE)
        return channels_first(mean), channels_first(log_variance), remembered + more


class Decoder(nn.Module):
    """Latents to pixels in about [-1, 1]."""

    haar: Tensor
    sizes: Tensor

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        inner, outer = config.decoder_widths
        sizes = patch_sizes(config.patch)
        sizes[0] = sizes[1:].max()  # what the low-pass path leaves of the mean is a detail
        self.register_buffer("haar", haar_patch(config.patch) * sizes[:, None], persistent=False)
        self.register_buffer("sizes", latent_sizes(config.channels), persistent=False)
        self.latent = nn.Linear(config.channels, inner)
        self.inner = _blocks(inner, config.decoder_blocks[0], config.expansion)
        self.unfold = nn.Linear(inner, outer * math.prod(config.fold))
        self.outer = _blocks(outer, config.decoder_blocks[1], config.expansion)
        self.gain = nn.Parameter(torch.ones(outer))
        self.out = nn.Linear(outer, len(sizes))
        self.low_pass = nn.Parameter(low_pass(config))  # (C, block)

    def forward(
        self, latent: Float[Tensor, "B C f h w"], memory: Memory | None = None
    ) -> tuple[Float[Tensor, "B F H W 3"], Memory]:
        """Return pixels, of the first latent frame all copies too, and the next chunk's memory."""
        z = channels_last(latent)
        x, remembered = _run(self.inner, self.latent(z / self.sizes), memory, 0)
        x = from_patches(self.unfold(x), self.config.fold)
        x, more = _run(self.outer, x, memory, len(self.inner))
        x = functional.rms_norm(x, (x.shape[-1],), self.gain, 1e-6)
        # The inverse of an orthonormal transform is its transpose.
        x = functional.linear(x, self.haar.T @ self.out.weight, self.out.bias @ self.haar)
        x = x + from_patches(z @ self.low_pass, self.config.fold)
        return from_patches(x, self.config.patch), remembered + more


class Vae(nn.Module):
    """Encoder and decoder; see the module's docstring."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw initial values: the linear path is a wavelet codec, the rest adds nothing yet."""
        for part in (self.encoder, self.decoder):
            for layer in part.children():
                if isinstance(layer, nn.Linear):
                    _reset(layer, 1.0, generator)
            blocks = [*part.inner, *part.outer]
            for block in blocks:
                block.reset_parameters(generator, len(blocks))
            nn.init.zeros_(part.out.weight)

    def set_low_pass(self, rows: Float[Tensor, "C block"]) -> None:
        """Start the linear path from orthonormal rows of a block, ordered as foldings leave it."""
        with torch.no_grad():
            for part in (self.encoder, self.decoder):
                part.low_pass.copy_(rows * math.sqrt(rows.shape[1]))

    def posterior(
        self, pixels: Float[Tensor, "B F H W 3"]
    ) -> tuple[Float[Tensor, "B C f h w"], Float[Tensor, "B C f h w"]]:
        """Return mean and log variance of whole clips of 1 + k * stride frames, sizes padded."""
        mean, log_variance, _ = self.encoder(lead_in(pixels, self.config.stride[0]))
        return mean, log_variance

    def decode(self, latent: Float[Tensor, "B C f h w"]) -> Float[Tensor, "B F H W 3"]:
        """Return the pixels of whole clips."""
        pixels, _ = self.decoder(latent)
        return pixels[:, self.config.stride[0] - 1 :]


@dataclass(frozen=True)
class Reach:
    """How many latent cells around its own a cell depends on, in space."""

    encoder: int
    decoder: int


def reach(config: VaeConfig) -> Reach:
    """Return the receptive fields' radii: every block reaches one position further."""
    fold = min(config.fold[1:])
    inner, outer = config.encoder_blocks[1], config.encoder_blocks[0]
    encoder = inner + math.ceil(outer / fold)
    decoder = config.decoder_blocks[0] + math.ceil(config.decoder_blocks[1] / fold)
    return Reach(encoder, decoder)


def lead_in(frames: Tensor, stride: int) -> Tensor:
    """Repeat the first frame of clips (B, F, ...) so that it fills a block in time."""
    return torch.cat([frames[:, :1].expand(-1, stride - 1, *frames.shape[2:]), frames], dim=1)


def channels_first(x: Float[Tensor, "B f h w C"]) -> Float[Tensor, "B C f h w"]:
    """Move channels from last to second."""
    return x.permute(0, 4, 1, 2, 3)


def channels_last(x: Float[Tensor, "B C f h w"]) -> Float[Tensor, "B f h w C"]:
    """Move channels from second to last."""
    return x.permute(0, 2, 3, 4, 1)


def _blocks(width: int, count: int, expansion: int) -> nn.ModuleList:
    return nn.ModuleList(Block(width, expansion) for _ in range(count))


def _run(
    blocks: nn.ModuleList, x: Tensor, memory: Memory | None, start: int
) -> tuple[Tensor, Memory]:
    """Run blocks; block ``i`` reads entry ``start + i`` of the memory."""
    remembered = []
    for i, block in enumerate(blocks):
        x, past = block(x, memory[start + i] if memory is not None else None)
        remembered.append(past)
    return x, remembered


def _reset(layer: nn.Linear, gain: float, generator: torch.Generator) -> None:
    with torch.no_grad():
        layer.weight.normal_(0.0, gain / math.sqrt(layer.in_features), generator=generator)
        layer.bias.zero_()
