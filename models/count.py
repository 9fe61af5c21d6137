"""Closed-form parameters and FLOPs of a network, from its specification; no torch.

Conventions: a multiply-add is 2 FLOPs; only matrix products and attention count (as in torch's
flop counter); the backward pass costs twice the forward; recomputation is never included.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from models.architecture import Reads, specification_of
from models.config import ModelConfig

BACKWARD_FACTOR = 3  # forward + backward = 3 forwards (Kaplan et al. 2020, section 2.1)


@dataclass(frozen=True)
class ParamCount:
    """Trainable parameters by part, as the architecture names its parts."""

    parts: dict[str, int]

    @property
    def total(self) -> int:
        """All trainable parameters."""
        return sum(self.parts.values())


def count_params(model: ModelConfig) -> ParamCount:
    """Count the trainable parameters of a network exactly."""
    facts = specification_of(model)
    parts: dict[str, int] = {}
    for times, weights in ((1, facts.before), (facts.depth, facts.block.weights), (1, facts.after)):
        for weight in weights:
            parts[weight.part] = parts.get(weight.part, 0) + times * weight.size
    return ParamCount(parts)


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
    spans: int | None = None,
) -> FlopCount:
    """Count the FLOPs of one pass over segments with their captions.

    segment_tokens: video tokens of each segment; attention costs the sum of their squares.
    caption_tokens: caption tokens of each segment, as the network sees them.
    backward: include the backward pass.
    spans: conditions of all segments together, one a segment where it is not given.
    """
    segments, captions = list(segment_tokens), list(caption_tokens)
    if len(segments) != len(captions):
        raise ValueError(
            f"caption_tokens has {len(captions)} entries: must have one per segment, "
            f"{len(segments)}. Use the length of the null caption where there is none."
        )
    facts, factor = specification_of(model), BACKWARD_FACTOR if backward else 1
    conditions = len(segments) if spans is None else spans
    conditioning = conditions * facts.products[Reads.spans]
    conditioning += sum(captions) * facts.products[Reads.captions]
    squares = sum(s * s for s in segments)
    cross = sum(s * c for s, c in zip(segments, captions, strict=True))
    return FlopCount(
        linear=factor * 2 * sum(segments) * facts.products[Reads.rows],
        self_attention=factor * 4 * squares * facts.attended[Reads.rows],
        cross_attention=factor * 4 * cross * facts.attended[Reads.captions],
        conditioning=factor * 2 * conditioning,
    )
