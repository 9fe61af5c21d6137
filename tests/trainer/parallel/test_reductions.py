"""Ways to reduce gradients keep every bit: to their owners alone, or in many buckets meanwhile."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from models.objectives.flow import Flow
from trainer.diffusion.micro_batch import accumulate
from trainer.layout import cost
from trainer.layout.config import Gradients, ParallelConfig, Precision
from trainer.optim_config import OptimConfig
from trainer.parallel.engine import Engine
from trainer.parallel.mesh import Mesh, start_mesh, stop_mesh

from .collectives import Recorder, group_names
from .engines import micro_batch
from .test_gradients import MODEL, ROWS, values
from .worlds import rank_file, run_world

BUCKET = 3000  # elements: a few to the model
# (ZeRO stage, way, gradients)
WAYS = [
    (1, "reduce_scatter", "own"),
    (2, "reduce_scatter", "own"),
    (2, "overlap_comm", "own"),
    (2, "overlap_comm", "fp32"),
    (3, "overlap_comm", "own"),
]


def trained(mesh: Mesh, parallel: ParallelConfig) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return what a rank's engine holds after two steps, and the collectives of the second."""
    engine = Engine(MODEL, lambda names: iter(values().items()), OptimConfig(), parallel, mesh)
    for step in range(2):
        torch.manual_seed(10 * step + mesh.place.dp)
        batches = [micro_batch(MODEL, mesh, ROWS) for _ in range(2)]
        with Recorder(group_names(mesh.groups)) as recorder:
            accumulate(engine, batches, 1000.0, Flow())
            engine.step(1e-2, lambda norm: True)
    held = {
        f"{f.name} {kind}": tensor.clone()
        for f in engine.fragments()
        for kind, tensor in f.tensors.items()
    }
    return held, {kind: count.calls for (kind, _), count in recorder.counts.items()}


def compare(ways: list[tuple[int, str, str]], folder: Path) -> None:
    """As one rank: note which tensors differ from those of the default, and the calls of each."""
    cost.OVERLAP_BUCKET = BUCKET
    found = []
    for stage, way, gradients in ways:
        results = []
        for chosen in (False, True):
            parallel = ParallelConfig(
                processes=dist.get_world_size(), zero_stage=stage, device="cpu",
                precision=Precision.bf16, gradients=Gradients(gradients), **{way: chosen},
            )  # fmt: skip
            mesh = start_mesh(parallel)
            results.append(trained(mesh, parallel))
            stop_mesh(mesh)
        (plain, before), (other, after) = results
        differ = [name for name in plain if not plain[name].equal(other[name])]
        found.append([len(plain), differ, before, after])
    rank_file(folder, "ways", dist.get_rank()).write_text(json.dumps(found))


@pytest.mark.dist
def test_two_ranks_hold_the_same_bits_however_gradients_are_reduced(tmp_path: Path) -> None:
    run_world(2, "tests.trainer.parallel.test_reductions:compare", WAYS, tmp_path)
    for rank in range(2):
        found = json.loads(rank_file(tmp_path, "ways", rank).read_text())
        for (stage, way, _), (count, differ, before, after) in zip(WAYS, found, strict=True):
            assert count > 20
            assert differ == [], (rank, stage, way)
            if way == "reduce_scatter":
                assert "reduce" not in before
                assert after["reduce"] > 0
            else:  # one bucket before, and several now
                kind = "reduce_scatter" if stage == 3 else "all_reduce"
                assert after[kind] > before[kind] + 3, (stage, before, after)
