"""Rows of a pack, whatever network they run through: taken from a table, and normed."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import layer_norm


class _Take(torch.autograd.Function):
    """Rows by index, whose gradient is summed in fp32 as one product: in a fixed order.

    ``index_select``'s own backward adds row by row: in bf16 each addition rounds, so that most of
    thousands of rows leave no trace, and on CUDA the order is another each time.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows, ctx.dtype = len(table), table.dtype
        return table.to(dtype).index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        rows = torch.arange(ctx.rows, device=index.device).unsqueeze(1)  # (T, 1)
        summed = (index == rows).float() @ gradient.float()  # (T, D)
        return summed.to(ctx.dtype), None, None


def take(
    table: Float[Tensor, "T D"], index: Int[Tensor, " S"], dtype: torch.dtype
) -> Float[Tensor, "S D"]:
    """Return rows of a table in a precision; their gradients are summed in fp32, reproducibly."""
    taken: Tensor = _Take.apply(table, index, dtype)
    return taken


def norm_rows(x: Float[Tensor, "S D"]) -> Float[Tensor, "S D"]:
    """Normalise rows without learned parameters; ``models.kernels`` has another that does it."""
    return layer_norm(x, x.shape[-1:], eps=1e-6)
