"""Schema of a study of arms: what differs, what is shared, and what is measured afterwards."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from launch.config import ClusterConfig
from trainer.config import CaptionUse

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
    """The held-out loss, measured again on the same clips and noise for every run.

    root: data set; empty means the base's. split, samples: how many of its clips (0: all).
    captions: kinds of caption that the clips are measured with, one after the other.
    """

    root: str = ""
    split: str = "val_worlds"
    samples: int = 64
    captions: list[CaptionUse] = field(default_factory=lambda: [CaptionUse.dense])


@dataclass
class DrawConfig:
    """Clips drawn from every run: the same prompts and the same noise in each arm.

    root: data set of clips whose captions are the prompts, and whose truth is the probe's; it may
        hold clips or latents. split: its split.
    prompts: how many; 0 draws none. captions: kinds of caption to prompt with.
    noises: clips drawn a prompt, each from other noise.
    steps, guidance: of the sampler.
    probe: what is measured on them; it learns from ``train_clips`` of ``train_root`` (empty: of
        ``root``) and is checked on ``check_clips`` of ``root``.
    shown: prompts whose clips stand on the page.
    """

    root: str = ""
    split: str = "val_worlds"
    prompts: int = 24
    captions: list[CaptionUse] = field(default_factory=lambda: [CaptionUse.dense])
    noises: int = 1
    steps: int = 16
    guidance: float = 2.0
    probe: Probe = Probe.none
    train_root: str = ""
    train_split: str = "train"
    train_clips: int = 400
    check_clips: int = 200
    shown: int = 4


@dataclass
class ArmsConfig:
    """A study of arms.

    name, question, cost, expected: what it is called, asks, takes, and what its author expects.
    base: Hydra overrides that every run shares.
    arms: overrides of each arm; reference: the arm that the others are compared with.
    seeds: of every arm; runs of one seed start from the same weights and see the same order.
    flops: training FLOPs of every run, the same for all arms.
    losses, draws: what is measured after training.
    level: of the intervals.
    """

    name: str = "arms"
    question: str = ""
    cost: str = ""
    expected: str = ""
    root: str = "runs"
    base: list[str] = field(default_factory=list)
    arms: dict[str, list[str]] = field(default_factory=dict)
    reference: str = ""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    flops: float = 0.0
    losses: LossConfig = field(default_factory=LossConfig)
    draws: DrawConfig = field(default_factory=DrawConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    level: float = 0.95

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return Path(self.root) / self.name

    def check(self) -> None:
        """Raise ValueError on a study that cannot answer its question."""
        rules = {
            "arms": (len(self.arms) >= 2, "hold at least two", "arms.a=[] and arms.b=[...]"),
            "reference": (self.reference in self.arms, "name an arm", f"one of {list(self.arms)}"),
            "seeds": (
                self.seeds and len(set(self.seeds)) == len(self.seeds) and min(self.seeds) >= 0,
                "be distinct and at least 0",
                "[0,1,2]",
            ),
            "flops": (self.flops > 0, "be positive", "1e12"),
            "level": (0 < self.level < 1, "lie in (0, 1)", "0.95"),
            "losses.captions": (self.losses.captions, "not be empty", "[dense]"),
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
        if draws.prompts < 0 or draws.noises < 1 or draws.shown < 0:
            raise ValueError(
                "draws.prompts,noises,shown: must be at least 0, 1 and 0. Use 24, 1 and 4."
            )
        if draws.probe is not Probe.none and not draws.root:
            raise ValueError(
                f"draws.probe={draws.probe}: needs clips with truth. Set draws.root=DATASET."
            )
