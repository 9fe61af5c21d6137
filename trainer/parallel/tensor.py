"""Tensor parallelism with megatron-core's layers, and sequence parallelism around them.

The layers that the specification cuts hold a part of their weights (Shoeybi et al. 2019);
everything else is whole on every tensor rank but works on that rank's rows only. So the gradient of
every whole parameter is a partial sum, and one rule covers them all: sum it over tensor ranks when
it arrives.
"""

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.architecture import Reads, Specification, Weight
from trainer.parallel.rows import finish, gather_rows, scatter_sum, start_scatter, sum_ranks

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it misses CUDA extensions that nothing here uses
    from megatron.core import ModelParallelConfig
    from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class SplitOutput(ColumnParallelLinear):
    """A linear layer whose output features are cut; reads the rows of all tensor ranks."""

    reads_own_rows = True

    def forward(self, x: Tensor) -> Tensor:
        """Map own rows (R, D), or a whole input, to all rows of this rank's features."""
        if not self.reads_own_rows:
            out: Tensor = super().forward(x)[0]
            return out
        product: Tensor = _GatheredProduct.apply(x, self.weight, self.tp_group)
        return product if self.bias is None else product + self.bias


class _GatheredProduct(torch.autograd.Function):
    """The rows of all ranks times a part of a weight: all rows (tp R, D) -> (tp R, features / tp).

    Backward, the gradient of the rows is on its way to their ranks while that of the weight is
    computed, as megatron-core's own layer does (Korthikanti et al. 2022), which allocates on CUDA
    alone and gathers the rows a second time. The order of sums is that of the steps one by one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, group: "ProcessGroup") -> Tensor:
        rows = gather_rows(x, group)
        ctx.save_for_backward(rows, weight)
        ctx.group = group
        return rows.matmul(weight.t())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weight = ctx.saved_tensors
        sent = start_scatter(gradient.matmul(weight), ctx.group)
        of_weight = gradient.t().matmul(rows)
        return finish(sent), of_weight, None


class JoinedOutput(ColumnParallelLinear):
    """A linear layer whose output features are cut and put together again, for few rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a whole input (M, D) to all features; gradients of all ranks' uses are summed."""
        own = super().forward(x)[0]  # (M, features / tp)
        return gather_rows(own.t(), self.tp_group).t()


class SplitInput(RowParallelLinear):
    """A linear layer whose input features are cut; sums over ranks and keeps this rank's rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Map all rows of this rank's features to own rows (R, D)."""
        partial = self._forward_impl(
            input=x,
            weight=self.weight,
            bias=None,
            gradient_accumulation_fusion=False,
            allreduce_dgrad=False,
            sequence_parallel=False,
            tp_group=None,
            grad_output_buffer=None,
        )
        out = scatter_sum(partial, self.tp_group)
        return out if self.bias is None else out + self.bias


def split_layers(model: nn.Module, facts: Specification, group: "ProcessGroup") -> None:
    """Swap what the specification cuts for its parts, on the device of the model (or meta).

    Linear layers become parts of them; vectors of a module that attends belong to its heads, of
    which it keeps a part too.
    """
    with torch.device(next(model.parameters()).device):
        for name, module in list(model.named_modules()):
            weight = facts.weights.get(f"{name}.weight")
            if isinstance(module, nn.Linear):
                if weight is not None and weight.cut is not None:
                    _replace(model, name, _part(module, weight, group))
                continue
            if hasattr(module, "attend"):
                module.num_heads //= group.size()
            for own, parameter in list(module.named_parameters(name, recurse=False)):
                cut = facts.cuts.get(own)
                if cut is not None:
                    shape = cut.shape(tuple(parameter.shape), group.size())
                    setattr(module, own.rpartition(".")[2], nn.Parameter(torch.empty(shape)))


def mark_cut(model: nn.Module, facts: Specification) -> None:
    """Tell DeepSpeed which parameters are cut; of the others one tensor rank counts in the norm."""
    for name, parameter in model.named_parameters():
        parameter.tensor_model_parallel = name in facts.cuts  # type: ignore[attr-defined]


def sum_whole_gradients(model: nn.Module, facts: Specification, group: "ProcessGroup") -> None:
    """Sum the gradient of every whole parameter over tensor ranks when it arrives."""
    for name, parameter in model.named_parameters():
        if name not in facts.cuts:
            parameter.register_hook(lambda gradient: sum_ranks(gradient, group))


def _part(linear: nn.Linear, weight: Weight, group: "ProcessGroup") -> nn.Module:
    settings: dict[str, Any] = {
        "config": ModelParallelConfig(
            tensor_model_parallel_size=group.size(),
            use_cpu_initialization=True,
            perform_initialization=False,
        ),
        "init_method": _keep,
        "bias": linear.bias is not None,
        "tp_group": group,
    }
    features = linear.in_features, linear.out_features
    assert weight.cut is not None
    if weight.cut.dim == 1:
        return SplitInput(*features, input_is_parallel=True, skip_bias_add=True, **settings)
    settings |= {"gather_output": False, "disable_grad_reduce": True}
    if weight.reads is Reads.spans:
        return JoinedOutput(*features, **settings)
    part = SplitOutput(*features, **settings)
    part.reads_own_rows = weight.reads is Reads.rows  # captions are whole everywhere
    return part


def _keep(weight: Tensor) -> Tensor:
    return weight


def _replace(model: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, part)
