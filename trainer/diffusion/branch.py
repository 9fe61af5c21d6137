"""A run that begins in the middle of another: the decay branches of one long run.

A trunk trains at a constant rate and keeps checkpoints; a branch takes one up, with weights,
optimizer state, averages and place in the data, and lets the rate fall to zero (Hu et al. 2024;
Hägele et al. 2024). What it ends with is, bit for bit, what a run of its length would have ended
with that had the trunk's warm-up and the branch's decay, so it counts the trunk's tokens and FLOPs
as its own.
"""

from pathlib import Path
from typing import Any

from trainer.checkpoint.files import find_steps, step_folder
from trainer.checkpoint.pieces import CheckpointError
from trainer.checkpoint.read import Loaded, load_latest, verify
from trainer.config import RunConfig, load_run
from trainer.identity import identity
from trainer.parallel.mesh import Mesh

_FREE = ("horizon", "validation", "branch")  # parts of an experiment in which a branch may differ
_FREE_RATES = ("warmup", "decay")  # of optim


def load_start(run: RunConfig, folder: Path, total_steps: int, mesh: Mesh) -> Loaded | None:
    """Return what a run goes on from: its newest good checkpoint, else its trunk's, or None."""
    own = load_latest(folder / "checkpoints", mesh)
    return own if own is not None else load_branch(run, total_steps, mesh)


def load_branch(run: RunConfig, total_steps: int, mesh: Mesh) -> Loaded | None:
    """Return the trunk's checkpoint that a run begins at, or None where it begins at nothing.

    Raises ValueError where the trunk is another experiment, its checkpoint is not there, or the
    rate of either is not at its peak at that step. Collective.
    """
    if not run.branch.run:
        return None
    trunk = Path(run.branch.run)
    check_trunk(run, load_run(trunk), total_steps)
    folder, step = trunk / "checkpoints", run.branch.step
    loaded, reason = None, ""
    try:
        loaded = verify(step_folder(folder, step), mesh.rank, mesh.world)
    except CheckpointError as error:
        reason = str(error)
    if mesh.any(loaded is None):
        kept = sorted(found for found, replaced in find_steps(folder) if not replaced)
        raise ValueError(
            f"branch.step={step}: {trunk} keeps no good checkpoint of that step, but of {kept}. "
            f"{reason} Train it with checkpoint.steps and checkpoint.keep."
        )
    assert loaded is not None
    progress = loaded.state["progress"]
    progress["flops_before"] = progress["flops"]
    return loaded


def check_trunk(run: RunConfig, trunk: RunConfig, total_steps: int) -> None:
    """Raise ValueError where a run cannot be a branch of ``trunk``; ``total_steps`` are its own."""
    step = run.branch.step
    differing = [
        key for key, value in _compared(run).items() if _compared(trunk)[key] != value
    ]  # fmt: skip
    if differing:
        raise ValueError(
            f"branch.run={run.branch.run}: is another experiment (its {', '.join(differing)} "
            "differ). A branch may change horizon, validation, optim.warmup and optim.decay."
        )
    length = trunk.horizon.steps
    if not length:
        raise ValueError(
            f"branch.run={run.branch.run}: its length must be given in steps. Train it with "
            "horizon.steps."
        )
    constant = trunk.optim.warmup * length <= step <= length * (1 - trunk.optim.decay)
    if not constant or run.optim.warmup * total_steps > step or step >= total_steps:
        raise ValueError(
            f"branch.step={step}: must lie after the warm-up of both runs, before the trunk's "
            f"decay, and before the branch's end at {total_steps}. Use a later step or a longer "
            "branch."
        )


def _compared(run: RunConfig) -> dict[str, Any]:
    """Return what a branch must have in common with its trunk."""
    found = {key: value for key, value in identity(run).items() if key not in _FREE}
    found["optim"] = {k: v for k, v in found["optim"].items() if k not in _FREE_RATES}
    return found
