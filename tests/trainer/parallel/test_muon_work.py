"""The work of orthogonal updates in closed form is what the optimizer's products really are."""

from math import ceil, prod

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.config import ModelConfig
from trainer.layout.config import ParallelConfig
from trainer.layout.layout import Coordinates
from trainer.layout.optimizer import OptimizerKind, orthogonal_names, update_works
from trainer.layout.shapes import part_shape, rank_weights
from trainer.parallel.mesh import join_mesh
from trainer.parallel.muon import Matrix, Partitioned, Whole

from .collectives import Recorder, group_names
from .fakes import fake_world, in_child

pytestmark = pytest.mark.dist
MODEL = ModelConfig(width=32, depth=3, head_dim=8, text_width=16)
MUON = OptimizerKind.muon


def measure(zero: int, tp: int, pp: int) -> list[list[int]]:
    """Return [flops, bytes gathered, bytes joined] of each replica of the last stage's first."""
    parallel = ParallelConfig(processes=3 * tp * pp, tp=tp, pp=pp, zero_stage=zero, device="cpu")
    layout, found = parallel.layout, []
    held = rank_weights(MODEL, layout, 1, Coordinates(pp=pp - 1))
    names = [name for name in held if name in orthogonal_names(MODEL, MUON)]
    matrices = [Matrix(part_shape(held[name], tp), held[name].cut) for name in names]
    for dp in range(layout.dp):
        rank = layout.rank(Coordinates(dp=dp, pp=pp - 1))
        with fake_world(rank, layout.world):
            mesh = join_mesh(layout, torch.device("cpu"))
            parts = [torch.randn(matrix.part) for matrix in matrices]
            share = 2 * ceil(sum(prod(m.part) for m in matrices) / 2 / layout.dp)
            direct = (Partitioned if zero else Whole)(matrices, mesh, torch.float32)
            counter = FlopCounterMode(display=False)
            with Recorder(group_names(mesh.groups)) as recorder, counter:
                direct([torch.randn(share)] if zero else parts)
            sent = {group: count.bytes for (_, group), count in recorder.counts.items()}
            bytes_of = [sent.get("replicas", 0), sent.get("tp", 0)]
            found.append([counter.get_total_flops(), *bytes_of])
    return found


@pytest.mark.parametrize(
    ("zero", "tp", "pp"), [(0, 1, 1), (0, 2, 1), (1, 1, 1), (1, 2, 1), (1, 1, 2)]
)
def test_products_and_bytes_of_every_replica_are_those_of_the_closed_form(
    zero: int, tp: int, pp: int
) -> None:
    found = in_child("tests.trainer.parallel.test_muon_work:measure", zero, tp, pp)
    parallel = ParallelConfig(processes=3 * tp * pp, tp=tp, pp=pp, zero_stage=zero)
    works = update_works(MODEL, parallel, pp - 1, MUON)
    assert [[work.flops, work.gathered, work.joined] for work in works] == found
    assert all(work.flops for work in works)
