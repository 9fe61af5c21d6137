"""A layer whose output is cut sends the gradient of its rows while it computes its weight's."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.parallel.rows import gather_rows
from trainer.parallel.tensor import _GatheredProduct

from .worlds import run_world


def inputs(rank: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return own rows (7, 12), part of a weight (5, 12), the gradient of all rows (14, 5)."""
    draw = torch.Generator().manual_seed(rank)
    x, weight, gradient = (
        torch.randn(n, m, generator=draw) for n, m in ((7, 12), (5, 12), (14, 5))
    )
    return x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), gradient.to(dtype)


def compare(dtype: torch.dtype) -> None:
    """As one of two ranks: compare with the same steps one by one, derived by torch."""
    group = dist.group.WORLD
    assert group is not None
    x, weight, gradient = inputs(dist.get_rank(), dtype)
    found = _GatheredProduct.apply(x, weight, group)
    own = torch.autograd.grad(found, (x, weight), gradient)
    plain = gather_rows(x, group).matmul(weight.t())
    expected = torch.autograd.grad(plain, (x, weight), gradient)
    assert torch.equal(found, plain)
    assert own[0].abs().sum() > 0
    for mine, theirs in zip(own, expected, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.dist
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_has_the_bits_of_the_steps_one_by_one(dtype: torch.dtype, tmp_path: Path) -> None:
    run_world(2, "tests.trainer.parallel.test_tensor:compare", dtype)


class _Order(TorchDispatchMode):
    """Notes products and collectives in the order of their calls."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).split(".")[1]
        if name in ("mm", "reduce_scatter_tensor", "all_gather_into_tensor", "wait_tensor"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def test_the_reduction_is_on_its_way_while_the_weights_gradient_is_computed(group: None) -> None:
    world = dist.group.WORLD
    assert world is not None
    x, weight, gradient = inputs(0, torch.float32)
    out = _GatheredProduct.apply(x, weight, world)
    with _Order() as order:
        torch.autograd.grad(out, (x, weight), gradient[:7])
    assert order.names == ["mm", "reduce_scatter_tensor", "mm", "wait_tensor"]
