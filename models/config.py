"""Schema of the models room: plain dataclasses, no torch, so that planners import it quickly.

Every field carries its bounds and its sentence; whoever composes a config checks them (this room
only declares), so what ``check`` refuses is what no field says alone.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil, inf
from typing import Annotated

from annotated_types import Ge, Gt, Le, Len, Lt, MinLen, MultipleOf
from typing_extensions import Doc

Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0)]
Finite = Annotated[float, Gt(-inf), Lt(inf)]
HeadDim = Annotated[int, Ge(6), MultipleOf(2)]  # three axes get a rotary pair each

# Cells of one pass through the compression network: what it needs of memory (15 to 18 kB a cell,
# launch/planner/online.py) does not grow with the clip beyond them.
CODEC_CELLS = 8192
# Sinusoids of where a token lies in its frame, see models/dit/embed.py.
POSITION_FEATURES = 18


class CodecKind(StrEnum):
    """Which network or transform turns pixels into latents."""

    wavelet = "wavelet"
    vae = "vae"
    diffusers = "diffusers"
    pixels = "pixels"


class TextKind(StrEnum):
    """Which encoder turns captions into token states."""

    bytes = "bytes"
    minilm = "minilm"


@dataclass
class CodecConfig:
    """The map from pixels to latents.

    The first frame of a clip is coded alone, so a clip has 1 + k * stride[0] frames. Latents are
    (raw - mean) / scale: the scale is one number, so that the detail channels keep their natural
    size and the loss is that of pixels; a network that wants unit variance divides by ``spread``
    itself. All three are measured on the training split (``docs/log.md``).
    """

    kind: Annotated[CodecKind, Doc("Which network or transform codes.")] = CodecKind.wavelet
    stride: Annotated[
        list[Count],
        Len(3, 3),
        Doc("Source pixels of one latent value as (frames, height, width)."),
    ] = field(default_factory=lambda: [4, 8, 8])
    channels: Annotated[Count, Doc("Latent channels.")] = 6
    mean: Annotated[
        list[Finite], MinLen(1), Doc("Mean of each raw channel, which is subtracted.")
    ] = field(default_factory=lambda: [0.0] * 6)
    scale: Annotated[Positive, Doc("What raw channels less their mean are divided by.")] = 1.0
    spread: Annotated[
        list[Positive], MinLen(1), Doc("Standard deviation of each scaled channel.")
    ] = field(default_factory=lambda: [1.0] * 6)
    path: Annotated[
        str,
        Doc(
            "Folder of the network that codes, trained here (kind vae) or saved by diffusers, "
            "looked for here first and then in the models folder of this package; empty for the "
            "wavelet and for pixels."
        ),
    ] = ""
    digest: Annotated[
        str,
        Doc("SHA-256 of the network's weights and shape, filled in when a run is composed."),
    ] = ""

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
    """Shape of the video compression network (models/codec/vae.py)."""

    patch: Annotated[
        list[Count],
        Len(3, 3),
        Doc("Pixels of a position of the outer stage as (frames, height, width), powers of two."),
    ] = field(default_factory=lambda: [4, 4, 4])
    fold: Annotated[
        list[Count],
        Len(3, 3),
        Doc("Outer positions of one latent value, powers of two; patch times fold is the stride."),
    ] = field(default_factory=lambda: [1, 2, 2])
    channels: Annotated[int, Ge(1), Le(24), Doc("Latent channels.")] = 8
    encoder_widths: Annotated[
        list[Count], Len(2, 2), Doc("Channels of the encoder's (outer, inner) stage.")
    ] = field(default_factory=lambda: [48, 96])
    encoder_blocks: Annotated[
        list[Count], Len(2, 2), Doc("Blocks of the encoder's (outer, inner) stage.")
    ] = field(default_factory=lambda: [2, 2])
    decoder_widths: Annotated[
        list[Count], Len(2, 2), Doc("Channels of the decoder's (inner, outer) stage.")
    ] = field(default_factory=lambda: [128, 96])
    decoder_blocks: Annotated[
        list[Count], Len(2, 2), Doc("Blocks of the decoder's (inner, outer) stage.")
    ] = field(default_factory=lambda: [4, 3])
    expansion: Annotated[Count, Doc("Hidden size of a block over its width.")] = 2

    @property
    def stride(self) -> list[int]:
        """Source pixels of one latent value as (frames, height, width)."""
        return [p * f for p, f in zip(self.patch, self.fold, strict=True)]

    def check(self) -> None:
        """Raise ValueError on a shape that cannot be built."""
        for name in ("patch", "fold"):
            sizes = getattr(self, name)
            if any(s & (s - 1) for s in sizes):
                raise ValueError(
                    f"vae.{name}={sizes}: must be three powers of two. Use [4, 4, 4] and [1, 2, 2]."
                )


@dataclass
class PerceptualConfig:
    """Shape of the perceptual encoder (models/codec/perceptual.py)."""

    widths: Annotated[
        list[Count],
        MinLen(1),
        Doc("Channels of the stages, each of which halves height and width."),
    ] = field(default_factory=lambda: [16, 32, 64, 96])
    outputs: Annotated[
        list[str], Doc("What it was trained to say of a frame, in the order of its head.")
    ] = field(default_factory=list)


@dataclass
class TextConfig:
    """The caption encoder."""

    kind: Annotated[TextKind, Doc("Which encoder reads captions.")] = TextKind.minilm
    width: Annotated[Count, Doc("Size of one token state, 384 for MiniLM.")] = 384
    max_tokens: Annotated[Count, Doc("Captions are truncated to this many tokens.")] = 48
    path: Annotated[
        str,
        Doc("Local folder of weights; empty means the weights shipped by the installed package."),
    ] = ""


class AttentionKernel(StrEnum):
    """What computes attention (``models.kernels``).

    auto: the best that runs. loop: torch's, call by call, for any device and precision. varlen:
    torch's over whole packs (FA2), fa3: the same with the kernel of FA3. flash: of the flash-attn
    package. te: of Transformer Engine.
    """

    auto = "auto"
    loop = "loop"
    varlen = "varlen"
    fa3 = "fa3"
    flash = "flash"
    te = "te"


class NormKernel(StrEnum):
    """What norms rows before they are modulated: torch, or Transformer Engine."""

    torch = "torch"
    te = "te"


class Draws(StrEnum):
    """How initial weights are drawn: one stream through all parameters, or each by its name."""

    stream = "stream"
    named = "named"


@dataclass
class ModelConfig:
    """Shape of the network, by default the diffusion transformer."""

    width: Annotated[Count, Doc("Residual width D, a multiple of head_dim.")] = 64
    depth: Annotated[Count, Doc("Number of blocks.")] = 2
    head_dim: Annotated[
        HeadDim, Doc("Size of a head E, of which three axes get a rotary pair each.")
    ] = 16
    mlp_ratio: Annotated[Count, Doc("Hidden size of the MLP over D.")] = 4
    values_per_token: Annotated[
        int,
        Ge(4),
        MultipleOf(4),
        Doc(
            "Channels of the latent times the 1x2x2 patch; at most twice width, else the rank of "
            "the output layer limits the loss (docs/decisions/002)."
        ),
    ] = 24
    spread: Annotated[
        list[Positive],
        MinLen(1),
        Doc(
            "Standard deviation of each latent channel, for preconditioning "
            "(models/precondition.py)."
        ),
    ] = field(default_factory=lambda: [1.0] * 6)
    text_width: Annotated[Count, Doc("Size of a caption token state.")] = 384
    time_features: Annotated[
        int,
        Ge(2),
        MultipleOf(2),
        Doc("Sines and cosines that embed the timestep, and as many the frame rate."),
    ] = 64
    rope_theta: Annotated[float, Gt(1), Doc("Base of the rotary frequencies.")] = 100.0
    base_width: Annotated[
        Count,
        Doc("Width at which the learning rate is stated (muP roles scale it from here)."),
    ] = 64
    architecture: Annotated[
        str,
        Doc("A file of models/architectures, or one's own dotted module (KINESCALE_PLUGINS)."),
    ] = "dit"
    draws: Annotated[
        Draws,
        Doc(
            "Initial weights: one stream through all parameters, which every rank draws whole, or "
            "each by its name and place (named), of which a rank draws its own: other numbers of "
            "the same distribution, for models too large to draw whole."
        ),
    ] = Draws.stream
    options: Annotated[
        dict[str, Finite], Doc("Sizes that one architecture alone knows, as experts=8.")
    ] = field(default_factory=dict)

    @property
    def num_heads(self) -> int:
        """Number of attention heads."""
        return self.width // self.head_dim

    def check(self) -> None:
        """Raise ValueError on a shape that cannot be built or would fake a law."""
        if self.width % self.head_dim:
            raise ValueError(
                f"model.width={self.width}: must be a multiple of model.head_dim={self.head_dim}. "
                f"Use {self.width // self.head_dim * self.head_dim or self.head_dim}."
            )
        if len(self.spread) * 4 != self.values_per_token:
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
    """Shape of the captioner (models/captioner/model.py): a video encoder and a caption decoder."""

    width: Annotated[Count, Doc("Residual width D of both, a multiple of head_dim.")] = 128
    head_dim: Annotated[
        HeadDim, Doc("Size of a head E, of which three axes get a rotary pair each.")
    ] = 32
    encoder_depth: Annotated[Count, Doc("Blocks of the encoder.")] = 3
    decoder_depth: Annotated[Count, Doc("Blocks of the decoder.")] = 3
    mlp_ratio: Annotated[Count, Doc("Hidden size of the MLPs over D.")] = 4
    stem_width: Annotated[
        Count,
        Doc("Channels of the first convolution over pixels; the second has twice as many."),
    ] = 32
    feature_channels: Annotated[
        int,
        Ge(0),
        Doc(
            "0 reads pixels; else clips come as frozen features (latents of a codec, states of "
            "another network) of so many channels."
        ),
    ] = 0
    max_frames: Annotated[
        Count, Doc("Longer clips are read at so many frames, spread evenly over them.")
    ] = 33
    max_video_tokens: Annotated[
        int, Ge(16), Doc("Larger clips are scaled down, keeping their aspect ratio.")
    ] = 1024
    max_caption_tokens: Annotated[int, Ge(2), Doc("Tokens of the longest caption.")] = 128
    rope_theta: Annotated[float, Gt(1), Doc("Base of the rotary frequencies.")] = 100.0

    def check(self) -> None:
        """Raise ValueError on a shape that cannot be built."""
        if self.width % self.head_dim:
            raise ValueError(
                f"captioner.head_dim={self.head_dim}: must divide captioner.width={self.width}. "
                "Use 32 and a multiple of it."
            )
