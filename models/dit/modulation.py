"""Modulation of a pack: all rows of a span share shift, scale and gate.

In fp32 on CPU run by run of neighbouring rows, by broadcasting: gathering (S, 6 D) rows and
scattering their gradients back costs more than the norms themselves (docs/decisions/006). A run's
shift and scale are the bias and weight of a LayerNorm, whose kernel sums their gradients as it
goes. On CUDA, where a small operation costs as much as a large one, inside compiled code and in
half precision, whose sums that kernel rounds as it goes, rows are gathered: see
``models.rows.take``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import layer_norm

from models.pack import TokenPack
from models.rows import norm_rows, take


@dataclass(frozen=True)
class Spans:
    """Which span each row belongs to.

    rows: the span of every row (S,). runs, lengths: the same as runs of neighbouring rows, in
    order: the span and the number of rows. A span may have several runs.
    """

    rows: Int[Tensor, " S"]
    runs: list[int]
    lengths: list[int]

    @classmethod
    def of(cls, pack: TokenPack) -> "Spans":
        """Return the runs of the rows that a pack holds; padding belongs to the last."""
        rows, start = len(pack.segment), -pack.first_row
        runs, lengths = [], []
        spans, wholes = pack.runs
        for number, (span, length) in enumerate(zip(spans, wholes, strict=True)):
            last = rows if number == len(spans) - 1 else min(start + length, rows)
            if last > max(start, 0):
                runs.append(span)
                lengths.append(last - max(start, 0))
            start += length
        return cls(pack.span, runs, lengths)

    def gathers(self, x: Float[Tensor, "S D"]) -> bool:
        """Whether to gather rows instead of looping over runs."""
        return x.is_cuda or x.dtype != torch.float32 or torch.compiler.is_compiling()

    def split(self, x: Float[Tensor, "S D"]) -> tuple[Tensor, ...]:
        """Cut rows into runs; one run is the tensor itself, whose gradient needs no copy."""
        return (x,) if len(self.lengths) == 1 else torch.split(x, self.lengths)

    def pick(self, x: Float[Tensor, "T D"]) -> list[Tensor]:
        """Return the row of each run's span."""
        rows = x.unbind()
        return [rows[i] for i in self.runs]


def modulate(
    x: Float[Tensor, "S D"],
    shift: Float[Tensor, "T D"],
    scale: Float[Tensor, "T D"],
    spans: Spans,
    norm: Callable[[Tensor], Tensor] = norm_rows,
) -> Float[Tensor, "S D"]:
    """Normalise without learned parameters, then shift and scale by the condition (adaLN).

    norm: of rows, where they are gathered.
    """
    if spans.gathers(x):
        normed = norm(x)
        picked = take(1 + scale, spans.rows, x.dtype)
        return torch.addcmul(take(shift, spans.rows, x.dtype), normed, picked)
    parts = zip(spans.split(x), spans.pick(1 + scale), spans.pick(shift), strict=True)
    return _join([layer_norm(part, part.shape[-1:], s, b, 1e-6) for part, s, b in parts])


def add_gated(
    x: Float[Tensor, "S D"],
    gate: Float[Tensor, "T D"],
    y: Float[Tensor, "S D"],
    spans: Spans,
) -> Float[Tensor, "S D"]:
    """Return x + gate * y."""
    if spans.gathers(x):
        return torch.addcmul(x, take(gate, spans.rows, x.dtype), y)
    parts = zip(spans.split(x), spans.pick(gate), spans.split(y), strict=True)
    return _join([torch.addcmul(part, g, update) for part, g, update in parts])


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
