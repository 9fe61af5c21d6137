"""The run that is measured, what is asked of it, and the whole table."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data.command_line import read_json
from models.network import Network
from trainer.config import RunConfig
from trainer.generate.generate import load_model, warnings_of
from trainer.generate.sampler import Sampler
from trainer.probes.tasks.config import TasksConfig
from trainer.probes.tasks.draws import Asked, Drawn, Order, Worlds, draw, orders_of
from trainer.probes.tasks.preference import preferences
from trainer.probes.tasks.rows import rows_of


@dataclass(frozen=True)
class Subject:
    """A run, and the true clips that it is asked about."""

    config: TasksConfig
    run: RunConfig
    model: Network
    worlds: Worlds

    @classmethod
    def load(cls, config: TasksConfig) -> "Subject":
        """Load a run. Raises ValueError where its latents are not single frames of pixels."""
        run, model = load_model(Path(config.run))
        if run.codec.stride[0] != 1:
            raise ValueError(
                f"codec.stride={list(run.codec.stride)}: tasks are measured frame by frame. Train "
                "a run with codec=pixels codec.stride=[1,2,2] codec.channels=12."
            )
        return cls(config, run, model, Worlds.draw(config.clips, config.seed))

    @cached_property
    def asked(self) -> Asked:
        """What builds requests."""
        return Asked(self.config, Sampler(self.run, self.model))

    @cached_property
    def orders(self) -> list[Order]:
        """All clips that are drawn."""
        return orders_of(self.config, self.worlds, self.asked)

    @property
    def warnings(self) -> list[str]:
        """What the run has not learned, each said once."""
        found = warnings_of(self.run, [order.request for order in self.orders])
        return list(dict.fromkeys(found))

    def draw(self, told: Callable[[float, float], None]) -> Drawn:
        """Draw all clips."""
        return draw(self.run, self.model, self.orders, told)

    def measure(self, drawn: Drawn) -> dict[str, Any]:
        """Return the table as JSON."""
        found = {
            clips[0].world.name: preferences(self.run, self.model, clips, self.config.seed)
            for clips in (self.worlds.rotor, self.worlds.strip)
        }
        rows = rows_of(self.worlds, drawn, self.asked, found)
        return {
            "run": facts_of(Path(self.config.run), self.model),
            "clips": self.config.clips,
            "seed": self.config.seed,
            "steps": self.config.steps,
            "guidance": self.config.guidance,
            "tasks": [row.to_json() for row in rows],
        }


def facts_of(folder: Path, model: Network) -> dict[str, Any]:
    """Return what a page says of the run, its record where it has finished."""
    record = folder / "result.json"
    found = read_json(record, "run") if record.is_file() else {}
    told = {key: found.get(key) for key in ("flops", "steps", "samples", "loss")}
    losses = {name: task["loss"] for name, task in found.get("tasks", {}).items()}
    parameters = sum(value.numel() for value in model.parameters())  # type: ignore[attr-defined]
    return {"name": folder.name, "parameters": parameters, **told, "loss_by_task": losses}
