"""Do norms and products of packages agree with torch's, and what do they gain?"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from models.kernels import Norm, build_te_norm, capability_of
from models.rows import norm_rows
from trainer.gpu_checks.attention import milliseconds
from trainer.gpu_checks.curve import Curve, loss_error, train_curve
from trainer.gpu_checks.report import Case, Finding, Settings, Skip, relative, within
from trainer.gpu_checks.samples import SMALL
from trainer.layout.config import Gradients, ParallelConfig, Precision, Products
from trainer.parallel.float8 import narrow
from trainer.parallel.mesh import start_mesh, stop_mesh

# NORM: bf16 rounds a value by up to 2^-9, its norm's few sums too. FLOAT8: of a loss of twenty
# steps; e4m3 rounds a value by up to 2^-4, a product over thousands of them far less; on CPU: 2e-3.
NORM, FLOAT8, SAME = 2e-2, 2e-2, 1e-4


def cases(settings: Settings) -> Iterator[Case]:
    """Yield the norms, the products, and ways to reduce gradients."""
    yield Case("te norm bf16 and torch's norm fp32", partial(_norm_parity, settings))
    for name in ("torch", "te"):
        title = f"{name} norm bf16: forward and backward, 16,384 rows of 2,048"
        yield Case(title, partial(_norm_speed, settings, name))
    steps = 3 if settings.quick else 20
    yield Case(f"losses of {steps} steps, float8 and bf16", partial(_float8, settings, steps))
    for products in Products:
        title = f"products {products.value}, bf16: 8,192 rows of 4,096 by 4,096, and back"
        yield Case(title, partial(_product_speed, settings, products))
    for wide in Gradients:
        title = f"losses of {steps} steps, gradients {wide.value}: overlap_comm and not"
        yield Case(title, partial(_overlap, settings, wide, steps))


def _norm(settings: Settings, name: str) -> Norm:
    if name == "torch":
        return norm_rows
    try:
        return build_te_norm(capability_of(settings.device))
    except ValueError as error:
        raise Skip(str(error)) from error


def _norm_results(norm: Norm, x: Tensor, weight: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    out = norm(x)
    return [out.detach(), *torch.autograd.grad(out, x, weight)]


def _norm_parity(settings: Settings) -> Finding:
    norm, draw = _norm(settings, "te"), torch.Generator().manual_seed(0)
    x, weight = (torch.randn(300, 2048, generator=draw).bfloat16() for _ in range(2))
    found = _norm_results(norm, x.to(settings.device), weight.to(settings.device))
    expected = _norm_results(norm_rows, x.float(), weight.float())
    return within(max(relative(a, b) for a, b in zip(found, expected, strict=True)), NORM)


def _norm_speed(settings: Settings, name: str) -> Finding:
    norm, rows = _norm(settings, name), 16_384 if settings.on_cuda else 256
    x, weight = (
        torch.randn(rows, 2048, device=settings.device, dtype=torch.bfloat16) for _ in range(2)
    )
    return _timed(lambda: _norm_results(norm, x, weight), settings)


def _timed(work: Callable[[], object], settings: Settings) -> Finding:
    return Finding(f"{milliseconds(work, settings):.2f} ms")


def _train(
    settings: Settings, steps: int, products: Products, gradients: Gradients, overlaps: bool
) -> Curve:
    """Train a small model in bf16 under ZeRO 2, alone."""
    parallel = ParallelConfig(
        device=settings.device.type,
        precision=Precision.bf16,
        zero_stage=2,
        products=products,
        gradients=gradients,
        overlap_comm=overlaps,
        timeout_seconds=60,
        start_timeout_seconds=60,
    )
    mesh = start_mesh(parallel)
    try:
        return train_curve(SMALL, parallel, mesh, steps)
    except ValueError as error:  # a package that is missing, a device that is too old
        raise Skip(str(error)) from error
    finally:
        stop_mesh(mesh)


def _float8(settings: Settings, steps: int) -> Finding:
    found = _train(settings, steps, Products.float8, Gradients.own, False)
    expected = _train(settings, steps, Products.own, Gradients.own, False)
    return within(loss_error(found, expected), FLOAT8)


def _overlap(settings: Settings, gradients: Gradients, steps: int) -> Finding:
    found, expected = (
        _train(settings, steps, Products.own, gradients, overlaps) for overlaps in (True, False)
    )
    return within(loss_error(found, expected), SAME)


def _product_speed(settings: Settings, products: Products) -> Finding:
    """Time a large layer, forward and backward, in the arithmetic of a run's blocks."""
    width, rows = (4096, 8192) if settings.on_cuda else (64, 64)
    layer = nn.Sequential(nn.Linear(width, width, bias=False))
    layer.to(settings.device, torch.bfloat16)
    if products is Products.float8:
        try:
            narrow(layer, {"0"}, settings.device)
        except ValueError as error:
            raise Skip(str(error)) from error
    x = torch.randn(rows, width, device=settings.device, dtype=torch.bfloat16, requires_grad=True)
    parameters = list(layer.parameters())

    def work() -> None:
        torch.autograd.grad(layer(x).float().sum(), [x, *parameters])

    return _timed(work, settings)
