"""Schema of the models room: plain dataclasses, no torch, so that planners import it quickly."""

from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil

# Cells of one pass through the compression network: what it needs of memory (15 to 18 kB a cell,
# launch/planner/online.py) does not grow with the clip beyond them.
CODEC_CELLS = 8192


class CodecKind(StrEnum):
    """Which network or transform turns pixels into latents."""

    wavelet = "wavelet"
    vae = "vae"
    diffusers = "diffusers"


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
    path: folder of the network that codes: ``codec.json`` and ``weights.safetensors`` of a trained
        network (kind ``vae``), or what ``diffusers`` saves (kind ``diffusers``). A relative one is
        looked for here first, then in the ``models`` folder of this package. Empty for the wavelet.
    digest: SHA-256 of the network's weights and shape, filled in when a run is composed.
    """

    kind: CodecKind = CodecKind.wavelet
    stride: list[int] = field(default_factory=lambda: [4, 8, 8])
    channels: int = 6
    mean: list[float] = field(default_factory=lambda: [0.0] * 6)
    scale: float = 1.0
    spread: list[float] = field(default_factory=lambda: [1.0] * 6)
    path: str = ""
    digest: str = ""

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
class VaeConfig:
    """Shape of the video compression network (models/codec/vae.py).

    patch: pixels of a position of the outer stage as (frames, height, width), powers of two.
    fold: outer positions of one latent value; patch times fold is the stride.
    channels: latent channels.
    encoder_widths, encoder_blocks: of the (outer, inner) stage; the decoder's are (inner, outer).
    expansion: hidden size of a block over its width.
    """

    patch: list[int] = field(default_factory=lambda: [4, 4, 4])
    fold: list[int] = field(default_factory=lambda: [1, 2, 2])
    channels: int = 8
    encoder_widths: list[int] = field(default_factory=lambda: [48, 96])
    encoder_blocks: list[int] = field(default_factory=lambda: [2, 2])
    decoder_widths: list[int] = field(default_factory=lambda: [128, 96])
    decoder_blocks: list[int] = field(default_factory=lambda: [4, 3])
    expansion: int = 2

    @property
    def stride(self) -> list[int]:
        """Source pixels of one latent value as (frames, height, width)."""
        return [p * f for p, f in zip(self.patch, self.fold, strict=True)]

    def check(self) -> None:
        """Raise ValueError on a shape that cannot be built."""
        for name in ("patch", "fold"):
            sizes = getattr(self, name)
            if len(sizes) != 3 or any(s < 1 or s & (s - 1) for s in sizes):
                raise ValueError(
                    f"vae.{name}={sizes}: must be three powers of two. Use [4, 4, 4] and [1, 2, 2]."
                )
        for name in ("encoder_widths", "encoder_blocks", "decoder_widths", "decoder_blocks"):
            sizes = getattr(self, name)
            if len(sizes) != 2 or min(sizes) < 1:
                raise ValueError(f"vae.{name}={sizes}: must be two positive numbers. Use [64, 96].")
        if not 1 <= self.channels <= 24:
            raise ValueError(f"vae.channels={self.channels}: must lie in 1..24. Use 8 or 16.")
        if self.expansion < 1:
            raise ValueError(f"vae.expansion={self.expansion}: must be at least 1. Use 2.")


@dataclass
class PerceptualConfig:
    """Shape of the perceptual encoder (models/codec/perceptual.py).

    widths: channels of the stages, each of which halves height and width.
    outputs: what it was trained to say of a frame, in the order of its head.
    """

    widths: list[int] = field(default_factory=lambda: [16, 32, 64, 96])
    outputs: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raise ValueError on a shape that cannot be built."""
        if not self.widths or min(self.widths) < 1:
            raise ValueError(
                f"perceptual.widths={self.widths}: must be positive numbers. Use [16, 32, 64]."
            )


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
    spread: standard deviation of each latent channel, see models/dit/precondition.py.
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


@dataclass
class CaptionerConfig:
    """Shape of the captioner (models/captioner/model.py): a video encoder and a caption decoder.

    width, head_dim: residual width D of both, size of a head E.
    encoder_depth, decoder_depth: blocks of each.
    mlp_ratio: hidden size of the MLPs over D.
    stem_width: channels of the first convolution over pixels; the second has twice as many.
    feature_channels: 0 reads pixels; else clips come as frozen features (latents of a codec, states
        of another network) of so many channels.
    max_frames: longer clips are read at so many frames, spread evenly over them.
    max_video_tokens: larger clips are scaled down, keeping their aspect ratio.
    max_caption_tokens: longest caption.
    rope_theta: base of the rotary frequencies.
    """

    width: int = 128
    head_dim: int = 32
    encoder_depth: int = 3
    decoder_depth: int = 3
    mlp_ratio: int = 4
    stem_width: int = 32
    feature_channels: int = 0
    max_frames: int = 33
    max_video_tokens: int = 1024
    max_caption_tokens: int = 128
    rope_theta: float = 100.0

    def check(self) -> None:
        """Raise ValueError on a shape that cannot be built."""
        if self.head_dim % 2 or self.head_dim < 6 or self.width % self.head_dim:
            raise ValueError(
                f"captioner.head_dim={self.head_dim}: must be even, at least 6 and divide "
                f"captioner.width={self.width}. Use 32."
            )
        least = {
            "encoder_depth": 1,
            "decoder_depth": 1,
            "mlp_ratio": 1,
            "stem_width": 1,
            "feature_channels": 0,
            "max_frames": 1,
            "max_video_tokens": 16,
            "max_caption_tokens": 2,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if value < low:
                raise ValueError(
                    f"captioner.{name}={value}: must be at least {low}. "
                    f"Use {getattr(CaptionerConfig(), name)}."
                )
