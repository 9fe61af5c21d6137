"""Attention over packs as one operator, for compiled blocks.

A compiler that looks into the loop of :func:`models.attention.attend_segments` makes a graph for
the lengths of each pack, and compiles again with the next one. As an operator the loop is one
opaque node whose segments are told by tensors, so that a block is one graph for all packs.
"""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.pack import Ragged

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend_as_operator(
    q: Float[Tensor, "S N E"],
    k: Float[Tensor, "K N E"],
    v: Float[Tensor, "K N E"],
    q_segments: Ragged,
    k_segments: Ragged,
) -> Float[Tensor, "S N E"]:
    """Attend as :func:`models.attention.attend_segments` does; lengths are read when it runs."""
    out: Tensor = _attend(q, k, v, q_segments.offsets, k_segments.offsets)[0]
    return out


@torch.library.custom_op("kinescale::attend_segments", mutates_args=())
def _attend(
    q: Tensor, k: Tensor, v: Tensor, q_offsets: Tensor, k_offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the output (S, N, E) and the log of each row's normaliser (S, N), for the backward."""
    out, log_sum = torch.zeros_like(q), q.new_zeros(q.shape[:2], dtype=torch.float32)
    for rows, keys in _segments(q_offsets, k_offsets):
        part, logs = _forward(_of(q, rows), _of(k, keys), _of(v, keys))
        out[rows] = part[0].transpose(0, 1)
        log_sum[rows] = logs[0].transpose(0, 1)
    return out, log_sum


@_attend.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, q_offsets: Tensor, k_offsets: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)


@torch.library.custom_op("kinescale::attend_segments_backward", mutates_args=())
def _attend_backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    log_sum: Tensor,
    q_offsets: Tensor,
    k_offsets: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values."""
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for rows, keys in _segments(q_offsets, k_offsets):
        parts = _backward(
            _of(gradient, rows),
            _of(q, rows),
            _of(k, keys),
            _of(v, keys),
            _of(out, rows),
            log_sum[rows].transpose(0, 1).unsqueeze(0),
        )
        for whole, where, part in zip((dq, dk, dv), (rows, keys, keys), parts, strict=True):
            whole[where] = part[0].transpose(0, 1)
    return dq, dk, dv


@_attend_backward.register_fake
def _(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    log_sum: Tensor,
    q_offsets: Tensor,
    k_offsets: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, q_offsets, k_offsets = inputs
    ctx.save_for_backward(q, k, v, *output, q_offsets, k_offsets)


def _derive(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_attend_backward(gradient.contiguous(), *ctx.saved_tensors), None, None


_attend.register_autograd(_derive, setup_context=_keep)


def _segments(q_offsets: Tensor, k_offsets: Tensor) -> list[tuple[slice, slice]]:
    """Return the rows of queries and of keys of each segment that has both."""
    queries, keys = (
        [slice(first, last) for first, last in pairwise(offsets.tolist())]
        for offsets in (q_offsets, k_offsets)
    )
    return [
        (rows, seen)
        for rows, seen in zip(queries, keys, strict=True)
        if rows.stop > rows.start and seen.stop > seen.start
    ]


def _of(x: Float[Tensor, "S N E"], rows: slice) -> Float[Tensor, "1 N s E"]:
    return x[rows].transpose(0, 1).unsqueeze(0)


def _forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output (1, N, s, E) and the log of the normaliser (1, N, s)."""
    if not q.is_cuda:
        out, log_sum = _FORWARD(q, k, v)
        return out, log_sum
    scores = _scores(q, k)
    log_sum = scores.logsumexp(-1)
    weights = (scores - log_sum.unsqueeze(-1)).exp()
    return (weights @ v.float()).to(q.dtype), log_sum


def _backward(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v; on CUDA, where kernels take half precision, in fp32."""
    if not q.is_cuda:
        dq, dk, dv = _BACKWARD(gradient, q, k, v, out, log_sum, 0.0, False)
        return dq, dk, dv
    weights, g = (_scores(q, k) - log_sum.unsqueeze(-1)).exp(), gradient.float()
    change = g @ v.float().transpose(-1, -2)
    drawn = (g * out.float()).sum(-1, keepdim=True)
    d_scores = weights * (change - drawn) * q.shape[-1] ** -0.5
    dq, dk = d_scores @ k.float(), d_scores.transpose(-1, -2) @ q.float()
    dv = weights.transpose(-1, -2) @ g
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    scores: Tensor = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
    return scores
