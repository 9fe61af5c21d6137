"""Are gradients in bf16 right where thousands of rows share one value, and at width?

On CPU both are tests (tests/models/dit/test_modulation.py, tests/trainer/parallel); CUDA sums by
kernels of its own.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from models.config import ModelConfig
from models.rows import take
from trainer.gpu_checks.arithmetic import step_results
from trainer.gpu_checks.attention import milliseconds
from trainer.gpu_checks.report import Case, Finding, Settings, Skip, relative, within
from trainer.gpu_checks.samples import TINY

BOUND = 1e-2  # the bar that bf16's gradients are held to (docs/first_day.md)
WIDE = ModelConfig(width=1024, depth=4, head_dim=64, text_width=32)


def cases(settings: Settings) -> Iterator[Case]:
    """Yield the gradient of modulation, of a norm's weight, and of a wide network."""
    rows = 65_536 if settings.on_cuda and not settings.quick else 2048
    what = f"gradient of modulation, bf16, {rows:,} rows a segment"
    yield Case(f"{what}, twice", partial(_taken_twice, settings, rows))
    yield Case(f"{what}, and fp64", partial(_taken, settings, rows))
    yield Case(f"{what}: its time", partial(_taken_time, settings, rows))
    title = f"gradient of a norm's weight, bf16, {rows:,} rows, and fp64"
    yield Case(title, partial(_norm_weight, settings, rows))
    yield Case("all gradients of a step, bf16 and fp32, wide", partial(_step, settings))


def _rows(settings: Settings, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a table of two segments, the segment of each row, and the gradient of all rows."""
    draw = torch.Generator().manual_seed(0)
    table = torch.randn(2, 256, generator=draw)
    # A mean that is far from zero: what is added up then is large beside each of its parts.
    gradient = 1 + 0.1 * torch.randn(2 * rows, 256, generator=draw)
    index = torch.arange(2).repeat_interleave(rows)
    return table.to(settings.device), index.to(settings.device), gradient.to(settings.device)


def _taken_gradient(settings: Settings, rows: int) -> tuple[Tensor, Tensor]:
    table, index, gradient = _rows(settings, rows)
    table.requires_grad_()
    rounded = gradient.bfloat16()
    (found,) = torch.autograd.grad(take(table, index, torch.bfloat16), table, rounded)
    return found, rounded.double().unflatten(0, (2, rows)).sum(1)


def _taken_twice(settings: Settings, rows: int) -> Finding:
    first, second = (_taken_gradient(settings, rows)[0] for _ in range(2))
    same = torch.equal(first, second)
    return Finding("equal bits" if same else "other bits", "equal bits", same)


def _taken(settings: Settings, rows: int) -> Finding:
    return within(relative(*_taken_gradient(settings, rows)), BOUND)


def _taken_time(settings: Settings, rows: int) -> Finding:
    table, index, gradient = _rows(settings, rows)
    table.requires_grad_()
    out, rounded = take(table, index, torch.bfloat16), gradient.bfloat16()

    def work() -> None:
        torch.autograd.grad(out, table, rounded, retain_graph=True)

    return Finding(f"{milliseconds(work, settings):.2f} ms")


def _norm_weight(settings: Settings, rows: int) -> Finding:
    if not settings.on_cuda:
        raise Skip("on CPU the norm of bf16 is computed in two steps")
    draw = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(rows, 256, generator=draw).bfloat16() for _ in range(2))
    found: list[Tensor] = []
    for device, dtype in ((settings.device, torch.bfloat16), (torch.device("cpu"), torch.float64)):
        weight = torch.ones(256, device=device, dtype=dtype, requires_grad=True)
        out = layer_norm(x.to(device, dtype), (256,), weight, eps=1e-6)
        # Positive parts: their sum is far from zero, as one of a trained network is.
        found += torch.autograd.grad(out, weight, (x * gradient.abs()).to(device, dtype))
    return within(relative(found[0], found[1]), BOUND)


def _step(settings: Settings) -> Finding:
    model = WIDE if settings.on_cuda else TINY
    found, expected = (
        step_results(model, settings.device, dtype) for dtype in (torch.bfloat16, torch.float32)
    )
    apart = sum(float((found[n].double() - expected[n].double()).square().sum()) for n in expected)
    whole = sum(float(value.double().square().sum()) for value in expected.values())
    return within((apart / whole) ** 0.5, BOUND)
