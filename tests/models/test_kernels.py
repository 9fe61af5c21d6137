"""Kernels by name: what a machine can run, which is best, and that none is ever put in another's
place. Kernels of packages that are not installed are refused here, and tried where they are.
"""

import importlib.util

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import current_flash_attention_impl
from torch.utils._python_dispatch import TorchDispatchMode

from models.attention import attend_segments, attend_varlen
from models.config import AttentionKernel, ModelConfig
from models.dit.model import DiT
from models.dit.modulation import Spans, modulate
from models.kernels import build_attention, build_te_norm, choose_attention, why_not
from models.pack import Ragged

HOPPER, AMPERE, TURING, BLACKWELL = (9, 0), (8, 0), (7, 5), (10, 0)
KERNELS = [k for k in AttentionKernel if k is not AttentionKernel.auto]
PACKAGES = {"fa3": "flash_attn_interface", "flash": "flash_attn", "te": "transformer_engine"}


def installed(kernel: AttentionKernel) -> bool:
    return importlib.util.find_spec(PACKAGES[kernel.value]) is not None


def test_without_cuda_only_the_loop_runs() -> None:
    for kernel in KERNELS:
        reason = why_not(kernel, None, torch.bfloat16, 64)
        assert bool(reason) == (kernel is not AttentionKernel.loop)
        assert "CUDA" in reason or not reason
    chosen = choose_attention(AttentionKernel.auto, None, torch.float32, 16)
    assert chosen.attend is attend_segments
    assert str(chosen) == "attention by loop"


@pytest.mark.parametrize(
    ("kernel", "capability", "runs"),
    [
        ("varlen", TURING, False),
        ("varlen", AMPERE, True),
        ("varlen", BLACKWELL, True),
        ("fa3", AMPERE, False),
        ("fa3", BLACKWELL, False),
        ("te", TURING, False),
        ("flash", TURING, False),
        ("loop", TURING, True),
    ],
)
def test_a_kernel_needs_its_compute_capability(
    kernel: str, capability: tuple[int, int], runs: bool
) -> None:
    reason = why_not(AttentionKernel(kernel), capability, torch.bfloat16, 64)
    assert ("compute capability" in reason) == (not runs)
    if not runs:
        assert f"{capability[0]}.{capability[1]}" in reason


@pytest.mark.parametrize(
    ("dtype", "size", "taken"),
    [
        (torch.bfloat16, 8, True),
        (torch.float16, 256, True),
        (torch.bfloat16, 264, False),
        (torch.bfloat16, 20, False),
        (torch.float32, 64, False),
    ],
)
def test_kernels_take_half_precision_and_heads_of_whole_eighths_up_to_256(
    dtype: torch.dtype, size: int, taken: bool
) -> None:
    assert (why_not(AttentionKernel.varlen, HOPPER, dtype, size) == "") == taken
    chosen = choose_attention(AttentionKernel.auto, HOPPER, dtype, size)
    assert (chosen.attend is attend_segments) == (not taken)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_kernel_whose_package_is_missing_is_refused_by_name(name: str) -> None:
    kernel = AttentionKernel(name)
    if installed(kernel):
        pytest.skip(f"{PACKAGES[name]} is installed")
    with pytest.raises(ValueError, match=f"parallel.attention={name}: .*{PACKAGES[name]} is not"):
        choose_attention(kernel, HOPPER, torch.bfloat16, 64)


def test_auto_says_which_better_kernels_it_could_not_take() -> None:
    chosen = choose_attention(AttentionKernel.auto, AMPERE, torch.bfloat16, 64)
    told = str(chosen)
    assert "not fa3: needs compute capability 9.0, and this device has 8.0" in told
    if not installed(AttentionKernel.flash):
        assert chosen.kernel is AttentionKernel.varlen
        assert "not flash: the package flash_attn is not installed" in told
    assert "not varlen" not in told


def test_a_kernel_asked_for_by_name_is_never_another() -> None:
    # The loop would run, and is not taken.
    with pytest.raises(ValueError, match=r"parallel.attention=varlen: takes half precision only"):
        choose_attention(AttentionKernel.varlen, HOPPER, torch.float32, 64)
    with pytest.raises(ValueError, match=r"attention=fa3: needs compute capability 9.0"):
        choose_attention(AttentionKernel.fa3, AMPERE, torch.bfloat16, 64)
    chosen = choose_attention(AttentionKernel.loop, HOPPER, torch.bfloat16, 64)
    assert chosen.attend is attend_segments
    assert choose_attention(AttentionKernel.varlen, HOPPER, torch.bfloat16, 64).attend is (
        attend_varlen
    )


def test_te_norm_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(ValueError, match=r"parallel.norm=te: needs a CUDA device.*Or use torch"):
        build_te_norm(None)
    if importlib.util.find_spec("transformer_engine") is None:
        with pytest.raises(ValueError, match="transformer_engine is not installed"):
            build_te_norm(HOPPER)


# --- the operators that are called ----------------------------------------------------------------


class Called(TorchDispatchMode):
    """Note the operators of attention that are called, and with what."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "attn" in str(func) or "attention" in str(func):
            self.calls.append((str(func), args))
        return func(*args, **(kwargs or {}))


def test_varlen_is_torchs_operator_over_the_whole_pack_with_its_offsets() -> None:
    attend = build_attention(AttentionKernel.varlen)
    assert current_flash_attention_impl() is None
    with FakeTensorMode(), Called() as seen:
        q = torch.empty(23, 2, 64, dtype=torch.bfloat16, requires_grad=True)
        kv = torch.empty(9, 2, 64, dtype=torch.bfloat16, requires_grad=True)
        rows = Ragged([4, 0, 16], torch.empty(4, dtype=torch.int32))
        keys = Ragged([3, 5, 1], torch.empty(4, dtype=torch.int32))
        attend(q, kv, kv, rows, keys).float().sum().backward()
    names = [name for name, _ in seen.calls]
    assert names == ["torch_attn._varlen_attn.default", "torch_attn._varlen_attn_backward.default"]
    _, forward = seen.calls[0]
    assert [tuple(x.shape) for x in forward[:3]] == [(20, 2, 64), (9, 2, 64), (9, 2, 64)]
    assert forward[3] is rows.offsets
    assert forward[4] is keys.offsets
    assert forward[3].dtype == torch.int32
    assert forward[5:7] == (16, 5)
    _, backward = seen.calls[1]
    assert backward[6] is rows.offsets
    assert backward[7] is keys.offsets


def test_another_norm_takes_the_place_of_torchs_in_every_modulation() -> None:
    calls = []

    def norm(x: Tensor) -> Tensor:
        calls.append(tuple(x.shape))
        return 2 * torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)

    x = torch.randn(6, 8, dtype=torch.bfloat16)
    shift, scale = torch.randn(2, 2, 8).unbind()
    spans = Spans(torch.tensor([0, 0, 0, 1, 1, 1]), [0, 1], [3, 3])
    found = modulate(x, shift, scale, spans, norm)
    plain = modulate(x, 0 * shift, scale, spans)
    assert calls == [(6, 8)]
    expected = 2 * plain.float() + shift.repeat_interleave(3, 0)
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.05)
    model = DiT(ModelConfig(width=32, depth=2, text_width=16))
    places = [name for name, module in model.named_modules() if hasattr(module, "norm_rows")]
    assert places == ["", "blocks.0", "blocks.1"]
