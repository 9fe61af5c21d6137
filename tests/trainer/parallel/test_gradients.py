"""Gradients in bf16 over many micro-batches and ranks: added up in fp32 where a run asks for it."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.config import ModelConfig
from models.dit.model import DiT
from models.network import initial_values
from models.objectives.flow import Flow
from trainer.diffusion.micro_batch import MicroBatch, accumulate
from trainer.layout.config import Gradients, ParallelConfig, Precision
from trainer.optim_config import OptimConfig
from trainer.parallel.engine import Engine
from trainer.parallel.mesh import alone, start_mesh, stop_mesh

from .engines import micro_batch
from .worlds import rank_file, run_world

MODEL = ModelConfig(width=32, depth=1, text_width=8)
ROWS = 512
STAGES = [1, 2, 3]


def values() -> dict[str, Tensor]:
    """Return weights of which none starts at zero, rounded as bf16 rounds them."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: (value + 0.1 * torch.randn(value.shape, generator=generator)).bfloat16().float()
        for name, value in initial_values(MODEL, generator)
    }


def batches(count: int) -> list[MicroBatch]:
    """Return few different micro-batches, many times over."""
    torch.manual_seed(5)
    found = [micro_batch(MODEL, alone(), ROWS) for _ in range(8)]
    return [found[i % len(found)] for i in range(count)]


def exact_gradients(count: int) -> dict[str, Tensor]:
    """Return the sum of the bf16 gradients of micro-batches, in double precision."""
    model = DiT(MODEL)
    model.load_state_dict(values())
    model.to(torch.bfloat16)
    model.restore_buffers(torch.device("cpu"))
    found = {
        name: torch.zeros(p.shape, dtype=torch.float64) for name, p in model.named_parameters()
    }
    for batch in batches(8):
        model.zero_grad()
        (Flow().errors(model, batch.pack, batch.x_0, batch.t).sum() / 1000).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            found[name] += parameter.grad.double() * (count / 8)
    return found


def error_of(parallel: ParallelConfig, count: int) -> float:
    """Return the relative error of a rank's summed gradients, read from AdamW's first moments."""
    mesh = start_mesh(parallel) if parallel.processes > 1 else alone()
    optim, whole = OptimConfig(beta1=0.0, clip=0.0), values()
    engine = Engine(MODEL, lambda names: iter(whole.items()), optim, parallel, mesh)
    own = batches(count)[mesh.place.dp :: mesh.layout.dp]
    accumulate(engine, own, 1000.0, Flow())
    engine.step(1e-3, lambda norm: True)
    expected, off, size = exact_gradients(count), 0.0, 0.0
    for piece in engine.fragments():
        found = piece.tensors["exp_avg"].double()
        exact = expected[piece.name].flatten()[piece.start : piece.start + len(found)]
        off, size = off + float((found - exact).square().sum()), size + float(exact.square().sum())
    if parallel.processes > 1:
        stop_mesh(mesh)
    return (off / size) ** 0.5


def layout(stage: int, gradients: Gradients, processes: int = 1) -> ParallelConfig:
    """Return a layout in bf16."""
    return ParallelConfig(
        processes=processes, zero_stage=stage, precision=Precision.bf16, gradients=gradients,
        device="cpu",
    )  # fmt: skip


@pytest.mark.heavy
@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(("stage", "count"), [(1, 256), (2, 64), (3, 64)])
def test_fp32_gradients_of_many_micro_batches_are_their_sum(stage: int, count: int) -> None:
    assert error_of(layout(stage, Gradients.fp32), count) < 1e-5
    # In bf16 the later ones leave little trace, which is what the key is for.
    assert error_of(layout(stage, Gradients.own), count) > 2e-3


def reduce_apart(folder: Path) -> None:
    """As one rank of two: leave behind how far the gradients of 16 micro-batches are off."""
    found = [error_of(layout(stage, Gradients.fp32, 2), 16) for stage in STAGES]
    rank_file(folder, "errors", int(os.environ["RANK"])).write_text(json.dumps(found))


@pytest.mark.dist
def test_fp32_gradients_of_two_ranks_are_their_sum(tmp_path: Path) -> None:
    run_world(2, "tests.trainer.parallel.test_gradients:reduce_apart", tmp_path)
    for rank in range(2):
        errors = json.loads(rank_file(tmp_path, "errors", rank).read_text())
        assert max(errors) < 1e-5, errors
