"""Bytes on disk of a run and of a list of runs, before they start."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from models.count import count_params
from trainer.config import STATE_BYTES, RunConfig

# The index: a line of JSON for each piece, of which a parameter has a few; and the loader's state.
INDEX_BYTES_PER_PARAMETER, PARAMETERS_PER_BLOCK = 4 * 200, 13
LOG_LINE_BYTES = 300  # of metrics.jsonl, and as much again of its mirror for W&B


@dataclass(frozen=True)
class Disk:
    """Bytes of a run. checkpoint: of one; kept: how many stay; peak: while the next is written;
    logs: metrics and their mirror; written: over the whole run."""

    checkpoint: float
    kept: int
    logs: float
    saves: float

    @property
    def peak(self) -> float:
        """Most bytes at a time: those kept, the one being written, and logs."""
        return (self.kept + 1) * self.checkpoint + self.logs

    @property
    def final(self) -> float:
        """Bytes that stay when the run has ended."""
        return self.kept * self.checkpoint + self.logs

    @property
    def written(self) -> float:
        """Bytes written over the run."""
        return self.saves * self.checkpoint + self.logs


def run_disk(run: RunConfig, steps: int, seconds: float) -> Disk:
    """Return the bytes of a run of so many steps and seconds."""
    pieces = INDEX_BYTES_PER_PARAMETER * PARAMETERS_PER_BLOCK * (run.model.depth + 1)
    pieces *= max(1, min(run.parallel.processes, 64))
    checkpoint = STATE_BYTES * count_params(run.model).total + pieces
    policy = run.checkpoint
    saves = 1.0  # at the end
    saves += seconds / policy.seconds if policy.seconds else 0
    saves += steps / policy.steps if policy.steps else 0
    logs = 2 * LOG_LINE_BYTES * ceil(steps / run.log.every)
    return Disk(checkpoint, max(1, policy.keep), logs, saves)


def study_disk(runs: Iterable[Disk], at_once: int) -> tuple[float, float]:
    """Return (peak, final) bytes of many runs of which ``at_once`` are under way at a time.

    The costliest write their next checkpoint together.
    """
    every = list(runs)
    final = sum(disk.final for disk in every)
    writing = sorted((disk.checkpoint for disk in every), reverse=True)[: max(1, at_once)]
    return final + sum(writing), final
