"""What to do with a step whose loss or gradient is not a number, or whose loss jumps.

Pure logic on numbers that all ranks agree on, so all ranks reach the same verdict; torch-free. The
state is plain JSON: a run that resumes from it decides exactly as the run that never stopped.
"""

import math
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any, Self

from trainer.config import FaultConfig, NanPolicy, SpikePolicy


class Verdict(StrEnum):
    """What becomes of a step: apply it, drop it, go back to a checkpoint, or end the run."""

    update = "update"
    skip = "skip"
    rewind = "rewind"
    stop = "stop"


@dataclass
class GuardState:
    """What a verdict depends on besides the step itself.

    losses: those of the last applied steps, at most ``spike_window``, the oldest first.
    skipped, skipped_in_row: steps without an update in all, and since the last update.
    spikes: jumps seen, whatever was done about them. rewinds: those asked for.
    """

    losses: list[float] = field(default_factory=list)
    skipped: int = 0
    skipped_in_row: int = 0
    spikes: int = 0
    rewinds: int = 0


class Guard:
    """Judge the steps of a run one by one; a verdict depends on the steps before it alone.

    A spike is a multiple of the median, which has a meaning for positive losses only (a squared
    error is one). While the median is not positive no step counts as a spike.
    """

    def __init__(self, config: FaultConfig, state: GuardState | None = None) -> None:
        self.config = config
        self.state = GuardState() if state is None else state
        self._trim()

    @classmethod
    def from_dict(cls, config: FaultConfig, saved: dict[str, Any]) -> Self:
        """Continue from what ``state_dict`` returned."""
        return cls(config, GuardState(**(saved | {"losses": list(saved["losses"])})))

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state in plain JSON; floats survive JSON bit for bit."""
        return asdict(self.state)

    def rewind_to(self, saved: dict[str, Any]) -> None:
        """Take the losses of a checkpoint's state after a rewind, but keep the counts.

        With the checkpoint's counts a run that diverges again and again would never reach
        ``max_rewinds``.
        """
        self.state.losses = list(saved["losses"])
        self._trim()

    def judge(self, loss: float, norm_is_finite: bool) -> tuple[Verdict, str]:
        """Return what to do with this step and why, in words; "" when there is nothing to say.

        Call it once a step, before the update. loss: of the step, over all ranks, before the
        update. norm_is_finite: whether the global gradient norm is a number on all ranks.
        """
        loss = float(loss)
        if not math.isfinite(loss):
            return self._judge_nan(f"the loss is {loss}")
        if not norm_is_finite:
            return self._judge_nan("the gradient norm is not finite")
        if self._is_spike(loss):
            return self._judge_spike(loss)
        return self._apply(loss), ""

    def _judge_nan(self, what: str) -> tuple[Verdict, str]:
        if self.config.on_nan is NanPolicy.skip:
            return self._skip(what)
        return Verdict.stop, (
            f"faults.on_nan=stop: {what}. Use a smaller optim.lr, or faults.on_nan=skip."
        )

    def _judge_spike(self, loss: float) -> tuple[Verdict, str]:
        self.state.spikes += 1
        what = (
            f"the loss {loss:.4g} is above {self.config.spike_factor:g} x {self._median():.4g}, "
            f"the median of the last {len(self.state.losses)} steps"
        )
        if self.config.on_spike is SpikePolicy.log:
            return self._apply(loss), what
        if self.config.on_spike is SpikePolicy.skip:
            return self._skip(what)
        self.state.rewinds += 1
        self.state.skipped_in_row = 0
        if self.state.rewinds <= self.config.max_rewinds:
            return Verdict.rewind, what
        return Verdict.stop, (
            f"faults.max_rewinds={self.config.max_rewinds}: {what}, and the run was rewound so "
            "often already. Use a smaller optim.lr."
        )

    def _skip(self, what: str) -> tuple[Verdict, str]:
        # Skipped spikes count in the same row as NaNs: a loss that stays high for good would
        # otherwise be skipped until the end of the run.
        self.state.skipped += 1
        self.state.skipped_in_row += 1
        if self.state.skipped_in_row <= self.config.max_skips:
            return Verdict.skip, what
        return Verdict.stop, (
            f"faults.max_skips={self.config.max_skips}: {what}, and the "
            f"{self.config.max_skips} steps before it were skipped too. Use a smaller optim.lr."
        )

    def _apply(self, loss: float) -> Verdict:
        self.state.skipped_in_row = 0
        self.state.losses.append(loss)
        self._trim()
        return Verdict.update

    def _is_spike(self, loss: float) -> bool:
        if 2 * len(self.state.losses) < self.config.spike_window:
            return False
        typical = self._median()
        return typical > 0 and loss > self.config.spike_factor * typical

    def _median(self) -> float:
        return median(self.state.losses)

    def _trim(self) -> None:
        del self.state.losses[: -self.config.spike_window]
