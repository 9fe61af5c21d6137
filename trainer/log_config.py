"""Schema of what a run logs and where it is mirrored; torch-free."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc


class WandbMode(StrEnum):
    """Where metrics are mirrored to besides ``metrics.jsonl``."""

    disabled = "disabled"
    offline = "offline"
    online = "online"


@dataclass
class LogConfig:
    """What to log, to metrics.jsonl and mirrored to W&B."""

    every: Annotated[int, Ge(1), Doc("Steps between two rows.")] = 10
    samples: Annotated[
        bool,
        Doc(
            "Also write the key and visit of every sample each rank trained on, to the "
            "folder samples."
        ),
    ] = False
    wandb: Annotated[WandbMode, Doc("Where metrics are mirrored to.")] = WandbMode.offline
    wandb_seconds: Annotated[
        float,
        Ge(0),
        Doc("Seconds that a run which ended may wait for W&B to take the rest."),
    ] = 20.0
    project: Annotated[str, Doc("W&B project.")] = "kinescale"
    group: Annotated[str, Doc("W&B group; empty sets none.")] = ""
    tags: Annotated[list[str], Doc("W&B tags.")] = field(default_factory=list)
    device_teraflops: Annotated[
        float,
        Ge(0),
        Doc(
            "Most dense TFLOP/s of one device at the run's precision, for MFU "
            "(launch/conf/machine has those of data sheets); 0: not known, no MFU."
        ),
    ] = 0.0
