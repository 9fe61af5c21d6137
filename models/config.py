"""Schema of the models room: plain dataclasses, no torch, so that planners import it quickly."""

from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil


class CodecKind(StrEnum):
    """Which network or transform turns pixels into latents."""

    wavelet = "wavelet"


class TextKind(StrEnum):
    """Which encoder turns captions into token states."""

    bytes = "bytes"
    minilm = "minilm"


@dataclass
class CodecConfig:
    """The map from pixels to latents.

    stride: source pixels of one latent value as (frames, height, width); the first frame of a clip
        is coded alone, so a clip has 1 + k * stride[0] frames.
    channels: latent channels.
    mean, scale: latents are (raw - mean) / scale. The scale is one number, so that the detail
        channels keep their natural size and the loss is that of pixels; a network that wants unit
        variance divides by ``spread`` itself.
    spread: standard deviation of each scaled channel. All three are measured on the training split
        (``docs/log.md``).
    """

    kind: CodecKind = CodecKind.wavelet
    stride: list[int] = field(default_factory=lambda: [4, 8, 8])
    channels: int = 6
    mean: list[float] = field(default_factory=lambda: [0.0] * 6)
    scale: float = 1.0
    spread: list[float] = field(default_factory=lambda: [1.0] * 6)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the latent size (F, H, W), H and W even: padded to whole 1x2x2 patches."""
        if (num_frames - 1) % self.stride[0]:
            raise ValueError(
                f"num_frames={num_frames}: must be 1 + k * {self.stride[0]}. "
                f"Cut the clip to {1 + (num_frames - 1) // self.stride[0] * self.stride[0]} frames."
            )
        rows = ceil(height / (2 * self.stride[1])) * 2
        columns = ceil(width / (2 * self.stride[2])) * 2
        return 1 + (num_frames - 1) // self.stride[0], rows, columns


@dataclass
class TextConfig:
    """The caption encoder.

    width: size of one token state; 384 for MiniLM.
    max_tokens: captions are truncated to this many tokens.
    path: local folder of weights; empty means the weights shipped by the installed package.
    """

    kind: TextKind = TextKind.minilm
    width: int = 384
    max_tokens: int = 48
    path: str = ""


@dataclass
class ModelConfig:
    """Shape of the diffusion transformer.

    width, depth, head_dim: residual width D, number of blocks, size of a head E.
    mlp_ratio: hidden size of the MLP over D.
    values_per_token: channels of the latent times the 1x2x2 patch; at most twice ``width``, else
        the rank of the output layer limits the loss (docs/decisions/002).
    spread: standard deviation of each latent channel, for preconditioning (models/precondition.py).
    text_width: size of a caption token state.
    time_features: sinusoids that embed the timestep, and as many the frame rate.
    rope_theta: base of the rotary frequencies.
    base_width: width at which the learning rate is stated (muP roles scale it from here).
    """

    width: int = 64
    depth: int = 2
    head_dim: int = 16
    mlp_ratio: int = 4
    values_per_token: int = 24
    spread: list[float] = field(default_factory=lambda: [1.0] * 6)
    text_width: int = 384
    time_features: int = 64
    rope_theta: float = 100.0
    base_width: int = 64

    @property
    def num_heads(self) -> int:
        """Number of attention heads."""
        return self.width // self.head_dim

    def check(self) -> None:
        """Raise ValueError on a shape that cannot be built or would fake a law."""
        if self.head_dim % 2 or self.head_dim < 6:
            raise ValueError(
                f"model.head_dim={self.head_dim}: must be even and at least 6 so that three axes "
                "get a rotary pair each. Use 16, 64 or 128."
            )
        if self.width % self.head_dim:
            raise ValueError(
                f"model.width={self.width}: must be a multiple of model.head_dim={self.head_dim}. "
                f"Use {self.width // self.head_dim * self.head_dim or self.head_dim}."
            )
        if self.depth < 1:
            raise ValueError(f"model.depth={self.depth}: must be at least 1. Use 2 or more.")
        if len(self.spread) * 4 != self.values_per_token or min(self.spread) <= 0:
            raise ValueError(
                f"model.spread={self.spread}: must hold values_per_token / 4 = "
                f"{self.values_per_token // 4} positive numbers. Use the codec's."
            )
        if self.values_per_token > 2 * self.width:
            raise ValueError(
                f"model.width={self.width}: must be at least half of model.values_per_token="
                f"{self.values_per_token}, else the rank of the output layer limits the loss. "
                "Use a wider model or a codec with fewer channels."
            )

    def rope_pairs(self) -> tuple[int, int, int]:
        """Return the rotary pairs of the (frame, height, width) axes; they sum to E / 2."""
        pairs = self.head_dim // 2
        spatial = min(ceil(pairs / 3), (pairs - 1) // 2)  # at least one pair is left for time
        return pairs - 2 * spatial, spatial, spatial
