"""Kernels that may be chosen by name: attention over packs, and the norm of rows.

A kernel changes how sums are rounded and nothing else. One that cannot run is refused in words;
``auto`` takes the best that can. The authors had no GPU: on CPU the calls of torch's own kernels
are traced with fake tensors, and ``make gpu-check`` compares and times each on a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import (
    activate_flash_attention_impl,
    current_flash_attention_impl,
    restore_flash_attention_impl,
)

from models.attention import Attend, attend_by_kernel, attend_segments, attend_varlen
from models.config import AttentionKernel

Norm = Callable[[Tensor], Tensor]
# Compute capability of a CUDA device (major, minor); None for any other device.
Capability = tuple[int, int] | None

# Best first, by published figures: on Hopper FA3 does 1.5 to 2 times what FA2 does (Shah et al.
# 2024). Transformer Engine's is not among them: which kernel it takes is its own choice.
_AUTO = (
    AttentionKernel.fa3,
    AttentionKernel.flash,
    AttentionKernel.varlen,
    AttentionKernel.loop,
)
# What is imported, and what must be in it.
_MODULES = {
    AttentionKernel.fa3: ("flash_attn_interface", "flash_attn_varlen_func"),
    AttentionKernel.flash: ("flash_attn", "flash_attn_varlen_func"),
    AttentionKernel.te: ("transformer_engine.pytorch", "DotProductAttention"),
}
_TE_NORM = ("transformer_engine.pytorch", "LayerNorm")
_NEEDS = {AttentionKernel.fa3: (9, 0)}  # torch refuses FA3 elsewhere; the others need 8.0
_HALF = (torch.bfloat16, torch.float16)
LARGEST_HEAD = 256
_NO_CUDA = "needs a CUDA device. Use parallel.device=cuda where there is one."


@dataclass(frozen=True)
class Chosen:
    """The attention to compute with. passed_over: better kernels, and why each cannot run here."""

    kernel: AttentionKernel
    attend: Attend
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join([f"attention by {self.kernel.value}", *self.passed_over])


def capability_of(device: torch.device) -> Capability:
    """Return the compute capability of a device; None where it is not CUDA's."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def choose_attention(
    asked: AttentionKernel, capability: Capability, dtype: torch.dtype, head_dim: int
) -> Chosen:
    """Return attention by the kernel that was asked for, or by the best one that can run.

    dtype, head_dim: of queries, keys and values. Raises ValueError where a kernel that was asked
    for by name cannot run; none is ever put in its place.
    """
    if asked is not AttentionKernel.auto:
        reason = why_not(asked, capability, dtype, head_dim)
        if reason:
            raise ValueError(f"parallel.attention={asked.value}: {reason} Or use auto.")
        return Chosen(asked, build_attention(asked))
    passed_over: list[str] = []
    for kernel in _AUTO if capability else _AUTO[-1:]:
        reason = why_not(kernel, capability, dtype, head_dim)
        if not reason:
            return Chosen(kernel, build_attention(kernel), tuple(passed_over))
        passed_over.append(f"not {kernel.value}: {reason}")
    raise AssertionError("the loop runs everywhere")


def why_not(
    kernel: AttentionKernel, capability: Capability, dtype: torch.dtype, head_dim: int
) -> str:
    """Return why a kernel cannot run, and the remedy; nothing where it can."""
    if kernel is AttentionKernel.loop:
        return ""
    if capability is None:
        return _NO_CUDA
    needed = _NEEDS.get(kernel, (8, 0))
    right = capability[0] == 9 if kernel is AttentionKernel.fa3 else capability >= needed
    if not right:
        return (
            f"needs compute capability {needed[0]}.{needed[1]}, and this device has "
            f"{capability[0]}.{capability[1]}. Use parallel.attention=loop."
        )
    if dtype not in _HALF:
        return "takes half precision only. Use parallel.precision=bf16."
    if head_dim % 8 or head_dim > LARGEST_HEAD:
        return (
            f"takes heads of a multiple of 8 up to {LARGEST_HEAD} values, and "
            f"model.head_dim={head_dim}. Use parallel.attention=loop."
        )
    return _not_importable(*_MODULES[kernel]) if kernel in _MODULES else ""


def build_attention(kernel: AttentionKernel) -> Attend:
    """Return attention by a kernel that can run here, see :func:`why_not`.

    torch's own kernel is FA2 or FA3 for the whole process: what was built last counts.
    """
    if kernel is AttentionKernel.loop:
        return attend_segments
    if kernel is AttentionKernel.fa3:
        activate_flash_attention_impl("FA3")
        return attend_varlen
    if kernel is AttentionKernel.varlen:
        if current_flash_attention_impl() is not None:
            restore_flash_attention_impl()
        return attend_varlen
    found = import_module(_MODULES[kernel][0])
    if kernel is AttentionKernel.flash:
        return _attention_of(found.flash_attn_varlen_func)
    return _attention_of(_te_kernel(found))


def _attention_of(kernel: Any) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor, q_segments: Any, k_segments: Any) -> Tensor:
        return attend_by_kernel(kernel, q, k, v, q_segments, k_segments)

    return attend


def _te_kernel(engine: Any) -> Any:
    """Return Transformer Engine's attention over ragged rows (thd) in the form of the others."""

    @cache
    def layer(heads: int, size: int) -> Any:
        return engine.DotProductAttention(
            heads, size, attention_dropout=0.0, qkv_format="thd", attn_mask_type="padding"
        )

    def kernel(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_offsets: Tensor,
        k_offsets: Tensor,
        q_most: int,
        most: int,
    ) -> Tensor:
        flat: Tensor = layer(q.shape[1], q.shape[2])(
            q, k, v, cu_seqlens_q=q_offsets, cu_seqlens_kv=k_offsets, max_seqlen_q=q_most,
            max_seqlen_kv=most,
        )  # fmt: skip  # (S, N E)
        return flat.unflatten(-1, q.shape[1:])

    return kernel


def build_te_norm(capability: Capability) -> Norm:
    """Return Transformer Engine's LayerNorm of rows, without learned weights.

    Raises ValueError where it cannot run.
    """
    reason = _NO_CUDA if capability is None else _not_importable(*_TE_NORM)
    if reason:
        raise ValueError(f"parallel.norm=te: {reason} Or use torch.")
    engine = import_module(_TE_NORM[0])

    @cache
    def layer(width: int, device: torch.device, dtype: torch.dtype) -> nn.Module:
        built: nn.Module = engine.LayerNorm(width, eps=1e-6).to(device, dtype)
        return built.requires_grad_(False)  # weights of one and zero are no parameters

    def norm_rows(x: Float[Tensor, "S D"]) -> Float[Tensor, "S D"]:
        normed: Tensor = layer(x.shape[-1], x.device, x.dtype)(x)
        return normed

    return norm_rows


@cache
def _not_importable(module: str, attribute: str) -> str:
    """Return why something cannot be had of a module; nothing where it can."""
    package = module.partition(".")[0]
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name == package:
            return f"the package {package} is not installed. Install it."
        return f"the package {package} lacks {error.name}. Install that, too."
    except (ImportError, OSError, RuntimeError) as error:
        told = str(error).split("\n")[0]
        return f"the package {package} cannot be imported ({told}). Build it for this torch."
    return "" if hasattr(found, attribute) else f"{module} has no {attribute}. Install its package."
