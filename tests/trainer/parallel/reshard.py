"""Whole runs under one layout that stop, save, and continue under another."""

from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from trainer.config import RunConfig
from trainer.diffusion.attempt import train_run
from trainer.identity import freeze

from ..conftest import compose_smoke

# The curve's validation of step 3 falls into the continued part: training goes on after it.
STEPS, SAVED = 6, 2


@dataclass(frozen=True)
class Shape:
    """A layout, its ZeRO stage, and the optimizer."""

    tp: int = 1
    cp: int = 1
    pp: int = 1
    dp: int = 1
    zero: int = 0
    optimizer: str = "adamw"

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.tp * self.cp * self.pp * self.dp

    @property
    def name(self) -> str:
        """A name for folders and test reports."""
        axes = [f"{a}{n}" for a in ("tp", "cp", "pp", "dp") if (n := getattr(self, a)) > 1]
        kind = [self.optimizer] if self.optimizer != "adamw" else []
        return "-".join([*(axes or ["single"]), f"zero{self.zero}", *kind])


def compose(shape: Shape, latents: Path) -> RunConfig:
    """Compose the run, the same experiment under any layout; see ``parity.compose`` on eps."""
    return compose_smoke(
        latents,
        f"horizon.steps={STEPS}",
        "data.packs_per_step=4",
        "data.pack_tokens=256",
        "data.pool=16",
        "model.depth=2",
        "model.head_dim=8",
        "optim.eps=1e-4",
        "optim.lr=1e-2",
        "checkpoint.seconds=0",
        f"optim.kind={shape.optimizer}",
        f"parallel.processes={shape.world}",
        f"parallel.zero_stage={shape.zero}",
        *(f"parallel.{axis}={getattr(shape, axis)}" for axis in ("tp", "cp", "pp")),
    )


def run_jobs(jobs: list[tuple[Shape, str, bool]], latents: Path, root: Path) -> None:
    """Train (shape, folder, stop at the half) one after another as one rank."""
    for shape, name, stops in jobs:
        run, folder = compose(shape, latents), root / name
        if dist.get_rank() == 0:
            freeze(run, folder)
        dist.barrier()
        polls = iter(range(10**6))  # one before the first step, then one a step
        finished = train_run(run, folder, lambda: stops and next(polls) >= SAVED)  # noqa: B023
        assert finished is not stops
