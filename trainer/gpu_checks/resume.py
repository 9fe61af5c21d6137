"""Does a run that was stopped and resumed end with the same bits as one that was not?"""

import os
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from models.architecture import specification_of
from trainer.checkpoint.read import load_latest
from trainer.config import RunConfig, compose_run
from trainer.diffusion.attempt import train_run
from trainer.gpu_checks.report import Case, Finding, Settings, Skip, relative
from trainer.gpu_checks.samples import write_latents
from trainer.identity import freeze
from trainer.layout.config import Precision
from trainer.parallel.mesh import start_mesh, stop_mesh
from trainer.run.metrics import read_metrics

STEPS = 6
KINDS = ("param", "exp_avg", "exp_avg_sq", "ema")
# cuBLAS repeats itself only with a workspace of fixed size; it reads this before its first call.
WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def cases(settings: Settings) -> Iterator[Case]:
    """Yield fp32 and bf16, with torch's deterministic algorithms and without."""
    os.environ.update(WORKSPACE)
    for precision in Precision:
        title = f"{STEPS} steps {precision.value}, and stopped after 3 and resumed"
        yield Case(f"{title}, deterministic", partial(_bitwise, settings, precision))
        yield Case(title, partial(_close, settings, precision))


def _bitwise(settings: Settings, precision: Precision) -> Finding:
    if not settings.on_cuda and precision is Precision.bf16:
        raise Skip("bf16 is resumed on CUDA only")
    torch.use_deterministic_algorithms(True)
    try:
        straight, resumed = _train_both(settings, precision)
    finally:
        torch.use_deterministic_algorithms(False)
    different = [name for name in straight if not torch.equal(straight[name], resumed[name])]
    result = f"{len(different)} of {len(straight)} differ" if different else "equal bits"
    return Finding(result, "equal bits", not different)


def _close(settings: Settings, precision: Precision) -> Finding:
    """Return how far apart the runs end where sums may come in any order; a figure."""
    if not settings.on_cuda:
        raise Skip("the CPU's sums always come in one order")
    straight, resumed = _train_both(settings, precision)
    worst = max(relative(resumed[name], straight[name]) for name in straight)
    return Finding(f"differ by {worst:.1e}" if worst else "equal bits")


def _train_both(settings: Settings, precision: Precision) -> list[dict[str, Tensor]]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_latents(root / "latents")
        run = compose_run(
            [
                "experiment=cpu_smoke",
                f"data.root={root / 'latents'}",
                "log.wandb=disabled",
                f"horizon.steps={STEPS}",
                f"parallel.device={settings.device.type}",
                f"parallel.precision={precision.value}",
                f"parallel.zero_stage={1 if precision is Precision.bf16 else 0}",
            ]
        )
        world = start_mesh(run.parallel)  # train_run joins it, so that it can run more than once
        try:
            _train(run, root / "straight", [None])
            _train(run, root / "resumed", [3, None])
        finally:
            stop_mesh(world)
        return [_state(run, root / name) for name in ("straight", "resumed")]


def _train(run: RunConfig, folder: Path, stops: list[int | None]) -> None:
    """Train a run in as many attempts as there are stops; None goes to the end."""
    freeze(run, folder)
    with warnings.catch_warnings():
        # torch 2.13 renamed collectives that deepspeed 0.19 still calls by their old names.
        warnings.filterwarnings("ignore", ".*is deprecated. Please use", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        for stop in stops:
            finished = train_run(run, folder, partial(_reached, stop, count(1)))
            if finished != (stop is None):
                raise RuntimeError(f"the attempt to stop at {stop} returned finished={finished}")


def _reached(stop: int | None, polls: Iterator[int]) -> bool:
    """Ask for a stop when the trainer polls for the given time."""
    return stop is not None and next(polls) >= stop


def _state(run: RunConfig, folder: Path) -> dict[str, Tensor]:
    """Return all tensors of the last checkpoint, and the losses that were logged."""
    facts = specification_of(run.model)
    loaded = load_latest(folder / "checkpoints")
    if loaded is None or loaded.index["step"] != STEPS:
        raise RuntimeError(f"{folder}: has no checkpoint of step {STEPS}")
    state = {
        f"{kind}/{name}": tensor
        for kind in KINDS
        for name, tensor in loaded.tensors(kind, facts.shapes, facts.cuts).items()
    }
    records = read_metrics(folder / "metrics.jsonl")
    losses = [record["train_loss"] for record in records if "train_loss" in record]
    return {**state, "losses": torch.tensor(losses, dtype=torch.float64)}
