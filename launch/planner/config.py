"""Schema of a plan's questions; the run and the machine have schemas of their own."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from data.bounds import check_bounds
from trainer.layout.config import Precision

Part = Annotated[float, Gt(0), Le(1)]


@dataclass
class PlanConfig:
    """What a plan assumes where nothing is measured."""

    clip_tokens: Annotated[
        int,
        Ge(0),
        Doc(
            "Tokens of a typical clip where the dataset's index is not at hand; 0 takes "
            "8,192, or a pack where that is smaller and given."
        ),
    ] = 0
    caption_tokens: Annotated[int, Ge(0), Doc("Tokens of its caption, likewise.")] = 64
    fill: Annotated[Part, Doc("Share of a pack's rows that are tokens, likewise.")] = 0.98
    goodput: Annotated[
        Part, Doc("Share of wall time that trains; the rest starts, saves, waits and repeats.")
    ] = 0.98
    online: Annotated[
        bool,
        Doc("Clips are encoded and captions embedded while training, and not read as latents."),
    ] = False
    disk_bytes: Annotated[
        float,
        Ge(0),
        Doc("What the runs may use; 0 takes what is free under run_root, where it is."),
    ] = 0.0
    disk_bytes_per_second: Annotated[float, Gt(0), Doc("What all ranks together write.")] = 5e9
    max_days: Annotated[float, Gt(0), Doc("Longest a run may take before the plan warns.")] = 60.0

    def check(self) -> None:
        """Raise ValueError on values that cannot be."""
        check_bounds(self, "plan.")


@dataclass
class SearchConfig:
    """Which layouts to look at."""

    gpus: Annotated[int, Ge(0), Doc("Devices; must be given.")] = 0
    batch_tokens: Annotated[
        float,
        Ge(0),
        Doc(
            "Tokens of an optimizer step; 0 takes the run's, or 16,384 a device where the "
            "run's gives less than 1,024 to each."
        ),
    ] = 0.0
    top: Annotated[int, Ge(1), Doc("Layouts to return.")] = 5
    precision: Annotated[Precision, Doc("Arithmetic of the layouts.")] = Precision.bf16
    max_tp: Annotated[int, Ge(0), Doc("Widest tensor parallelism; 0 takes a node.")] = 0
    offload: Annotated[bool, Doc("Also look at offloading.")] = False

    def check(self) -> None:
        """Raise ValueError on values that cannot be."""
        check_bounds(self, "search.")
        if self.gpus < 1:
            raise ValueError(f"search.gpus={self.gpus}: must be at least 1. Use gpus=1024.")
