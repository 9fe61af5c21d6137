"""Means over clips, their intervals, and whether a task beats its floors."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainer.probes.tasks.reading import Array

LEVEL = 0.95
RESAMPLES = 4000


def interval(values: Array) -> tuple[float, float, float]:
    """Return the mean over clips and its 95 % interval, by a bootstrap over clips with one seed."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[chosen].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(values.mean()), float(low), float(high)


@dataclass(frozen=True)
class Measured:
    """One measure of a task, clip by clip.

    name: what it is, with its unit. larger: whether more is better. drawn, ceiling: (clips,) of the
    run's clips and of the best that could be. floors: (clips,) of what a clip without skill reads,
    by name. notes: further figures.
    """

    name: str
    larger: bool
    drawn: Array
    ceiling: Array
    floors: dict[str, Array]
    notes: dict[str, Any] = field(default_factory=dict)

    def beats(self, floor: str) -> bool:
        """Tell whether the interval of the difference, clip by clip, lies on the better side."""
        _, low, high = interval(self.drawn - self.floors[floor])
        return low > 0 if self.larger else high < 0

    @property
    def reached(self) -> bool:
        """Whether every floor is beaten."""
        return all(self.beats(floor) for floor in self.floors)

    def to_json(self) -> dict[str, Any]:
        """Return means, intervals and verdicts."""
        value, low, high = interval(self.drawn)
        floors = {
            name: {"value": float(clips.mean()), "beaten": self.beats(name)}
            for name, clips in self.floors.items()
        }
        return {
            "measure": self.name,
            "better": "more" if self.larger else "less",
            "value": value,
            "low": low,
            "high": high,
            "ceiling": float(self.ceiling.mean()),
            "floors": floors,
            "reached": self.reached,
            "clips": len(self.drawn),
            **self.notes,
        }


@dataclass(frozen=True)
class Row:
    """One task: on which world, what was given, and its measures."""

    task: str
    world: str
    given: str
    measures: list[Measured]

    def to_json(self) -> dict[str, Any]:
        """Return the row; a task counts where each measure beats each of its floors."""
        found = [measure.to_json() for measure in self.measures]
        return {
            "task": self.task,
            "world": self.world,
            "given": self.given,
            "reached": all(measure["reached"] for measure in found),
            "measures": found,
        }
