"""A network that one device does not hold: tensor and context ranks draw with it together.

Its parts, the cuts of rows and the messages are those of training; only the rows of each answer are
gathered again, so that every rank of a network sees the same velocities and takes the same steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from models.architecture import specification_of
from models.objective import build_objective
from models.pack import TokenPack
from trainer.checkpoint.pieces import CheckpointError
from trainer.checkpoint.read import Loaded, load_latest, stored_values
from trainer.config import RunConfig, load_run
from trainer.diffusion.collate import pad_pack
from trainer.parallel.engine import attention_of, dtype_of
from trainer.parallel.mesh import Mesh
from trainer.parallel.rows import gather_rows, own_rows, padded_rows, row_slice
from trainer.parallel.stage import Stage, build_stage, materialise
from trainer.parallel.workers import worker_layout


class SplitNetwork:
    """A network in parts on the ranks of a mesh that share packs, called as a whole one.

    loaded: the checkpoint it was read from. dtype: in which it computes. Calls are collective.
    """

    def __init__(self, stage: Stage, mesh: Mesh, loaded: Loaded, dtype: torch.dtype) -> None:
        self._stage, self._mesh, self._loaded, self._dtype = stage, mesh, loaded, dtype

    def __call__(
        self, pack: TokenPack, x_t: Float[Tensor, "S V"], t: Float[Tensor, " T"]
    ) -> Float[Tensor, "S V"]:
        """Predict at ``x_t`` as the whole network would; all ranks give and get the same."""
        layout, rank = self._mesh.layout, self._mesh.rank
        rows = padded_rows(len(x_t), layout)
        x = pad(x_t, (0, 0, 0, rows - len(x_t)))[row_slice(rows, layout, rank)]
        whole = replace(pad_pack(pack, rows), lone=0, twins=())  # rows lie apart
        own = own_rows(whole, layout, rank)
        found = self._stage(0, own, x, t, None)
        return gather_rows(found, self._mesh.groups["peers"])[: len(x_t)]

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield whole parameters by name, one read after the other, as one process has them."""
        facts = self._stage.facts
        for name, shape in sorted(facts.shapes.items()):
            yield (
                name,
                self._loaded.tensor("ema", name, shape, facts.cuts.get(name)).to(self._dtype),
            )


def latest_of(folder: Path) -> Loaded:
    """Return the newest checkpoint of a run. Raises ValueError where there is none."""
    loaded = load_latest(folder / "checkpoints")
    if loaded is None:
        raise ValueError(f"run={folder}: has no checkpoint. Train it first.")
    return loaded


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Say of weights that do not fit the config of a run which of the two to put back."""
    try:
        yield
    except CheckpointError as error:
        raise ValueError(
            f"run={folder}: its weights do not fit its config.yaml ({error}). Put back the "
            "config.yaml that they were trained with."
        ) from error


def load_split(folder: Path, mesh: Mesh) -> tuple[RunConfig, SplitNetwork]:
    """Load this rank's part of a run's averaged weights; of a file it reads its own pieces alone.

    In the run's precision, with its attention; on the CPU in fp32, by the loop. Collective.
    """
    run, loaded, layout = load_run(folder), latest_of(folder), mesh.layout
    facts = specification_of(run.model)
    parallel = worker_layout(str(mesh.device.type), layout.tp, layout.cp)
    if mesh.device.type != "cpu":
        asked = run.parallel
        parallel = replace(parallel, precision=asked.precision, attention=asked.attention)
    attend = attention_of(run.model, parallel, mesh).attend
    predicts = build_objective(run.objective).coefficients
    stage = build_stage(run.model, parallel, mesh, attend, predicts)
    with fitting(folder):
        loaded.refuse_others("ema", facts.shapes)
        materialise(stage, partial(stored_values, loaded, facts, "ema"), parallel, mesh)
    stage.requires_grad_(False)
    dtype = dtype_of(parallel)
    stage.to(dtype)
    stage.model.restore_buffers(mesh.device)
    return run, SplitNetwork(stage, mesh, loaded, dtype)
