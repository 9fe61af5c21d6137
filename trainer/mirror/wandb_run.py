"""A W&B run on our own step axis."""

import math
import os
from pathlib import Path
from typing import Any

from trainer.log_config import WandbMode


def start_wandb(
    name: str,
    mode: WandbMode,
    folder: Path,
    project: str,
    group: str,
    tags: list[str],
    config: dict[str, Any],
    run_id: str = "",
) -> Any:
    """Start a W&B run whose x-axis is our own ``step``; nothing of the machine is collected.

    Raises whatever wandb raises: its own errors, and those of its service's socket.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    # The default flush of 15 s loses all of it when the process is killed.
    os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "0.5")
    os.environ.setdefault("WANDB_INIT_TIMEOUT", "30")  # 90 s by default
    import wandb

    run = wandb.init(
        project=project,
        group=group or None,
        tags=tags or None,
        name=name,
        id=run_id or name[-64:],
        dir=str(folder),
        mode=mode.value,
        resume="allow" if mode is WandbMode.online else None,
        config=config,
        settings=wandb.Settings(
            console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True, host="-",
        ),
    )  # fmt: skip
    run.define_metric("*", step_metric="step")
    return run


def own_environment() -> dict[str, str]:
    """Return the environment of a process that is to have a W&B service of its own.

    A service that it found by the variable WANDB_SERVICE would refuse a run that it knows already.
    """
    return {key: value for key, value in os.environ.items() if not key.startswith("WANDB_SERVICE")}


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """Return what of a record W&B can plot."""
    return {key: value for key, value in record.items() if _is_number(value)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
