"""Closed-form parameters and FLOPs of the DiT; no torch, tested against it for every rung.

Conventions: a multiply-add is 2 FLOPs; only matrix products and attention count (as in torch's
flop counter); the backward pass costs twice the forward; recomputation is never included.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from models.config import ModelConfig

# Sinusoids of the normalised position of a token, see models/dit/embed.py.
POSITION_FEATURES = 18
BACKWARD_FACTOR = 3  # forward + backward = 3 forwards (Kaplan et al. 2020, section 2.1)


@dataclass(frozen=True)
class ParamCount:
    """Trainable parameters by part."""

    embedding: int
    conditioning: int
    modulation: int
    self_attention: int
    cross_attention: int
    mlp: int
    head: int

    @property
    def total(self) -> int:
        """All trainable parameters."""
        return sum(asdict(self).values())

    @property
    def per_token(self) -> int:
        """Parameters of matrices that every video token is multiplied with."""
        return self.embedding + self.self_attention + self.cross_attention // 2 + self.mlp


def count_params(model: ModelConfig) -> ParamCount:
    """Count the trainable parameters of ``models.dit.model.DiT`` exactly."""
    D, V, T, L = model.width, model.values_per_token, model.time_features, model.depth
    hidden = model.mlp_ratio * D
    return ParamCount(
        embedding=V * D + D + POSITION_FEATURES * D,
        conditioning=(2 * T * D + D) + (D * D + D) + (model.text_width * D + D) + model.text_width,
        modulation=(D * 6 * D + 6 * D) + L * 6 * D + (D * 2 * D + 2 * D),
        self_attention=L * (4 * D * D + model.num_heads),
        cross_attention=L * (4 * D * D + D + model.num_heads),
        mlp=L * (2 * D * hidden + hidden + D),
        head=D * V + V,
    )


@dataclass(frozen=True)
class FlopCount:
    """FLOPs of one forward and backward pass by part."""

    linear: int
    self_attention: int
    cross_attention: int
    conditioning: int

    @property
    def total(self) -> int:
        """All FLOPs."""
        return self.linear + self.self_attention + self.cross_attention + self.conditioning


def count_flops(
    model: ModelConfig,
    segment_tokens: Iterable[int],
    caption_tokens: Iterable[int],
    backward: bool = True,
) -> FlopCount:
    """Count the FLOPs of one pass over segments with their captions.

    segment_tokens: video tokens of each segment; attention costs the sum of their squares.
    caption_tokens: caption tokens of each segment, as the network sees them.
    backward: include the backward pass.
    """
    segments, captions = list(segment_tokens), list(caption_tokens)
    if len(segments) != len(captions):
        raise ValueError(
            f"caption_tokens has {len(captions)} entries: must have one per segment, "
            f"{len(segments)}. Use the length of the null caption where there is none."
        )
    D, V, L = model.width, model.values_per_token, model.depth
    hidden = model.mlp_ratio * D
    tokens, text = sum(segments), sum(captions)
    per_token = (V + POSITION_FEATURES) * D + L * (4 * D * D + 2 * D * D + 2 * D * hidden) + D * V
    squares = sum(s * s for s in segments)
    cross = sum(s * c for s, c in zip(segments, captions, strict=True))
    conditioning = len(segments) * (2 * model.time_features * D + D * D + 6 * D * D + 2 * D * D)
    conditioning += text * (model.text_width * D + L * 2 * D * D)
    factor = BACKWARD_FACTOR if backward else 1
    return FlopCount(
        linear=factor * 2 * tokens * per_token,
        self_attention=factor * 4 * squares * D * L,
        cross_attention=factor * 4 * cross * D * L,
        conditioning=factor * 2 * conditioning,
    )
