"""Layouts in bf16 beside one process in fp32: a step's loss, and the gradient of each weight."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import Tensor

from data.loading.loader import Loader
from models.architecture import specification_of
from models.attention import attend_segments
from models.objective import build_objective
from trainer.diffusion.collate import Collator
from trainer.diffusion.micro_batch import accumulate, prepare
from trainer.parallel.engine import Engine
from trainer.parallel.mesh import start_mesh, stop_mesh

from ..conftest import write_latents
from .parity import RATE, Case, compose, start_values, weights
from .worlds import run_world

pytestmark = pytest.mark.dist
# What bf16 must keep: the loss within 0.1 %, all gradients together within 1 % in their norm.
LOSS, GRADIENT = 1e-3, 1e-2
BF16 = "parallel.precision=bf16 optim.clip=1e9"
WIDE = f"{BF16} parallel.gradients=fp32"
CASES = [
    Case(zero=1, accumulation=2, extra=BF16),
    *(Case(dp=2, zero=zero, extra=extra) for zero in (1, 2, 3) for extra in (BF16, WIDE)),
    *(
        Case(**{axis: 2}, zero=1, accumulation=2, extra=extra)
        for axis in ("tp", "cp", "pp")
        for extra in (BF16, WIDE)
    ),
]
FP32 = Case(accumulation=2, extra="optim.clip=1e9")
COLUMNS = ["layout", "ZeRO", "gradients", "loss", "all gradients", "worst parameter"]


def step(cases: list[Case], latents: Path, folder: Path) -> None:
    """As one rank: take one step of each case; leave its loss and gradients behind."""
    for case in cases:
        run = compose(case, latents)
        mesh = start_mesh(run.parallel)
        place = mesh.place
        loader = Loader(run.data, "train", run.cell, 0, place.dp, mesh.layout.dp, mesh.peers)
        collator, objective = Collator(run.codec, run.text), build_objective(run.objective)
        values, predicts = partial(start_values, run), objective.coefficients
        engine = Engine(run.model, values, run.optim, run.parallel, mesh, attend_segments, predicts)
        batches = [prepare(pack, run, collator, mesh) for pack in loader.next_step().packs]
        own = float(sum(batch.values for batch in batches))
        (total,) = mesh.sum(own if mesh.leads_replica else 0.0)
        errors = accumulate(engine, batches, total, objective)
        (error,) = mesh.sum(sum(float(e.double().sum()) for e in errors))
        engine.step(RATE, lambda norm: True)
        # The first moment after one step is the gradient, times a number.
        moments = {
            f"{f.name}|{f.part}|{f.parts}|{f.start}": f.tensors["exp_avg"].float().clone()
            for f in engine.fragments()
            if engine.writes(f)
        }
        save_file(moments, folder / f"{case.name}-{mesh.rank}.safetensors")
        (folder / f"{case.name}-{mesh.rank}.json").write_text(json.dumps(error / total))
        loader.close()
        stop_mesh(mesh)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which all cases left what they found."""
    root = tmp_path_factory.mktemp("bf16")
    latents = write_latents(root / "latents")
    for world in (1, 2):
        mine = [case for case in [FP32, *CASES] if case.world == world]
        run_world(world, "tests.trainer.parallel.test_bf16_parity:step", mine, latents, root)
    return root


@pytest.fixture
def row(summary_table: Callable[..., Callable[..., None]]) -> Callable[..., None]:
    """Return what adds a row to the table at the end."""
    return summary_table("bf16 against fp32 in one process, one step, relative", COLUMNS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_layout_in_bf16_has_the_loss_and_the_gradients_of_fp32(
    steps: Path, case: Case, row: Callable[..., None]
) -> None:
    facts = specification_of(compose(FP32, steps / "latents").model)
    mine, theirs = weights(case, steps, facts), weights(FP32, steps, facts)
    found, expected = (json.loads((steps / f"{c.name}-0.json").read_text()) for c in (case, FP32))
    loss = abs(found / expected - 1)
    apart = {name: mine[name].double() - theirs[name].double() for name in theirs}
    each = {name: norm(apart[name]) / norm(theirs[name]) for name in apart if theirs[name].any()}
    together = norm_of(apart) / norm_of(theirs)
    worst = max(each, key=lambda name: each[name])
    kind = "fp32" if case.extra == WIDE else "own"
    shown = (f"{100 * loss:.3f} %", f"{100 * together:.2f} %", f"{worst} {100 * each[worst]:.1f} %")
    row(case.layout, case.zero, kind, *shown)
    assert loss < LOSS
    assert together < GRADIENT


def norm(tensor: Tensor) -> float:
    """Return the norm of a tensor."""
    return float(tensor.double().norm())


def norm_of(tensors: dict[str, Tensor]) -> float:
    """Return the norm of many tensors as one vector."""
    return sum(norm(tensor) ** 2 for tensor in tensors.values()) ** 0.5
