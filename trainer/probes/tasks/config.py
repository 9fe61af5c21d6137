"""What the numbers of all tasks are told."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le
from typing_extensions import Doc

from trainer.config import Seed


@dataclass
class TasksConfig:
    """What to draw; see the module's help."""

    run: Annotated[str, Doc("Folder of the run.")] = ""
    out: Annotated[str, Doc("Folder of the page; empty is RUN/tasks.")] = ""
    clips: Annotated[int, Ge(2), Le(4096), Doc("Clips of each task.")] = 48
    seed: Annotated[Seed, Doc("Decides the true clips and the noise.")] = 0
    steps: Annotated[int, Ge(1), Le(1000), Doc("Steps of the sampler, multistep.")] = 24
    guidance: Annotated[
        float, Ge(0), Doc("Weight of the prompt where a task is about it: text and edit.")
    ] = 2.0
    strength: Annotated[
        float, Ge(0.01), Le(0.99), Doc("How far the full clip leaves its prototype.")
    ] = 0.7

    def check(self) -> None:
        """Raise ValueError on values that are missing."""
        if not self.run:
            raise ValueError("run=: must be given. See --help.")
