"""The flat buffer a network sees: many clips and images of any size, side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.spans import SpanTable, join_spans


@dataclass(frozen=True)
class Ragged:
    """Where the segments of a flat buffer lie.

    lengths: rows of each segment, as numbers for loops over segments.
    offsets: their running sum (M + 1,), int32, on the device of the buffer for kernels.
    lone: segments at the end that attend to one caption token each, see ``TokenPack.lone``.
    total, longest: rows of all segments, what lies beyond is padding, and of the longest; numbers
    of their own, since a compiler that reads the list makes code for these lengths alone.
    """

    lengths: list[int]
    offsets: Int[Tensor, " M+1"]
    lone: int = 0
    total: int = field(init=False)
    longest: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", sum(self.lengths))
        object.__setattr__(self, "longest", max(self.lengths, default=0))

    @classmethod
    def of(cls, lengths: list[int], device: torch.device, lone: int = 0) -> "Ragged":
        """Lay segments of the given lengths side by side."""
        sums = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return cls(lengths, sums.to(device), lone)

    @cached_property
    def others(self) -> "Ragged":
        """The segments before the lone ones."""
        kept = len(self.lengths) - self.lone
        return Ragged(self.lengths[:kept], self.offsets[: kept + 1])

    @cached_property
    def lone_rows(self) -> Int[Tensor, " R"]:
        """The lone segment, from 0, of each row behind those of the others."""
        lengths = torch.tensor(self.lengths[len(self.lengths) - self.lone :])
        return torch.arange(self.lone).repeat_interleave(lengths).to(self.offsets.device)


@dataclass(frozen=True)
class Twins:
    """Segments at the end that are earlier ones once more, but for their captions.

    first: the segments before them. rows: which row each row behind those repeats.
    """

    first: Ragged
    rows: Int[Tensor, " R"]

    @classmethod
    def of(cls, lengths: list[int], twins: Sequence[int], device: torch.device) -> "Twins":
        """Return twins by the segments that they repeat."""
        first = lengths[: len(lengths) - len(twins)]
        starts = [0, *accumulate(first)]
        rows = [torch.arange(starts[n], starts[n + 1]) for n in twins]
        return cls(Ragged.of(first, device), torch.cat(rows).to(device))


@dataclass
class TokenPack:
    """Tokens of M segments in one buffer of S rows; rows beyond ``sum(lengths)`` are padding.

    latent: clean data x_1, patchified (S, V).
    valid: values that carry loss (S, V); False on padding and on edge padding.
    positions: integer (frame, row, column) of each token (S, 3).
    place: sinusoids of the relative position (S, P), see ``models.dit.embed.position_features``.
    segment: segment index of each row (S,); padding rows carry the last segment's.
    lengths: tokens of each segment; their sum is at most S.
    fps: frames per second of each segment (M,); 0 for images.
    caption: caption token states of all segments (K, text width); rows beyond
        ``sum(caption_lengths)`` are padding.
    caption_lengths: caption tokens of each segment; 0 means "no caption".
    first_row: where in the whole pack the rows of these tensors begin.
    spans: which rows share a time (``models.spans``); None where each segment has one. ``latent``
        holds what is given, and nothing of it is ``valid``.
    lone: segments at the end that are known to have one caption token or none, for a network that
        saves their attention to it; a sampler says so of what guides away, in packs without
        padding. 0 says nothing.
    twins: which segments the last ones repeat in all but their captions, so that a network may see
        both as one until it reads those. Said by a sampler, as ``lone``.
    periods: latent frames after which each row's clip begins again, 0 where it does not; None
        where none does. For loops that are drawn.

    A rank that holds a part of the rows has its rows in every tensor but ``positions`` and
    ``periods``, which cover the rows its projections see (trainer/parallel/rows.py); lengths always
    count the whole pack.
    """

    latent: Float[Tensor, "S V"]
    valid: Bool[Tensor, "S V"]
    positions: Int[Tensor, "S 3"]
    place: Float[Tensor, "S P"]
    segment: Int[Tensor, " S"]
    lengths: list[int]
    fps: Float[Tensor, " M"]
    caption: Float[Tensor, "K D"]
    caption_lengths: list[int]
    first_row: int = 0
    spans: SpanTable | None = None
    lone: int = 0
    twins: tuple[int, ...] = ()
    periods: Int[Tensor, " S"] | None = None

    @property
    def span(self) -> Int[Tensor, " S"]:
        """The span of each row: its segment where each has one."""
        return self.segment if self.spans is None else self.spans.rows

    @property
    def runs(self) -> tuple[list[int], list[int]]:
        """Spans and lengths of neighbouring rows that share one, in order, of the whole pack."""
        if self.spans is None:
            return list(range(len(self.lengths))), self.lengths
        return self.spans.runs, self.spans.lengths

    @property
    def num_spans(self) -> int:
        """T, the number of times that the pack is seen at."""
        return len(self.lengths) if self.spans is None else len(self.spans.segments)

    def of_spans(self, values: Float[Tensor, "M *rest"]) -> Float[Tensor, "T *rest"]:
        """Return what segments have, for each of their spans."""
        return values if self.spans is None else values.index_select(0, self.spans.segments)

    def times(self, t: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
        """Return times of spans, with those of given ones at 1."""
        return t if self.spans is None else self.spans.times(t)

    @property
    def caption_rows(self) -> int:
        """Caption rows that a network projects: states, one for no caption, and padding."""
        return len(self.caption) + self.caption_lengths.count(0)

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding."""
        return sum(self.lengths)

    def to(self, device: torch.device) -> "TokenPack":
        """Return the pack with its tensors on ``device``."""
        return self._each(lambda tensor: tensor.to(device))

    def clone(self) -> "TokenPack":
        """Return a copy whose tensors share no memory with anything."""
        return self._each(torch.clone)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "TokenPack":
        tensors = ((k, v) for k, v in vars(self).items() if isinstance(v, Tensor))
        changed: dict[str, Any] = {name: change(tensor) for name, tensor in tensors}
        if self.spans is not None:
            changed["spans"] = self.spans.each(change)
        return replace(self, **changed)


def join(packs: Sequence[TokenPack]) -> TokenPack:
    """Lay packs without padding side by side as one."""
    lengths = [length for pack in packs for length in pack.lengths]
    device = packs[0].latent.device
    counts = torch.tensor(lengths, device=device)
    return TokenPack(
        latent=torch.cat([pack.latent for pack in packs]),
        valid=torch.cat([pack.valid for pack in packs]),
        positions=torch.cat([pack.positions for pack in packs]),
        place=torch.cat([pack.place for pack in packs]),
        segment=torch.repeat_interleave(torch.arange(len(lengths), device=device), counts),
        lengths=lengths,
        fps=torch.cat([pack.fps for pack in packs]),
        caption=torch.cat([pack.caption[: sum(pack.caption_lengths)] for pack in packs]),
        caption_lengths=[length for pack in packs for length in pack.caption_lengths],
        spans=join_spans([(pack.spans, pack.lengths) for pack in packs]),
        periods=_join_periods(packs),
    )


def _join_periods(packs: Sequence[TokenPack]) -> Int[Tensor, " S"] | None:
    if all(pack.periods is None for pack in packs):
        return None
    return torch.cat(
        [torch.zeros_like(p.segment) if p.periods is None else p.periods for p in packs]
    )
