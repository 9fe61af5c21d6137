"""Which tokens of a segment share a time: a segment is a list of spans.

A span is any set of a segment's tokens: a frame, several, a box, all of them. Spans that are given
stand clean at t = 1 and carry no loss, the others are what is to be learned or made. Pure
arithmetic on a latent's size, for training, validation and sampling alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.tasks import Given, Size

GIVEN_TIME = 1.0  # where given spans stand: data


@dataclass(frozen=True)
class SegmentSpans:
    """The spans of one segment.

    rows: the span of each token (S,), counted from 0, in the order of ``embed.patchify``.
    given: whether a span is given clean, one entry a span; the first never is.
    """

    rows: Int[Tensor, " S"]
    given: tuple[bool, ...]

    @property
    def given_rows(self) -> Bool[Tensor, " S"]:
        """Which tokens are given."""
        return torch.tensor(self.given)[self.rows]


def whole(tokens: int) -> SegmentSpans:
    """Return one span of all tokens: text to video."""
    return SegmentSpans(torch.zeros(tokens, dtype=torch.long), (False,))


def given_tokens(mask: Bool[Tensor, "f h w"]) -> SegmentSpans:
    """Return two spans: tokens to make, and those that a mask over the grid of tokens gives.

    mask: True where a token is given, over (latent frames, rows, columns) of tokens. A mask of
    nothing is :func:`whole`. Raises ValueError where nothing is left to make.
    """
    if mask.all():
        raise ValueError(f"mask={tuple(mask.shape)}: gives every token. Leave one to make.")
    return SegmentSpans(mask.flatten().long(), (False, True) if mask.any() else (False,))


def given_frames(size: Size, frames: Sequence[int]) -> SegmentSpans:
    """Return two spans: latent frames to make and latent frames that are given.

    size: of the latent (f, h, w). frames: numbers of those given; -1 is the last. Raises ValueError
    on a frame that is not there, and where all are given.
    """
    return given_tokens(frame_mask(size, frames))


def frame_mask(size: Size, frames: Sequence[int]) -> Bool[Tensor, "f h w"]:
    """Return the mask over the grid of tokens that is True on whole latent frames."""
    f, h, w = size
    for frame in frames:
        if not -f <= frame < f:
            raise ValueError(f"frames={frame}: a clip of {f} latent frames has none such.")
    mask = torch.zeros(f, h // 2, w // 2, dtype=torch.bool)
    mask[list(frames)] = True
    return mask


def own_times(size: Size) -> SegmentSpans:
    """Return a span for each latent frame: diffusion forcing (Chen et al. 2024)."""
    f, h, w = size
    return SegmentSpans(torch.arange(f).repeat_interleave((h // 2) * (w // 2)), (False,) * f)


def spans_of(given: Given, size: Size) -> SegmentSpans:
    """Return the spans of a segment of which something is given, see ``models.tasks``."""
    if given.forced:
        return own_times(size)
    if given.outside is None:
        return given_frames(size, given.frames)
    mask = frame_mask(size, ())
    box = given.outside
    mask[slice(*box.frames), slice(*box.rows), slice(*box.columns)] = True
    return given_tokens(~mask)


@dataclass(frozen=True)
class SpanTable:
    """The T spans of a pack.

    rows: the span of each row held (S,). segments: the segment of each span (T,), rising.
    given: whether a span is given (T,). runs, lengths: the span and the number of neighbouring rows
    that share one, in order, over the whole pack and without padding.
    """

    rows: Int[Tensor, " S"]
    segments: Int[Tensor, " T"]
    given: Bool[Tensor, " T"]
    runs: list[int]
    lengths: list[int]

    def each(self, change: Callable[[Tensor], Tensor]) -> "SpanTable":
        """Return the table with its tensors changed."""
        return replace(
            self, rows=change(self.rows), segments=change(self.segments), given=change(self.given)
        )

    def held(self, rows: slice) -> "SpanTable":
        """Return the table of a part of the rows; runs always cover the whole pack."""
        return replace(self, rows=self.rows[rows])

    def padded(self, extra: int) -> "SpanTable":
        """Return the table with rows of padding, which carry the last row's span."""
        return replace(self, rows=torch.cat([self.rows, self.rows[-1:].expand(extra)]))

    def times(self, t: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
        """Return the times of spans, with those of given ones where data is."""
        return t.masked_fill(self.given, GIVEN_TIME)


def lay_spans(parts: Sequence[SegmentSpans]) -> SpanTable:
    """Lay the spans of segments side by side, numbered on from segment to segment."""
    counts = torch.tensor([len(part.given) for part in parts])
    starts = (counts.cumsum(0) - counts).tolist()
    rows = torch.cat([part.rows + start for part, start in zip(parts, starts, strict=True)])
    runs, lengths = torch.unique_consecutive(rows, return_counts=True)
    return SpanTable(
        rows=rows,
        segments=torch.arange(len(parts)).repeat_interleave(counts),
        given=torch.tensor([given for part in parts for given in part.given]),
        runs=runs.tolist(),
        lengths=lengths.tolist(),
    )


def join_spans(tables: Sequence[tuple[SpanTable | None, list[int]]]) -> SpanTable | None:
    """Lay the spans of packs side by side: None where every segment of all of them is one span.

    tables: the spans of each pack, and the lengths of its segments.
    """
    if all(table is None for table, _ in tables):
        return None
    full = [table or lay_spans([whole(n) for n in lengths]) for table, lengths in tables]
    counts = [len(table.given) for table in full]
    spans, segments = [0, *accumulate(counts)], [0, *accumulate(len(n) for _, n in tables)]
    return SpanTable(
        rows=torch.cat([table.rows + start for table, start in zip(full, spans, strict=False)]),
        segments=torch.cat(
            [table.segments + start for table, start in zip(full, segments, strict=False)]
        ),
        given=torch.cat([table.given for table in full]),
        runs=[run + start for table, start in zip(full, spans, strict=False) for run in table.runs],
        lengths=[length for table in full for length in table.lengths],
    )
