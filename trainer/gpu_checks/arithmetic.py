"""Does the device compute what the CPU computes, in fp32, bf16, compiled and recomputed?"""

import shutil
import warnings
from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import Tensor, nn

from models.attention import Attend, attend_segments
from models.config import AttentionKernel, ModelConfig
from models.kernels import Chosen, capability_of, choose_attention
from models.objectives.flow import flow_errors
from trainer.gpu_checks.curve import Curve, loss_error, train_curve
from trainer.gpu_checks.report import Case, Finding, Settings, Skip, relative, within
from trainer.gpu_checks.samples import SMALL, TINY, build_batch, build_model
from trainer.layout.config import ParallelConfig, Precision, Recompute
from trainer.parallel.mesh import alone, start_mesh, stop_mesh
from trainer.parallel.recompute import wrap_blocks

# Relative to the largest value of a tensor. In fp32 only the order of sums differs; in bf16 a fused
# kernel rounds less often than eager steps do. BF16_LOSS: of a step's loss; 6e-4 on CPU.
FP32, BF16, BF16_LOSS = 1e-4, 5e-2, 5e-3

Results = dict[str, Tensor]


def cases(settings: Settings) -> Iterator[Case]:
    """Yield the cases of one device."""
    model = TINY if settings.quick else SMALL
    yield Case("one step fp32 on the device and on CPU", partial(_on_device, settings, model))
    title = "one step bf16 by the best kernel of attention and by the loop"
    yield Case(title, partial(_by_kernel, settings, model))
    steps = 3 if settings.quick else 20
    yield Case(
        f"losses of {steps} steps in bf16 and in fp32, ZeRO 1",
        partial(_precision, settings, model, steps),
    )
    for dtype in (torch.float32, torch.bfloat16):
        title = f"recompute {{}} and none, {_short(dtype)}"
        for mode in (Recompute.selective, Recompute.full):
            work = partial(_recompute, settings, model, dtype, mode)
            yield Case(title.format(mode.value), work)
        title = f"torch.compile of the blocks and eager, {_short(dtype)}"
        yield Case(title, partial(_compile, settings, model, dtype))


def _best(model: ModelConfig, device: torch.device, dtype: torch.dtype) -> Chosen:
    return choose_attention(AttentionKernel.auto, capability_of(device), dtype, model.head_dim)


def _short(dtype: torch.dtype) -> str:
    return "bf16" if dtype is torch.bfloat16 else "fp32"


def _bound(dtype: torch.dtype) -> float:
    return BF16 if dtype is torch.bfloat16 else FP32


def step_results(
    model: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    recompute: Recompute = Recompute.none,
    compiled: bool = False,
    attend: Attend | None = None,
) -> Results:
    """Return the loss of one padded pack and the gradient of every parameter."""
    network = build_model(model, attend or _best(model, device, dtype).attend).to(device, dtype)
    network.sigma = network.sigma.float()  # as the engine keeps it
    blocks: list[nn.Module] = list(network.blocks)
    wrap_blocks(blocks, recompute, compiled)
    batch = build_batch(model, 512, 0, alone()).to(device)
    loss = flow_errors(network, batch.pack, batch.x_0, batch.t).sum() / batch.values
    loss.backward()
    gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients}


def _compare(found: Results, expected: Results, bound: float) -> Finding:
    if found.keys() != expected.keys():
        return Finding("gradients are missing", "the same names", False)
    errors = {name: relative(found[name], expected[name]) for name in expected}
    worst = max(errors, key=lambda name: errors[name])
    finding = within(errors[worst], bound)
    if finding.passed:
        return finding
    return Finding(f"{finding.result} in {worst}", finding.tolerance, False)


def _on_device(settings: Settings, model: ModelConfig) -> Finding:
    expected = step_results(model, torch.device("cpu"), torch.float32)
    return _compare(step_results(model, settings.device, torch.float32), expected, FP32)


def _by_kernel(settings: Settings, model: ModelConfig) -> Finding:
    found = _reference(settings, model, torch.bfloat16)
    expected = step_results(model, settings.device, torch.bfloat16, attend=attend_segments)
    return _compare(found, expected, BF16)


@cache
def _eager(model_name: str, device: torch.device, dtype: torch.dtype) -> Results:
    model = TINY if model_name == "tiny" else SMALL
    return step_results(model, device, dtype)


def _reference(settings: Settings, model: ModelConfig, dtype: torch.dtype) -> Results:
    return _eager("tiny" if model is TINY else "small", settings.device, dtype)


def _recompute(
    settings: Settings, model: ModelConfig, dtype: torch.dtype, mode: Recompute
) -> Finding:
    found = step_results(model, settings.device, dtype, recompute=mode)
    return _compare(found, _reference(settings, model, dtype), _bound(dtype))


def _compile(settings: Settings, model: ModelConfig, dtype: torch.dtype) -> Finding:
    if not settings.on_cuda:
        if dtype is torch.bfloat16:
            raise Skip("bf16 is compiled on CUDA only")
        if settings.quick:
            raise Skip("--quick leaves out the CPU's compiler, which takes half a minute")
        if shutil.which("g++") is None:
            raise Skip("no C++ compiler")
    expected = _reference(settings, model, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's advice on complex numbers, say
        found = step_results(model, settings.device, dtype, compiled=True)
    return _compare(found, expected, _bound(dtype))


def _precision(settings: Settings, model: ModelConfig, steps: int) -> Finding:
    curves: list[Curve] = []
    for precision in (Precision.bf16, Precision.fp32):
        parallel = ParallelConfig(
            device=settings.device.type,
            zero_stage=1,
            precision=precision,
            timeout_seconds=60,
            start_timeout_seconds=60,
        )
        mesh = start_mesh(parallel)
        try:
            curves.append(train_curve(model, parallel, mesh, steps))
        finally:
            stop_mesh(mesh)
    return within(loss_error(*curves), BF16_LOSS)
