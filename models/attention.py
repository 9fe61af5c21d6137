"""The one seam of attention over packs: parameter-free, segment by segment."""

from collections.abc import Callable, Iterator
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

# (queries, keys, values, query lengths, key lengths) -> (S, N, E)
Attend = Callable[[Tensor, Tensor, Tensor, list[int], list[int]], Tensor]


def attend_segments(
    q: Float[Tensor, "S N E"],
    k: Float[Tensor, "K N E"],
    v: Float[Tensor, "K N E"],
    q_lengths: list[int],
    k_lengths: list[int],
) -> Float[Tensor, "S N E"]:
    """Attend within segments: queries of segment i see the keys of segment i only.

    A loop over runs of equally sized segments, each run one batched call: no mask is built and no
    score outside a segment is computed. Rows beyond the lengths are padding and come back as zeros.
    """
    q_parts = torch.split(q, [*q_lengths, q.shape[0] - sum(q_lengths)])
    k_parts = torch.split(k, [*k_lengths, k.shape[0] - sum(k_lengths)])
    v_parts = torch.split(v, [*k_lengths, v.shape[0] - sum(k_lengths)])
    outputs = []
    for start, stop in _equal_runs(q_lengths, k_lengths):
        queries, keys, values = (
            torch.stack(parts[start:stop]).transpose(1, 2) for parts in (q_parts, k_parts, v_parts)
        )
        out = scaled_dot_product_attention(queries, keys, values)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    outputs.append(torch.zeros_like(q_parts[-1]))
    return torch.cat(outputs)


def _equal_runs(q_lengths: list[int], k_lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of neighbouring segments of equal query and key length."""
    start = 0
    for _, run in groupby(zip(q_lengths, k_lengths, strict=True)):
        stop = start + len(list(run))
        yield start, stop
        start = stop
