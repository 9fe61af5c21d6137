"""Activation checkpointing and compilation of blocks, from outside.

Both act on the blocks a model holds and leave every parameter's name alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.attention.varlen  # it registers the operation that is named below
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from trainer.layout.config import Recompute

# What "selective" keeps: results that are costly to compute or to send again; not gathered rows,
# which are tp times the stream (Korthikanti et al. 2022 gather them again, too).
_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.torch_attn._varlen_attn.default,
    torch.ops._c10d_functional.reduce_scatter_tensor.default,
    torch.ops._c10d_functional.all_to_all_single.default,
}


def recompute_blocks(blocks: list[nn.Module], mode: Recompute) -> None:
    """Make blocks keep less for the backward pass (Chen et al. 2016; Korthikanti et al. 2022)."""
    if mode is Recompute.none:
        return
    for block in blocks:
        block.forward = partial(_checkpointed, block.forward, mode)


def compile_blocks(blocks: list[nn.Module]) -> None:
    """Compile every block in place; packs differ in shape, so shapes are left open.

    Attention stays outside: it loops over segments, whose number and lengths change with each pack,
    and on CUDA it is a kernel already.
    """
    for block in blocks:
        for module in block.modules():
            if hasattr(module, "attend"):
                module.attend = torch.compiler.disable(module.attend)
        block.compile(dynamic=True)


def _checkpointed(forward: Callable[..., Any], mode: Recompute, *inputs: Any) -> Any:
    # Nothing inside a block draws random numbers, so their state need not be kept.
    settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if mode is Recompute.selective:
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(forward, *inputs, **settings)


def _policy(context: Any, operation: Any, *inputs: Any, **settings: Any) -> CheckpointPolicy:
    keep = operation in _KEPT
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE
