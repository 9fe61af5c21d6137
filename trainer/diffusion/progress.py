"""What a run has done so far, and where it writes it down."""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.dataset.tokens import Cell, tokens
from data.loading.batch import Step
from trainer.parallel.mesh import Mesh
from trainer.run.metrics import MetricsFile, append_lines
from trainer.run.speed import Speed

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """What a run has done so far; saved with every checkpoint.

    step: optimizer steps done; updates: those that were applied, not skipped.
    tokens, flops, samples: exact counts over all ranks; real_tokens: tokens from sources that were
    filmed, not rendered; seconds: training time. attempts: the number of this attempt, from 1.
    rewinds, rewound_steps: how often and how far a loss spike sent the run back. flops_before: of
    the trunk that a branch began at, which ``flops`` hold too.
    """

    step: int = 0
    updates: int = 0
    tokens: int = 0
    flops: int = 0
    samples: int = 0
    real_tokens: int = 0
    seconds: float = 0.0
    attempts: int = 1
    rewinds: int = 0
    rewound_steps: int = 0
    flops_before: int = 0

    def count(self, planned: Step, cell: Cell, flops: int, seconds: float) -> None:
        """Count one step, whether its update was applied or not."""
        self.step += 1
        self.flops += flops
        self.seconds += seconds
        for pack in planned.plan:
            for info, _ in pack:
                length = tokens(info.num_frames, info.height, info.width, cell)
                self.tokens += length
                self.real_tokens += 0 if info.rendered else length
                self.samples += 1

    def keep_spent(self, before: "Progress") -> None:
        """After a rewind, keep what was spent: time and attempts do not come back."""
        self.seconds, self.attempts = before.seconds, before.attempts
        self.rewinds = before.rewinds + 1
        self.rewound_steps = before.rewound_steps + before.step - self.step


@dataclass
class Window:
    """Loss terms since the last logged line, over all ranks."""

    error: float = 0.0
    values: float = 0.0

    def add(self, error: float, values: float) -> None:
        """Add a step's."""
        self.error += error
        self.values += values

    @property
    def loss(self) -> float:
        """Mean squared error a value; nan before the first step."""
        return self.error / self.values if self.values else float("nan")


class Recorder:
    """Write metrics, incidents and, on request, the samples each replica trained on.

    metrics: builds the file of records for a step to resume at; the main rank's only. facts: what
    else a row of training says, told the FLOPs a second since the row before.
    """

    def __init__(
        self,
        folder: Path,
        mesh: Mesh,
        keep_samples: bool,
        metrics: Callable[[int], MetricsFile] | None,
        check: Callable[[], None] | None = None,
        facts: Callable[[float], dict[str, float]] | None = None,
    ) -> None:
        self._folder, self._mesh, self._build = folder, mesh, metrics
        self._check, self._facts = check, facts
        self._speed = Speed(0, 0.0)
        self._metrics: MetricsFile | None = None
        self._samples = None
        if keep_samples and mesh.leads_replica:
            path = folder / "samples" / f"rank-{mesh.rank:05d}.jsonl"
            path.parent.mkdir(exist_ok=True)
            self._samples = append_lines(path)

    def open(self, progress: Progress) -> None:
        """Begin at a step: what metrics.jsonl says about later ones is cut off."""
        self._attempt = progress.attempts
        self._speed = Speed(progress.step, progress.seconds, **_counts(progress))
        if self._build is not None:
            if self._metrics is not None:
                self._metrics.close()
            self._metrics = self._build(progress.step)

    def log_step(self, progress: Progress, window: Window, norm: float, lr: float) -> None:
        """Write training loss and speed since the last line; a line of skipped steps has no loss.

        Speed is never that since the start: after days a slow-down would not move it.
        """
        fields = {
            "train_loss": window.loss,
            "grad_norm": norm,
            "lr": lr,
            "seconds": round(progress.seconds, 3),
        }
        now = self._speed.look(progress.step, progress.seconds, **_counts(progress))
        now |= self._facts(now["flops_per_second"]) if self._facts is not None else {}
        fields |= {key: float(f"{value:.6g}") for key, value in now.items()}
        self._write(progress, {k: v for k, v in fields.items() if math.isfinite(v)})

    def log_losses(self, progress: Progress, losses: dict[str, float]) -> None:
        """Write validation losses."""
        self._write(progress, losses)

    def note_event(self, progress: Progress, event: str, reason: str, keys: list[str]) -> None:
        """Append an incident to events.jsonl, which is never cut."""
        if not self._mesh.is_main:
            return
        if self._check is not None:
            self._check()
        log.warning("step %d: %s: %s%s", progress.step, event, reason, _list(keys))
        record = {"step": progress.step, "attempt": self._attempt, "event": event}
        record |= {"reason": reason, "keys": keys}
        with append_lines(self._folder / "events.jsonl") as file:
            file.write(json.dumps(record) + "\n")

    def note_samples(self, step: int, planned: Step) -> None:
        """Append the samples this replica trained on at a step, by key and visit."""
        if self._samples is None:
            return
        seen = [[s.info.key, s.visit] for pack in planned.packs for s in pack.samples]
        record = {"attempt": self._attempt, "step": step, "samples": seen}
        self._samples.write(json.dumps(record) + "\n")
        self._samples.flush()

    def close(self) -> None:
        """Close the files."""
        if self._metrics is not None:
            self._metrics.close()
        if self._samples is not None:
            self._samples.close()

    def _write(self, progress: Progress, fields: dict[str, Any]) -> None:
        if self._metrics is None:
            return
        if self._check is not None:
            self._check()  # a superseded attempt must not write into its successor's record
        counts = {"step": progress.step, "tokens": progress.tokens, "flops": progress.flops}
        self._metrics.write(counts | fields)


def _counts(progress: Progress) -> dict[str, float]:
    return {"tokens": progress.tokens, "flops": progress.flops}


def _list(keys: list[str]) -> str:
    return f"; samples {', '.join(keys)}" if keys else ""
