"""Do the kernels of attention agree: values, every gradient, and padding that stays zero?"""

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from models.attention import Attend, attend_segments
from models.config import AttentionKernel
from models.kernels import build_attention, capability_of, why_not
from models.pack import Ragged
from trainer.gpu_checks.report import Case, Finding, Settings, Skip, relative, within

# A bf16 value is rounded by up to 2^-9 = .002 of itself; a score passes through a few roundings.
BF16, FP32 = 2e-2, 2e-5
HEADS, PADDING = 4, 37
# Name, query lengths, key lengths: ragged, caption keys, and what context ranks see: overlaps that
# are empty, and queries that begin and end inside of their segments.
SHAPES = {
    "self": ([3, 64, 64, 257, 1, 130], [3, 64, 64, 257, 1, 130]),
    "cross": ([3, 64, 64, 257, 1, 130], [1, 7, 7, 48, 12, 1]),
    "empty segments": ([0, 64, 0, 257, 0], [5, 7, 9, 48, 3]),
    "parts of segments": ([40, 64, 19], [257, 64, 130]),
}


def cases(settings: Settings) -> Iterator[Case]:
    """Yield a case for each kernel, shape and head size, then how fast each kernel is."""
    kernels = [kernel for kernel in AttentionKernel if kernel is not AttentionKernel.auto]
    sizes = (16,) if settings.quick else (16, 64, 128)
    for kernel in kernels:
        for shape in SHAPES:
            for size in sizes:
                work = partial(_parity, settings, kernel, shape, size)
                yield Case(f"{kernel.value} bf16 and loop fp32: {shape}, head {size}", work)
    yield Case("loop fp32 on the device and on CPU", partial(_parity_fp32, settings))
    for kernel in kernels:
        title = f"{kernel.value} bf16: forward and backward, 16 heads of 64"
        yield Case(title, partial(_speed, settings, kernel))


def _require(settings: Settings, kernel: AttentionKernel, size: int) -> Attend:
    """Return a kernel's attention; built when it is used, since FA3 is torch's for all or none."""
    reason = why_not(kernel, capability_of(settings.device), torch.bfloat16, size)
    if reason:
        raise Skip(reason)
    return build_attention(kernel)


def _parity(settings: Settings, kernel: AttentionKernel, shape: str, size: int) -> Finding:
    attend = _require(settings, kernel, size)
    tensors = _tensors(shape, size)
    expected = _results(attend_segments, tensors, shape, torch.device("cpu"), torch.float32)
    found = _results(attend, tensors, shape, settings.device, torch.bfloat16)
    used = [sum(SHAPES[shape][i]) for i in (0, 0, 1, 1)]
    if any(x[n:].count_nonzero() or x[n:].isnan().any() for x, n in zip(found, used, strict=True)):
        return Finding("padding is not zero", "zeros", False)
    return within(max(relative(a, b) for a, b in zip(found, expected, strict=True)), BF16)


def _parity_fp32(settings: Settings) -> Finding:
    tensors = _tensors("self", 64)
    cpu, device = torch.device("cpu"), settings.device
    expected = _results(attend_segments, tensors, "self", cpu, torch.float32)
    found = _results(attend_segments, tensors, "self", device, torch.float32)
    return within(max(relative(a, b) for a, b in zip(found, expected, strict=True)), FP32)


def _tensors(shape: str, size: int) -> list[Tensor]:
    """Return queries, keys, values and the gradient of the output, rounded to bf16."""
    draw = torch.Generator().manual_seed(size)
    rows, keys = (sum(lengths) + PADDING for lengths in SHAPES[shape])
    drawn = (torch.randn(n, HEADS, size, generator=draw) for n in (rows, keys, keys, rows))
    return [x.bfloat16().float() for x in drawn]


def _results(
    attend: Attend, tensors: list[Tensor], shape: str, device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """Return the output and the gradients of queries, keys and values."""
    *inputs, weight = (x.detach().to(device, dtype) for x in tensors)
    inputs = [x.requires_grad_() for x in inputs]
    q_rows, k_rows = (Ragged.of(lengths, device) for lengths in SHAPES[shape])
    out = attend(inputs[0], inputs[1], inputs[2], q_rows, k_rows)
    return [out.detach(), *torch.autograd.grad(out, inputs, weight)]


def _speed(settings: Settings, kernel: AttentionKernel) -> Finding:
    attend = _require(settings, kernel, 64)
    lengths = [256] * 8 + [512] * 4 + [2048] * 2 if settings.on_cuda else [32, 48]
    segments = Ragged.of(lengths, settings.device)
    qkv = torch.randn(sum(lengths), 3, 16, 64, device=settings.device, dtype=torch.bfloat16)
    qkv.requires_grad_()

    def work() -> None:
        out = attend(qkv[:, 0], qkv[:, 1], qkv[:, 2], segments, segments)
        torch.autograd.grad(out.float().sum(), qkv)

    return Finding(f"{milliseconds(work, settings):.2f} ms, {sum(lengths):,} tokens")


def milliseconds(work: Callable[[], object], settings: Settings) -> float:
    """Return the median time of a piece of work, its results waited for."""
    times = []
    for _ in range(3 if settings.quick else 13):
        begun = time.perf_counter()
        work()
        if settings.on_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return sorted(times[1:])[len(times) // 2 - 1] * 1e3
