"""A few optimizer steps of the trainer's own engine on random packs, under any layout."""

import gc
import time
import warnings
from dataclasses import dataclass

import torch

from models.config import ModelConfig
from models.objectives.flow import Flow
from trainer.diffusion.micro_batch import accumulate
from trainer.gpu_checks.samples import build_batch, random_values
from trainer.layout.config import ParallelConfig
from trainer.optim_config import OptimConfig
from trainer.parallel.engine import Engine, attention_of
from trainer.parallel.mesh import Mesh

PACKS = 4  # packs of a step, over all data-parallel ranks


@dataclass(frozen=True)
class Curve:
    """What some steps computed.

    losses, norms: of each step, over all ranks. seconds: of each step on this rank.
    peak_bytes: most memory this rank's device held; 0 on CPU. tokens, flops: of one step.
    """

    losses: list[float]
    norms: list[float]
    seconds: list[float]
    peak_bytes: int
    tokens: int
    flops: int


def train_curve(
    model: ModelConfig,
    parallel: ParallelConfig,
    mesh: Mesh,
    steps: int,
    budget: int = 192,
    packs: int = PACKS,
    largest: int = 700,
) -> Curve:
    """Train from the same weights on the same packs, whatever the layout; collective."""
    on_cuda = mesh.device.type == "cuda"
    if on_cuda:
        gc.collect()  # engines refer to themselves; the last one must not count
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    optim = OptimConfig(lr=1e-3, clip=1.0)
    values = random_values(model, mesh.device.type)
    attend = attention_of(model, parallel, mesh).attend
    with warnings.catch_warnings():
        # torch 2.13 renamed collectives that deepspeed 0.19 still calls by their old names.
        warnings.filterwarnings("ignore", ".*is deprecated. Please use", FutureWarning)
        engine = Engine(model, values, optim, parallel, mesh, attend)
        share = range(packs)[mesh.place.dp :: mesh.layout.dp]
        batches = [build_batch(model, budget, seed, mesh, largest) for seed in share]
        counted = batches if mesh.leads_replica else []
        sums = [sum(getattr(b, key) for b in counted) for key in ("values", "tokens", "flops")]
        denominator, tokens, flops = mesh.sum(*map(float, sums))
        losses, norms, seconds = [], [], []
        for _ in range(steps):
            begun = time.perf_counter()
            errors = accumulate(engine, batches, denominator, Flow())
            (error,) = mesh.sum(sum(float(e.sum(dtype=torch.float64)) for e in errors))
            norms.append(engine.step(optim.lr, _always))
            if on_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
            losses.append(error / denominator)
    peak = torch.cuda.max_memory_allocated() if on_cuda else 0
    return Curve(losses, norms, seconds, peak, int(tokens), int(flops))


def _always(norm: float) -> bool:
    return True


def largest_error(found: Curve, expected: Curve) -> float:
    """Return the largest relative difference of losses and gradient norms."""
    return max(loss_error(found, expected), _error(found.norms, expected.norms))


def loss_error(found: Curve, expected: Curve) -> float:
    """Return the largest relative difference of losses."""
    return _error(found.losses, expected.losses)


def _error(found: list[float], expected: list[float]) -> float:
    errors = (abs(a / b - 1) for a, b in zip(found, expected, strict=True))
    return max(error if error == error else float("inf") for error in errors)  # NaN has no order
