"""What context ranks compute of a pack's segments, they compute once a pack."""

from collections.abc import Collection, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models.config import ModelConfig
from models.network import initial_values
from models.objectives.flow import Flow
from trainer.diffusion.micro_batch import accumulate
from trainer.optim_config import OptimConfig
from trainer.parallel.engine import Engine
from trainer.parallel.mesh import join_mesh

from .engines import Setting, micro_batch
from .fakes import fake_world, in_child

pytestmark = pytest.mark.dist
SETTING = Setting(cp=4, head_ranks=2, recompute="full", micros=3)
PACKS = SETTING.micros


class _Offsets(TorchDispatchMode):
    """Counts the offsets of segments that are made: int32 from numbers, for a device."""

    made = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, inputs: Any = (), settings: Any = None
    ) -> Any:
        found = function(*inputs, **(settings or {}))
        if "lift_fresh" in str(function) and found.dtype is torch.int32:
            self.made += 1
        return found


def count_offsets(depths: list[int]) -> list[int]:
    """Return the offsets that a step makes as the second of four context ranks, by depth."""
    counts = []
    with fake_world(1, SETTING.cp):
        for depth in depths:
            model = ModelConfig(width=32, depth=depth, head_dim=8, text_width=16)
            mesh = join_mesh(SETTING.parallel.layout, torch.device("cpu"))

            def values(
                names: Collection[str], model: ModelConfig = model
            ) -> Iterator[tuple[str, Tensor]]:
                return initial_values(model, torch.Generator().manual_seed(0))

            engine = Engine(model, values, OptimConfig(), SETTING.parallel, mesh)
            batches = [micro_batch(model, mesh, SETTING.work.rows) for _ in range(PACKS)]
            with _Offsets() as offsets:
                accumulate(engine, batches, 1000.0, Flow())
            counts.append(offsets.made)
    return counts


def test_offsets_of_own_segments_are_made_once_a_pack_whatever_the_depth() -> None:
    few, many = in_child("tests.trainer.parallel.test_context:count_offsets", [2, 6])
    # Of a pack: clips and captions; of own rows: queries and keys for each of the two.
    assert few == many == 6 * PACKS
