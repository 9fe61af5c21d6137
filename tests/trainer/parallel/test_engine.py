"""What the engine promises about weights that tensor ranks share, and about steps it declines."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from data.loading.loader import Loader
from models.objectives.flow import Flow
from trainer.diffusion.collate import Collator
from trainer.diffusion.micro_batch import accumulate, prepare
from trainer.parallel.engine import Engine
from trainer.parallel.mesh import start_mesh, stop_mesh

from ..conftest import write_latents
from .parity import Case, compose, start_values
from .worlds import rank_file, run_world

pytestmark = pytest.mark.dist
CASES = [Case(tp=2, zero=zero) for zero in (0, 1, 2, 3)]


def drift(cases: list[Case], latents: Path, folder: Path) -> None:
    """As one rank: let one whole weight of one rank drift by one bit, and note what is said."""
    for case in cases:
        run = compose(case, latents)
        mesh = start_mesh(run.parallel)
        engine = Engine(run.model, partial(start_values, run), run.optim, run.parallel, mesh)
        engine.check_equal()
        said = ""
        if mesh.rank == 1:
            (own,) = (f for f in engine.fragments() if f.name == "blocks.2.offset")
            own.tensors["param"].view(torch.int32)[5] += 1
        try:
            engine.check_equal()
        except RuntimeError as error:
            said = str(error)
        rank_file(folder, case.name, mesh.rank).write_text(json.dumps(said))
        stop_mesh(mesh)


def test_one_bit_of_drift_between_tensor_ranks_is_named(tmp_path: Path) -> None:
    latents = write_latents(tmp_path / "latents")
    run_world(2, "tests.trainer.parallel.test_engine:drift", CASES, latents, tmp_path)
    for case in CASES:
        for rank in range(2):
            said = json.loads(rank_file(tmp_path, case.name, rank).read_text())
            assert said == (
                "parameter blocks.2.offset: differs between the tensor ranks [0, 1], which must "
                "hold equal bits."
            ), (case, rank)


DECLINED = [Case(zero=0), *(Case(dp=2, zero=zero) for zero in (1, 2, 3)), Case(tp=2, pp=2, zero=1)]


def decline(cases: list[Case], latents: Path, folder: Path) -> None:
    """As one rank: decline a step with good gradients, and tell whether any bit moved."""
    for case in cases:
        run = compose(case, latents)
        mesh = start_mesh(run.parallel)
        loader = Loader(run.data, "train", run.cell, 0, mesh.place.dp, mesh.layout.dp)
        collator = Collator(run.codec, run.text)
        engine = Engine(run.model, partial(start_values, run), run.optim, run.parallel, mesh)
        moved = []
        for allowed in (True, False, True):
            batches = [prepare(pack, run, collator, mesh) for pack in loader.next_step().packs]
            before = _state(engine)
            accumulate(engine, batches, 1000.0, Flow())
            norm = engine.step(1e-2, lambda norm, allowed=allowed: allowed)
            assert 0 < norm < float("inf")
            after = _state(engine)
            moved.append(any(not torch.equal(before[key], after[key]) for key in before))
        rank_file(folder, case.name, mesh.rank).write_text(json.dumps(moved))
        loader.close()
        stop_mesh(mesh)


def _state(engine: Engine) -> dict[tuple[str, str], torch.Tensor]:
    return {(f.name, kind): t.clone() for f in engine.fragments() for kind, t in f.tensors.items()}


@pytest.mark.parametrize("world", sorted({case.world for case in DECLINED}))
def test_a_declined_step_keeps_every_bit(tmp_path: Path, world: int) -> None:
    latents = write_latents(tmp_path / "latents")
    cases = [case for case in DECLINED if case.world == world]
    run_world(world, "tests.trainer.parallel.test_engine:decline", cases, latents, tmp_path)
    for case in cases:
        for rank in range(world):
            found = json.loads(rank_file(tmp_path, case.name, rank).read_text())
            assert found == [True, False, True], (case, rank)
