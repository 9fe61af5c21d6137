"""Schema of what a run logs and where it is mirrored; torch-free."""

import importlib.util
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc

from data.secrets import is_secret_name


class WandbMode(StrEnum):
    """Where metrics are mirrored to besides ``metrics.jsonl``."""

    disabled = "disabled"
    offline = "offline"
    online = "online"


@dataclass
class AlertConfig:
    """Who is told that a run diverged, stalled or failed, or that a study ended."""

    webhook: Annotated[
        str,
        Doc(
            "Name of the environment variable that holds a webhook's address, such as "
            "KINESCALE_WEBHOOK; empty: none. The address is a key and never written."
        ),
    ] = ""
    mail: Annotated[str, Doc("Address that gets a mail; empty: none.")] = ""
    smtp: Annotated[
        str,
        Doc(
            "HOST:PORT of the mail server. KINESCALE_SMTP_USER and KINESCALE_SMTP_PASSWORD log in "
            "where they are set."
        ),
    ] = "localhost:25"

    def check(self) -> None:
        """Raise ValueError where an alert could not arrive, without printing an address."""
        name = self.webhook
        if name and not (re.fullmatch(r"[A-Z][A-Z0-9_]*", name) and is_secret_name(name)):
            raise ValueError(
                "log.alerts.webhook: must be the name of an environment variable that holds the "
                "address, and be named like a key, so that it is masked everywhere. "
                "Use KINESCALE_WEBHOOK."
            )
        if self.mail and not re.fullmatch(r"[^@\s<>,]+@[^@\s<>,]+", self.mail):
            raise ValueError(f"log.alerts.mail={self.mail}: must be one address. Use me@host.")
        host, _, port = self.smtp.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise ValueError(f"log.alerts.smtp={self.smtp}: must be HOST:PORT. Use localhost:25.")


@dataclass
class LogConfig:
    """What to log, to metrics.jsonl and mirrored to W&B and TensorBoard."""

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
    job_type: Annotated[
        str, Doc("W&B job type; empty takes the kind of the run. A study sets its phases.")
    ] = ""
    tags: Annotated[list[str], Doc("W&B tags.")] = field(default_factory=list)
    tensorboard: Annotated[
        bool,
        Doc(
            "Also mirror metrics to TensorBoard's files in RUN/tensorboard (needs the extra "
            "tensorboard)."
        ),
    ] = False
    alerts: AlertConfig = field(default_factory=AlertConfig)
    device_teraflops: Annotated[
        float,
        Ge(0),
        Doc(
            "Most dense TFLOP/s of one device at the run's precision, for MFU "
            "(launch/conf/machine has those of data sheets); 0: not known, no MFU."
        ),
    ] = 0.0

    def check(self) -> None:
        """Raise ValueError on values that nothing can be logged with."""
        self.alerts.check()
        if self.tensorboard:
            need_tensorboard("log.tensorboard=true")


def need_tensorboard(what: str) -> None:
    """Raise ValueError, with the extra to install, where TensorBoard's files cannot be written."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise ValueError(
            f"{what}: needs tensorboardX, which is not installed. "
            'Use pip install "kinescale[tensorboard]".'
        )
