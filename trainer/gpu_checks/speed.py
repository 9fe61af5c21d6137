"""Tokens per second of whole training steps, as a share of what the device's matmul reaches."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial

import torch

from models.config import ModelConfig
from models.count import count_params
from trainer.gpu_checks.attention import milliseconds
from trainer.gpu_checks.curve import train_curve
from trainer.gpu_checks.report import Case, Finding, Settings, Skip
from trainer.layout.config import ParallelConfig, Precision
from trainer.parallel.mesh import start_mesh, stop_mesh


@dataclass(frozen=True)
class Variant:
    """What to time: a model, its arithmetic, and whether its blocks are compiled."""

    model: ModelConfig
    precision: Precision
    compiled: bool = False

    def __str__(self) -> str:
        shape = f"{self.model.width} wide, {self.model.depth} deep"
        millions = count_params(self.model).total / 1e6
        compiled = ", compiled" if self.compiled else ""
        return f"{shape} ({millions:.0f} M), {self.precision.value}{compiled}"


def cases(settings: Settings) -> Iterator[Case]:
    """Yield the matmul, then a few sizes of model."""
    size = 8192 if settings.on_cuda else 256
    for precision in Precision:
        title = f"matmul of {size} x {size}, {precision.value}: the peak that shares refer to"
        yield Case(title, partial(_matmul_finding, settings, precision))
    for variant in _variants(settings):
        yield Case(str(variant), partial(_step, settings, variant))


def _variants(settings: Settings) -> Iterator[Variant]:
    if not settings.on_cuda:
        model = ModelConfig(width=64, depth=2, text_width=32)
        yield Variant(model, Precision.fp32)
        return
    sizes = [(512, 12)] if settings.quick else [(512, 12), (1024, 24)]
    for width, depth in sizes:
        model = ModelConfig(width=width, depth=depth, head_dim=64, text_width=384)
        yield Variant(model, Precision.fp32)
        yield Variant(model, Precision.bf16)
        yield Variant(model, Precision.bf16, compiled=True)


@cache
def matmul_flops(settings: Settings, precision: Precision) -> float:
    """Return the FLOP/s of a large matrix product."""
    size = 8192 if settings.on_cuda else 256
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    a, b = (torch.randn(size, size, device=settings.device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / (milliseconds(lambda: a @ b, settings) * 1e-3)


def _matmul_finding(settings: Settings, precision: Precision) -> Finding:
    return Finding(f"{matmul_flops(settings, precision) / 1e12:.3g} TFLOP/s")


def _step(settings: Settings, variant: Variant) -> Finding:
    parallel = ParallelConfig(
        device=settings.device.type,
        precision=variant.precision,
        zero_stage=1,
        compile=variant.compiled,
        timeout_seconds=60,
        start_timeout_seconds=60,
    )
    budget = 8192 if settings.on_cuda else 256
    mesh = start_mesh(parallel)
    try:
        curve = train_curve(variant.model, parallel, mesh, 10, budget=budget, packs=1, largest=4000)
    except torch.OutOfMemoryError as error:
        raise Skip("out of memory") from error
    finally:
        stop_mesh(mesh)
    second = statistics.median(curve.seconds[3:])  # the first steps build and warm up
    share = curve.flops / second / matmul_flops(settings, variant.precision)
    return Finding(f"{curve.tokens / second:,.0f} tokens/s, {share:.0%} of peak")
