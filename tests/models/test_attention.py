"""The seam of attention: every path agrees, and padding is as if it were not there.

The kernels need a GPU. What is tested here: our wrapper around them, with a stand-in kernel written
in plain torch that keeps their contract and spoils the rows they leave alone; and, with fake
tensors, that the true call is well formed: shapes, dtypes and strides, forward and backward.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from models.attention import (
    Attend,
    attend_by_kernel,
    attend_segments,
    attend_varlen,
)
from models.config import POSITION_FEATURES, ModelConfig
from models.dit.model import DiT
from models.objectives.flow import flow_errors
from models.pack import Ragged, TokenPack

HEADS, SIZE = 2, 16
CPU = torch.device("cpu")
# Query and key lengths: ragged, with repeats, with segments of no rows on either side.
LENGTHS = [
    ([5, 5, 9, 1], [5, 5, 9, 1]),
    ([7, 3], [2, 11]),
    ([0, 4, 0, 6, 0], [3, 1, 2, 5, 4]),
]


class PlainKernel(torch.autograd.Function):
    """Attention by offsets in plain torch; what lies beyond the last offset becomes NaN."""

    @staticmethod
    def forward(ctx, q, k, v, q_offsets, k_offsets, longest_q, longest_k):
        assert q_offsets.dtype == k_offsets.dtype == torch.int32
        assert longest_q == q_offsets.diff().max()
        assert longest_k == k_offsets.diff().max()
        ctx.save_for_backward(q, k, v, q_offsets, k_offsets)
        return by_offsets(q, k, v, q_offsets, k_offsets)

    @staticmethod
    def backward(ctx, gradient):
        *inputs, q_offsets, k_offsets = ctx.saved_tensors
        inputs = [x.detach().requires_grad_() for x in inputs]
        with torch.enable_grad():
            rows, keys = int(q_offsets[-1]), int(k_offsets[-1])
            out = by_offsets(*inputs, q_offsets, k_offsets)[:rows]
        out.backward(gradient[:rows])
        for x, used in zip(inputs, (rows, keys, keys), strict=True):
            x.grad[used:] = float("nan")
        return *(x.grad for x in inputs), None, None, None, None


def by_offsets(q: Tensor, k: Tensor, v: Tensor, q_offsets: Tensor, k_offsets: Tensor) -> Tensor:
    """Attend segment by segment in fp32; rows of no segment are NaN."""
    parts = []
    for i in range(len(q_offsets) - 1):
        queries = q[q_offsets[i] : q_offsets[i + 1]].float()
        keys, values = (x[k_offsets[i] : k_offsets[i + 1]].float() for x in (k, v))
        scores = torch.einsum("qne,kne->nqk", queries, keys) * q.shape[-1] ** -0.5
        parts.append(torch.einsum("nqk,kne->qne", scores.softmax(-1), values))
    out = torch.cat(parts).to(q.dtype)
    return torch.cat([out, out.new_full((len(q) - len(out), *out.shape[1:]), float("nan"))])


def attend_plain(q: Tensor, k: Tensor, v: Tensor, q_rows: Ragged, k_rows: Ragged) -> Tensor:
    return attend_by_kernel(PlainKernel.apply, q, k, v, q_rows, k_rows)


def inputs(q_lengths: list[int], k_lengths: list[int], padding: int, dtype: torch.dtype) -> list:
    """Return queries, keys and values with padding rows, and where their segments lie."""
    generator = torch.Generator().manual_seed(0)
    rows = [sum(lengths) + padding for lengths in (q_lengths, k_lengths, k_lengths)]
    tensors = [torch.randn(n, HEADS, SIZE, generator=generator) for n in rows]
    segments = [Ragged.of(lengths, CPU) for lengths in (q_lengths, k_lengths)]
    return [*(x.to(dtype).requires_grad_() for x in tensors), *segments]


def results(attend: Attend, arguments: list) -> list[Tensor]:
    """Return the output and the gradients of queries, keys and values, in fp32."""
    out = attend(*arguments)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((out.float() * weights).sum(), arguments[:3])
    return [out.detach().float(), *(g.float() for g in gradients)]


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize(("q_lengths", "k_lengths"), LENGTHS, ids=str)
def test_our_wrapper_with_a_stand_in_kernel_equals_the_loop(
    q_lengths: list[int], k_lengths: list[int], padding: int
) -> None:
    # bfloat16 on both sides: the kernel's path is only taken in half precision. One rounding of
    # values of order one is 2^-8; sums of a few of them are compared.
    expected = results(attend_segments, inputs(q_lengths, k_lengths, padding, torch.bfloat16))
    found = results(attend_plain, inputs(q_lengths, k_lengths, padding, torch.bfloat16))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0.03, atol=0.03)


def test_the_wrapper_returns_zeros_and_zero_gradients_for_padding() -> None:
    out, *gradients = results(attend_plain, inputs([5, 3], [2, 4], 6, torch.bfloat16))
    assert torch.equal(out[8:], torch.zeros(6, HEADS, SIZE))
    for gradient, used in zip(gradients, (8, 6, 6), strict=True):
        assert torch.equal(gradient[used:], torch.zeros(6, HEADS, SIZE))
        assert gradient.isfinite().all()
        assert gradient[:used].any()


def test_the_stand_in_spoils_padding_that_it_is_given() -> None:
    q, k, v, q_rows, k_rows = inputs([5, 3], [2, 4], 6, torch.bfloat16)
    out = PlainKernel.apply(q, k, v, q_rows.offsets, k_rows.offsets, 5, 4)
    assert out[8:].isnan().all()
    out[:8].float().sum().backward()
    assert q.grad[8:].isnan().all()


def test_rows_of_padding_alone_give_zeros_and_zero_gradients() -> None:
    for attend in (attend_plain, attend_varlen):
        arguments = inputs([0, 0], [2, 3], 4, torch.bfloat16)
        out, *gradients = results(attend, arguments)
        assert not out.any()
        assert not any(g.any() for g in gradients)


# --- fake tensors ---------------------------------------------------------------------------------


@pytest.fixture
def fake() -> Iterator[None]:
    """Make all tensors fake: shapes, dtypes and strides without values."""
    with FakeTensorMode():
        yield


@pytest.mark.parametrize(("q_lengths", "k_lengths"), LENGTHS, ids=str)
def test_the_kernel_traces_forward_and_backward(
    fake: None, q_lengths: list[int], k_lengths: list[int]
) -> None:
    # Queries and keys as models/dit/blocks.py makes them: slices of one tensor, so strided.
    rows, keys = sum(q_lengths) + 3, sum(k_lengths) + 2
    qkv = torch.empty(rows, 3, HEADS, SIZE, dtype=torch.bfloat16, requires_grad=True)
    kv = torch.empty(keys, 2, HEADS, SIZE, dtype=torch.bfloat16, requires_grad=True)
    segments = Ragged.of(q_lengths, CPU), Ragged.of(k_lengths, CPU)
    out = attend_varlen(qkv[:, 0], kv[:, 0], kv[:, 1], *segments)
    assert (out.shape, out.dtype) == ((rows, HEADS, SIZE), torch.bfloat16)
    assert out.is_contiguous()
    gradients = torch.autograd.grad(out.float().sum(), (qkv, kv))
    for x, gradient in zip((qkv, kv), gradients, strict=True):
        assert (gradient.shape, gradient.dtype) == (x.shape, torch.bfloat16)
        assert gradient.stride() == x.stride()


def test_the_kernel_traces_forward_on_a_cuda_device(fake: None) -> None:
    # Without gradients: the autograd of a build without CUDA has no streams for CUDA tensors.
    q, k = (torch.empty(n, HEADS, SIZE, dtype=torch.bfloat16, device="cuda") for n in (12, 9))
    offsets = torch.empty(3, dtype=torch.int32, device="cuda")
    with torch.no_grad():
        out = attend_varlen(q, k, k, Ragged([4, 6], offsets), Ragged([3, 5], offsets))
    assert (out.shape, out.dtype, out.device.type) == ((12, HEADS, SIZE), torch.bfloat16, "cuda")


def fake_pack(config: ModelConfig, lengths: list[int], captions: list[int], rows: int) -> TokenPack:
    """Return a pack of the given rows; those beyond the lengths are padding."""
    values = config.values_per_token
    return TokenPack(
        latent=torch.empty(rows, values),
        valid=torch.empty(rows, values, dtype=torch.bool),
        positions=torch.empty(rows, 3, dtype=torch.long),
        place=torch.empty(rows, POSITION_FEATURES),
        segment=torch.empty(rows, dtype=torch.long),
        lengths=lengths,
        fps=torch.empty(len(lengths)),
        caption=torch.empty(sum(captions), config.text_width),
        caption_lengths=captions,
    )


def half_model(attend: Attend) -> tuple[DiT, ModelConfig]:
    """Return a network in bfloat16 as the engine makes it: its buffer stays fp32."""
    config = ModelConfig(width=32, depth=2, text_width=16)
    torch.set_default_dtype(torch.bfloat16)  # modules of fake tensors cannot be converted
    try:
        model = DiT(config, attend)
    finally:
        torch.set_default_dtype(torch.float32)
    model.sigma = model.sigma.float()
    return model, config


class Watched:
    """Attention that notes the dtypes it is given and passes them on."""

    def __init__(self, attend: Attend) -> None:
        self.attend, self.seen = attend, set()

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, q_rows: Ragged, k_rows: Ragged) -> Tensor:
        self.seen |= {q.dtype, k.dtype, v.dtype}
        return self.attend(q, k, v, q_rows, k_rows)


@pytest.mark.heavy
def test_a_whole_network_in_bf16_with_padding_traces_forward_and_backward(fake: None) -> None:
    attend = Watched(attend_varlen)
    model, config = half_model(attend)
    pack = fake_pack(config, [5, 5, 9], [3, 0, 4], rows=25)
    errors = flow_errors(model, pack, torch.empty(25, config.values_per_token), torch.empty(3))
    assert (errors.shape, errors.dtype) == ((25,), torch.float32)
    errors.sum().backward()
    assert attend.seen == {torch.bfloat16}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.shape, parameter.grad.dtype) == (parameter.shape, torch.bfloat16)


def test_the_network_calls_the_kernel_and_not_the_loop(
    fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    kernel = torch.nn.attention.varlen.varlen_attn

    def counted(*arguments: object) -> Tensor:
        calls.append(arguments[-2:])
        return kernel(*arguments)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", counted)
    model, config = half_model(attend_varlen)
    pack = fake_pack(config, [5, 5, 9], [3, 0, 4], rows=25)
    model(pack, torch.empty(25, config.values_per_token), torch.empty(3))
    assert calls == [(9, 9), (9, 4)] * 2  # self- and cross-attention of two blocks


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_the_queries_of_a_context_rank_trace(rank: int) -> None:
    from trainer.parallel.context import _own_part_of, _own_queries

    attend = _own_queries(attend_varlen, _own_part_of(rank))
    with FakeTensorMode():
        # 20 tokens on 4 ranks of 7 rows: the third has padding, the last has nothing else.
        q = torch.empty(7, HEADS, SIZE, dtype=torch.bfloat16, requires_grad=True)
        kv = torch.empty(9, 2, HEADS, SIZE, dtype=torch.bfloat16, requires_grad=True)
        rows, keys = Ragged.of([9, 2, 9], CPU), Ragged.of([2, 3, 4], CPU)
        out = attend(q, kv[:, 0], kv[:, 1], rows, keys)
        assert (out.shape, out.dtype) == (q.shape, torch.bfloat16)
        out.float().sum().backward()
        assert q.grad.shape == q.shape
        assert kv.grad.shape == kv.shape


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize(("q_lengths", "k_lengths"), LENGTHS, ids=str)
def test_the_loop_is_softmax_attention_of_each_segment_alone(
    q_lengths: list[int], k_lengths: list[int], padding: int
) -> None:
    q, k, v, q_rows, k_rows = inputs(q_lengths, k_lengths, padding, torch.float32)
    expected = by_offsets(q, k, v, q_rows.offsets, k_rows.offsets).nan_to_num(0.0)
    found = attend_segments(q, k, v, q_rows, k_rows)
    torch.testing.assert_close(found, expected)
