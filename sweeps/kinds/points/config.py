"""Schema of a study of points: which settings meet which, how long each run is, what is asked."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Lt, MinLen
from typing_extensions import Doc

from launch.config import ClusterConfig
from sweeps.study.config import Positive, RecipeConfig, SampleConfig, SizesConfig
from sweeps.study.y_axis import YAxisConfig
from trainer.config import Seed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")


class Analysis(StrEnum):
    """What the table of runs is asked.

    power: loss against parameters at fixed data, with a floor.
    data: loss against parameters, tokens and unique tokens.
    recipes: the best learning rate and batch as powers of parameters and tokens.
    transfer: how the best learning rate moves with width.
    noise: the spread of the loss over seeds, apart from that of validation draws.
    resolution: one isoFLOP law for each arm, side by side.
    schedule: points from the decay branches of long runs.
    settings: which settings have the least loss at each length, beside the spread over seeds.
    samples: clips from the best run of each length, side by side.
    """

    power = "power"
    data = "data"
    recipes = "recipes"
    transfer = "transfer"
    noise = "noise"
    resolution = "resolution"
    schedule = "schedule"
    settings = "settings"
    samples = "samples"


@dataclass
class LengthsConfig:
    """How long runs are, in one of these units; every size meets every length."""

    flops: Annotated[list[Positive], Doc("Exact training FLOPs.")] = field(default_factory=list)
    tokens: Annotated[list[Positive], Doc("Video tokens.")] = field(default_factory=list)
    tokens_per_param: Annotated[list[Positive], Doc("Video tokens for each parameter.")] = field(
        default_factory=list
    )
    steps: Annotated[
        list[Annotated[int, Ge(1)]],
        Doc("Optimizer steps, of runs that count nothing else: codecs, encoders, captioners."),
    ] = field(default_factory=list)

    @property
    def chosen(self) -> tuple[str, list[float]]:
        """The unit that is used, and its values in the order given."""
        used = [
            (unit, values)
            for unit, values in (
                ("flops", self.flops),
                ("tokens", self.tokens),
                ("tokens_per_param", self.tokens_per_param),
                ("steps", [float(value) for value in self.steps]),
            )
            if values
        ]
        return used[0] if len(used) == 1 else ("", [])


@dataclass
class RepeatConfig:
    """Runs again with other seeds, which measure the noise that every interval rests on."""

    seeds: Annotated[
        list[Seed],
        Doc(
            "Seeds for the best run of each group: of each length, arm and setting, over "
            "what the analysis optimises, rates and batches or (resolution) sizes."
        ),
    ] = field(default_factory=list)
    lengths: Annotated[list[Positive], Doc("Only at these lengths; empty is all.")] = field(
        default_factory=list
    )


@dataclass
class BranchesConfig:
    """Decay branches of every run, which is then a trunk of constant rate."""

    every: Annotated[
        int, Ge(0), Doc("Steps between two branches of a trunk; 0 branches nothing.")
    ] = 0
    count: Annotated[
        int,
        Ge(1),
        Doc("Branches of a trunk, at every, 2 every and so on; the trunk ends at the last."),
    ] = 4
    decay: Annotated[
        float,
        Gt(0),
        Lt(1),
        Doc("Share of a branch's whole length in which its rate falls to zero."),
    ] = 0.2


@dataclass
class StandInConfig:
    """One clip that stands for a data set which is not on this machine, to plan FLOPs by.

    Runs themselves always need their data.
    """

    num_frames: Annotated[
        int,
        Ge(0),
        Doc("Frames of the source; 0: none, and a study whose data set is missing is refused."),
    ] = 0
    height: Annotated[int, Ge(0), Doc("Pixels of the source from top to bottom.")] = 0
    width: Annotated[int, Ge(0), Doc("Pixels of the source from left to right.")] = 0
    caption_tokens: Annotated[int, Ge(0), Doc("Tokens of its dense caption.")] = 64


@dataclass
class PointsConfig:
    """A study of points."""

    kind: ClassVar[str] = "points"
    tabulates_strata: ClassVar[bool] = True
    free: ClassVar[tuple[str, ...]] = (
        "cost", "expected", "level", "resamples", "samples", "seeds", "analysis", "stop_early",
        "repeat", "noise_seeds", "stand_in",
    )  # fmt: skip

    name: Annotated[str, Doc("What it is called; its folder is root/name.")] = "points"
    question: Annotated[str, Doc("What it asks.")] = ""
    cost: Annotated[str, Doc("What it takes, in words.")] = ""
    expected: Annotated[str, Doc("What its author expects, in words.")] = ""
    root: Annotated[str, Doc("Folder of the study's folder.")] = "runs"
    analysis: Annotated[Analysis, Doc("What the table of runs is asked.")] = Analysis.power
    base: Annotated[list[str], Doc("Hydra overrides that every run shares.")] = field(
        default_factory=list
    )
    arms: Annotated[
        dict[str, list[str]],
        Doc("Overrides of settings that change together, by name; empty is one arm without any."),
    ] = field(default_factory=dict)
    axes: Annotated[
        list[str], Doc("Hydra sweeps (key=a,b or key=range(1,4)), whose product meets every arm.")
    ] = field(default_factory=list)
    sizes: SizesConfig = field(default_factory=SizesConfig)
    lengths: LengthsConfig = field(default_factory=LengthsConfig)
    seeds: Annotated[list[Seed], MinLen(1), Doc("Seeds of every point.")] = field(
        default_factory=lambda: [0]
    )
    repeat: RepeatConfig = field(default_factory=RepeatConfig)
    noise_seeds: Annotated[
        list[Seed],
        Doc("Validation noises that every run of a study of noise is measured under again."),
    ] = field(default_factory=list)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    branches: BranchesConfig = field(default_factory=BranchesConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    stand_in: StandInConfig = field(default_factory=StandInConfig)
    stop_early: Annotated[
        bool,
        Doc(
            "Of isoFLOP curves (resolution), leave out the sizes that cannot change the "
            "minimum any more; see stop_early.py."
        ),
    ] = False
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    y_axis: YAxisConfig = field(default_factory=YAxisConfig)
    level: Annotated[float, Gt(0), Lt(1), Doc("Level of the intervals.")] = 0.9
    resamples: Annotated[int, Ge(1), Doc("Draws of the bootstrap.")] = 1000

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return Path(self.root) / self.name

    @property
    def largest_budget(self) -> float | None:
        """FLOPs before which the y-axis is frozen; None where lengths are no FLOPs."""
        return max(self.lengths.flops, default=None)

    def check(self) -> None:
        """Raise ValueError on a study that cannot answer its question."""
        plain = self.y_axis.axis.plain  # raises
        unit, lengths = self.lengths.chosen
        branches = self.branches
        seeds = [*self.seeds, *self.repeat.seeds]
        rules: list[tuple[str, object, str, str]] = [
            ("lengths", bool(unit) != bool(branches.every),
             "give values of one unit, or none where branches.every gives the length",
             "lengths.flops=[1e11,4e11]"),
            ("lengths", len(set(lengths)) == len(lengths), "be distinct", "[1e11,4e11]"),
            ("seeds", len(set(seeds)) == len(seeds), "be distinct and apart from repeat.seeds",
             "seeds=[0,1,2]"),
            ("sizes.at", not self.sizes.exponent or self.sizes.at > 0,
             "be a length where sizes.exponent is not 0", "sizes.at=1e11"),
            ("branches.every", (self.analysis is Analysis.schedule) == bool(branches.every),
             "be positive in a study of schedules, and only there", "100"),
            ("repeat.lengths", set(self.repeat.lengths) <= set(lengths), "be among lengths",
             f"some of {lengths}"),
            ("stop_early", not self.stop_early or (
                self.analysis is Analysis.resolution and bool(self.repeat.seeds)),
             "only be set in a study of resolution with repeat.seeds, which give the noise floor",
             "false"),
            ("stand_in", not self.stand_in.num_frames or (
                min(self.stand_in.height, self.stand_in.width, self.stand_in.caption_tokens) >= 1),
             "have a height, a width and caption_tokens of at least 1 where it has frames",
             "stand_in={num_frames: 33, height: 240, width: 416}"),
            ("noise_seeds", len(set(self.noise_seeds)) == len(self.noise_seeds) != 1,
             "be none or at least two, and distinct", "[11,12,13]"),
            ("noise_seeds", plain or not self.noise_seeds,
             "be none with a y_axis, on which nothing is measured again", "noise_seeds=[]"),
        ]  # fmt: skip
        for key, ok, rule, remedy in rules:
            if not ok:
                raise ValueError(f"{key}: must {rule}. Use {remedy}.")
        for name in self.arms:
            # Names become folders and keys of an override; they are never parsed.
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"arms.{name!r}: must be 1-41 of A-Z a-z 0-9 _ -. Use a short word."
                )
