"""The one seam of attention over packs: parameter-free, segment by segment.

A loop of batched calls for any device and dtype, and kernels over whole packs for CUDA in half
precision. Which one a run gets: ``models.kernels``.
"""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from models.pack import Ragged

# (queries, keys, values, query segments, key segments) -> (S, N, E)
Attend = Callable[[Tensor, Tensor, Tensor, Ragged, Ragged], Tensor]

# (queries, keys, values, query offsets, key offsets, longest query segment, longest key segment)
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int], Tensor]


def attend_segments(
    q: Float[Tensor, "S N E"],
    k: Float[Tensor, "K N E"],
    v: Float[Tensor, "K N E"],
    q_segments: Ragged,
    k_segments: Ragged,
) -> Float[Tensor, "S N E"]:
    """Attend within segments: queries of segment i see the keys of segment i only.

    A loop over runs of equally sized segments, each run one batched call: no mask is built and no
    score outside a segment is computed. Rows beyond the lengths are padding and come back as zeros.
    """
    runs = list(_equal_runs(q_segments.lengths, k_segments.lengths))
    outputs = []
    for (count, q_length, k_length), queries, keys, values in zip(
        runs,
        _cut(q, _rows(runs, 1, q.shape[0])),
        _cut(k, _rows(runs, 2, k.shape[0])),
        _cut(v, _rows(runs, 2, v.shape[0])),
        strict=False,  # the padding behind the runs is a part too
    ):
        out = scaled_dot_product_attention(
            queries.unflatten(0, (count, q_length)).transpose(1, 2),
            keys.unflatten(0, (count, k_length)).transpose(1, 2),
            values.unflatten(0, (count, k_length)).transpose(1, 2),
        )  # (count, N, q_length, E)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    if q.shape[0] > q_segments.total:
        outputs.append(torch.zeros_like(q[q_segments.total :]))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _cut(x: Tensor, lengths: list[int]) -> tuple[Tensor, ...]:
    """Split rows; one part is the tensor itself, whose gradient then needs no copy."""
    return (x,) if len(lengths) == 1 else torch.split(x, lengths)


def _rows(runs: list[tuple[int, int, int]], which: int, total: int) -> list[int]:
    """Return the rows of each run, and of the padding behind them if there is any."""
    rows = [run[0] * run[which] for run in runs]
    padding = total - sum(rows)
    return [*rows, padding] if padding else rows


def _equal_runs(q_lengths: list[int], k_lengths: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (count, query length, key length) of neighbouring segments of equal lengths."""
    for (q_length, k_length), run in groupby(zip(q_lengths, k_lengths, strict=True)):
        yield len(list(run)), q_length, k_length


def attend_varlen(
    q: Float[Tensor, "S N E"],
    k: Float[Tensor, "K N E"],
    v: Float[Tensor, "K N E"],
    q_segments: Ragged,
    k_segments: Ragged,
) -> Float[Tensor, "S N E"]:
    """Attend within segments by torch's kernel over whole packs; as :func:`attend_segments`."""
    from torch.nn.attention.varlen import varlen_attn

    return attend_by_kernel(cast(Kernel, varlen_attn), q, k, v, q_segments, k_segments)


def attend_by_kernel(
    kernel: Kernel,
    q: Float[Tensor, "S N E"],
    k: Float[Tensor, "K N E"],
    v: Float[Tensor, "K N E"],
    q_segments: Ragged,
    k_segments: Ragged,
) -> Float[Tensor, "S N E"]:
    """Attend through a kernel that knows segments by offsets, and nothing of padding.

    Kernels leave the rows beyond the last offset as they find them, in outputs and in gradients, so
    they never see those rows: padding comes back as zeros and gets gradients of zeros.
    """
    rows, keys = q_segments.total, k_segments.total
    if rows == 0 or keys == 0:  # a grid without blocks cannot be launched; gradients are zeros
        return torch.zeros_like(q) + q[:0].sum() + k[:0].sum() + v[:0].sum()
    out = kernel(
        q.narrow(0, 0, rows),
        k.narrow(0, 0, keys),
        v.narrow(0, 0, keys),
        q_segments.offsets,
        k_segments.offsets,
        q_segments.longest,
        k_segments.longest,
    )
    padding = q.shape[0] - rows
    return pad(out, (0, 0, 0, 0, 0, padding)) if padding else out
