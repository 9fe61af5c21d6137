"""Schema of a study of arms: what differs, what is shared, and what is measured afterwards."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le, Lt, MinLen
from typing_extensions import Doc

from launch.config import ClusterConfig
from sweeps.study.y_axis import YAxisConfig
from trainer.config import CaptionUse, Seed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")


class Probe(StrEnum):
    """What is measured on drawn clips.

    attributes: what the prompt's truth says, by a classifier trained on real clips.
    framing: how much of the prompt's subject lies inside the frame, by its colour.
    """

    none = "none"
    attributes = "attributes"
    framing = "framing"


@dataclass
class LossConfig:
    """The held-out loss, measured again on the same clips and noise for every run."""

    root: Annotated[str, Doc("Data set; empty means the base's.")] = ""
    split: Annotated[str, Doc("Its split.")] = "val_worlds"
    samples: Annotated[int, Ge(0), Doc("Clips of the split; 0 takes all.")] = 64
    captions: Annotated[
        list[CaptionUse],
        MinLen(1),
        Doc("Kinds of caption that the clips are measured with, one after the other."),
    ] = field(default_factory=lambda: [CaptionUse.dense])


@dataclass
class DrawConfig:
    """Clips drawn from every run: the same prompts and the same noise in each arm."""

    root: Annotated[
        str,
        Doc(
            "Data set of clips or latents whose captions are the prompts, and whose truth "
            "is the probe's."
        ),
    ] = ""
    split: Annotated[str, Doc("Its split.")] = "val_worlds"
    prompts: Annotated[int, Ge(0), Doc("Clips whose captions are prompts; 0 draws none.")] = 24
    captions: Annotated[list[CaptionUse], Doc("Kinds of caption to prompt with.")] = field(
        default_factory=lambda: [CaptionUse.dense]
    )
    noises: Annotated[int, Ge(1), Doc("Clips drawn a prompt, each from other noise.")] = 1
    steps: Annotated[int, Ge(1), Le(1000), Doc("Steps of the sampler.")] = 16
    guidance: Annotated[
        float, Ge(0), Doc("Weight of the prompt against no prompt; 1 leaves guidance out.")
    ] = 2.0
    probe: Annotated[Probe, Doc("What is measured on the drawn clips.")] = Probe.none
    train_root: Annotated[str, Doc("Data set that the probe learns from; empty means root.")] = ""
    train_split: Annotated[str, Doc("Split of it.")] = "train"
    train_clips: Annotated[int, Ge(0), Doc("Clips that the probe learns from; 0 takes all.")] = 400
    check_clips: Annotated[int, Ge(0), Doc("Clips of root that it is checked on; 0 takes all.")] = (
        200
    )
    shown: Annotated[int, Ge(0), Doc("Prompts whose clips stand on the page.")] = 4


@dataclass
class ArmsConfig:
    """A study of arms."""

    kind: ClassVar[str] = "arms"
    tabulates_strata: ClassVar[bool] = False
    free: ClassVar[tuple[str, ...]] = ("cost", "expected", "level", "seeds", "losses", "draws")

    name: Annotated[str, Doc("What it is called; its folder is root/name.")] = "arms"
    question: Annotated[str, Doc("What it asks.")] = ""
    cost: Annotated[str, Doc("What it takes, in words.")] = ""
    expected: Annotated[str, Doc("What its author expects, in words.")] = ""
    root: Annotated[str, Doc("Folder of the study's folder.")] = "runs"
    base: Annotated[list[str], Doc("Hydra overrides that every run shares.")] = field(
        default_factory=list
    )
    arms: Annotated[dict[str, list[str]], Doc("Overrides of each arm, by its name.")] = field(
        default_factory=dict
    )
    reference: Annotated[str, Doc("Arm that the others are compared with.")] = ""
    seeds: Annotated[
        list[Seed],
        MinLen(1),
        Doc(
            "Seeds of every arm; runs of one seed start from the same weights and see the "
            "same order."
        ),
    ] = field(default_factory=lambda: [0, 1, 2])
    flops: Annotated[
        float, Ge(0), Doc("Training FLOPs of every run, the same for all arms; must be given.")
    ] = 0.0
    losses: LossConfig = field(default_factory=LossConfig)
    draws: DrawConfig = field(default_factory=DrawConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    y_axis: YAxisConfig = field(default_factory=YAxisConfig)
    level: Annotated[float, Gt(0), Lt(1), Doc("Level of the intervals.")] = 0.95

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return Path(self.root) / self.name

    @property
    def largest_budget(self) -> float:
        """FLOPs before which the y-axis is frozen."""
        return self.flops

    def check(self) -> None:
        """Raise ValueError on a study that cannot answer its question."""
        _ = self.y_axis.axis  # raises
        rules = {
            "arms": (len(self.arms) >= 2, "hold at least two", "arms.a=[] and arms.b=[...]"),
            "reference": (self.reference in self.arms, "name an arm", f"one of {list(self.arms)}"),
            "seeds": (
                len(set(self.seeds)) == len(self.seeds),
                "be distinct",
                "[0,1,2]",
            ),
            "flops": (self.flops > 0, "be positive", "1e12"),
        }
        for key, (ok, rule, remedy) in rules.items():
            if not ok:
                raise ValueError(f"{key}: must {rule}. Use {remedy}.")
        for name in self.arms:
            # Names become folders and keys of an override; they are never parsed.
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"arms.{name!r}: must be 1-41 of A-Z a-z 0-9 _ -. Use a short word."
                )
        self._check_draws()

    def _check_draws(self) -> None:
        draws = self.draws
        if draws.prompts and not draws.captions:
            raise ValueError("draws.captions=[]: must name a kind. Use [dense].")
        if CaptionUse.dropped in draws.captions:
            raise ValueError("draws.captions: a dropped caption is no prompt. Use dense or short.")
        if draws.probe is not Probe.none and not draws.root:
            raise ValueError(
                f"draws.probe={draws.probe}: needs clips with truth. Set draws.root=DATASET."
            )
