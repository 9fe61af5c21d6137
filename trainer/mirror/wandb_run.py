"""A W&B run on our own step axis."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.log_config import WandbMode


@dataclass(frozen=True)
class About:
    """What W&B is told of a run beside its numbers.

    id: one for all attempts at it; empty takes the name. watched: number of the process whose
    processor and memory W&B samples, with its GPUs and its folder's disk; 0 samples nothing.
    """

    name: str
    project: str
    group: str = ""
    job_type: str = ""
    tags: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    watched: int = 0


def start_wandb(about: About, mode: WandbMode, folder: Path) -> Any:
    """Start a W&B run whose x-axis is our own ``step``; no name of a user or host is collected.

    Raises whatever wandb raises: its own errors, and those of its service's socket.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    # The default flush of 15 s loses all of it when the process is killed.
    os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "0.5")
    os.environ.setdefault("WANDB_INIT_TIMEOUT", "30")  # 90 s by default
    import wandb

    sampled = {"x_stats_pid": about.watched, "x_stats_disk_paths": (str(folder),)}
    run = wandb.init(
        project=about.project,
        group=about.group or None,
        job_type=about.job_type or None,
        tags=list(about.tags) or None,
        name=about.name,
        id=about.id or about.name[-64:],
        dir=str(folder),
        mode=mode.value,
        resume="allow" if mode is WandbMode.online else None,
        config=dict(about.config),
        settings=wandb.Settings(
            console="off", x_disable_stats=not about.watched, x_disable_meta=True,
            disable_git=True, host="-", **(sampled if about.watched else {}),
        ),
    )  # fmt: skip
    run.define_metric("*", step_metric="step")
    return run


def own_environment() -> dict[str, str]:
    """Return the environment of a process that is to have a W&B service of its own.

    A service that it found by the variable WANDB_SERVICE would refuse a run that it knows already.
    """
    return {key: value for key, value in os.environ.items() if not key.startswith("WANDB_SERVICE")}


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return what of a record can be plotted."""
    return {key: value for key, value in record.items() if _is_number(value)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
