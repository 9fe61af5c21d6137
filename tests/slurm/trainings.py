"""Real trainings for the queue."""

from pathlib import Path

from launch.local.process import Job
from trainer.config import compose_run
from trainer.identity import freeze, run_name
from trainer.kinds import start_command

from ..trainer.faults.runs import words


def make_training(latents: Path, root: Path, *overrides: str) -> Job:
    """Freeze a run of a hundred short steps that saves every tenth; return its job."""
    two_ranks = ["parallel.processes=2", "parallel.zero_stage=1"]
    fixed = ["horizon.steps=120", "checkpoint.steps=10", f"run_root={root}"]
    run = compose_run(words(latents, *fixed, *two_ranks, *overrides))
    folder = root / run_name(run)
    freeze(run, folder)
    argv = start_command(run, folder)
    return Job("run", folder, argv, run.parallel.processes, 1.0, folder / "result.json")
