"""Activation checkpointing and compilation of blocks, from outside.

Both act on the blocks a model holds and leave every parameter's name alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch._dynamo
import torch.fx.experimental._config
import torch.nn.attention.varlen  # it registers the operation that is named below
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from models.attention import attend_segments, attend_varlen
from models.attention_operator import attend_as_operator
from trainer.layout.config import Recompute

# What "selective" keeps: results that are costly to compute or to send again; not gathered rows,
# which are tp times the stream (Korthikanti et al. 2022 gather them again, too).
_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_mm.default,  # of float8
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.torch_attn._varlen_attn.default,
    torch.ops.kinescale.attend_segments.default,
    torch.ops._c10d_functional.reduce_scatter_tensor.default,
    torch.ops._c10d_functional.all_to_all_single.default,
}
# The same of packages that may not be installed, by name.
_KEPT_NAMES = {"flash_attn._flash_attn_varlen_forward.default"}


def wrap_blocks(
    blocks: list[nn.Module],
    mode: Recompute,
    compiled: bool = False,
    backend: str = "inductor",
    whole: bool = True,
) -> None:
    """Make blocks keep less for the backward pass, and put them through torch.compile.

    Recompute by Chen et al. 2016 and Korthikanti et al. 2022. Compiled blocks are one graph each
    for packs of all shapes: attention is an operator to the compiler, whose segments are tensors.
    Whole blocks are compiled inside of their checkpoint; of a selective one the compiler itself
    must see what is kept, so the checkpoint lies inside of what is compiled.

    backend: of torch.compile. whole: whether a block must be one graph; attention over context
    ranks and the gathering of ZeRO 3 stay outside of graphs, which then are several.
    Raises torch._dynamo.exc.Unsupported, in the first step, where a block had to be one and is not.
    """
    if not compiled:
        for block in blocks if mode is not Recompute.none else ():
            block.forward = partial(_checkpointed, block.forward, mode)
        return
    # Lengths that happen to be equal in the first pack are not taken to be equal in all.
    torch.fx.experimental._config.use_duck_shape = False
    torch._dynamo.config.specialize_float = True  # a block's share of the depth is a constant
    for block in blocks:
        one = _as_operators(block) and whole
        compile_ = partial(torch.compile, dynamic=True, fullgraph=one, backend=backend)
        if mode is Recompute.selective:
            block.forward = compile_(partial(_checkpointed, block.forward, mode))
            continue
        block.forward = compile_(block.forward)
        if mode is Recompute.full:
            block.forward = partial(_checkpointed, block.forward, mode)


def _as_operators(block: nn.Module) -> bool:
    """Make a block's attention operators; tell whether all is, so that the block is one graph.

    The kernels of CUDA are operators already. Attention over context ranks is left out of graphs.
    """
    whole = True
    attends: list[Any] = [module for module in block.modules() if hasattr(module, "attend")]
    for module in attends:
        attend = module.attend
        if attend is attend_segments:
            module.attend = attend_as_operator
        elif attend not in (attend_varlen, attend_as_operator):
            module.attend, whole = torch.compiler.disable(attend), False
    return whole


def _checkpointed(forward: Callable[..., Any], mode: Recompute, *inputs: Any) -> Any:
    # Nothing inside a block draws random numbers, so their state need not be kept.
    settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if mode is Recompute.selective:
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(forward, *inputs, **settings)


def _policy(context: Any, operation: Any, *inputs: Any, **settings: Any) -> CheckpointPolicy:
    keep = operation in _KEPT or str(operation) in _KEPT_NAMES
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE
