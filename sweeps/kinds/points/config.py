"""Schema of a study of points: which settings meet which, how long each run is, what is asked."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from launch.config import ClusterConfig
from sweeps.study.config import RecipeConfig, SampleConfig

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
    samples: clips from the best run of each length, side by side.
    """

    power = "power"
    data = "data"
    recipes = "recipes"
    transfer = "transfer"
    noise = "noise"
    resolution = "resolution"
    schedule = "schedule"
    samples = "samples"


@dataclass
class SizesConfig:
    """Sizes from the ladder; empty leaves the shape to the base, the arms and the axes.

    params: parameters of the sizes at length ``at``. A run of length X gets the shape closest to
        params * (X / at) ** exponent; with exponent 0 all lengths have the same sizes.
    """

    params: list[float] = field(default_factory=list)
    at: float = 0.0
    exponent: float = 0.0


@dataclass
class LengthsConfig:
    """How long runs are, in one of these units; every size meets every length.

    flops: exact training FLOPs. tokens: video tokens. tokens_per_param: tokens of a parameter.
    """

    flops: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    tokens_per_param: list[float] = field(default_factory=list)

    @property
    def chosen(self) -> tuple[str, list[float]]:
        """The unit that is used, and its values in the order given."""
        used = [
            (unit, values)
            for unit, values in (
                ("flops", self.flops),
                ("tokens", self.tokens),
                ("tokens_per_param", self.tokens_per_param),
            )
            if values
        ]
        return used[0] if len(used) == 1 else ("", [])


@dataclass
class RepeatConfig:
    """Runs again with other seeds, which measure the noise that every interval rests on.

    seeds: of the best run of each group: of each length, arm and setting, over what the analysis
        optimises, rates and batches or (resolution) sizes. lengths: only at these; empty is all.
    """

    seeds: list[int] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)


@dataclass
class BranchesConfig:
    """Decay branches of every run, which is then a trunk of constant rate.

    every: steps between two branches of a trunk; 0 branches nothing.
    count: branches of a trunk, at ``every``, 2 ``every`` and so on; the trunk ends at the last.
    decay: share of a branch's whole length in which its rate falls to zero.
    """

    every: int = 0
    count: int = 4
    decay: float = 0.2


@dataclass
class StandInConfig:
    """One clip that stands for a data set which is not on this machine, to plan FLOPs by.

    num_frames, height, width: of the source; caption_tokens: of its dense caption. 0 frames: none,
    and a study whose data set is missing is refused. Runs themselves always need their data.
    """

    num_frames: int = 0
    height: int = 0
    width: int = 0
    caption_tokens: int = 64


@dataclass
class GridStudyConfig:
    """A study of points.

    name, question, cost, expected: what it is called, asks, takes, and what its author expects.
    base: Hydra overrides that every run shares.
    arms: overrides of settings that change together, by name; empty is one arm without any.
    axes: Hydra sweeps (``key=a,b`` or ``key=range(1,4)``); their product meets every arm.
    sizes, lengths, seeds: the other axes. recipe: rate and batch, where no axis or arm sets them.
    repeat, branches, samples, stand_in: see their classes. analysis: what the table is asked.
    noise_seeds: validation noises that every run of a study of noise is measured under again.
    stop_early: of isoFLOP curves (resolution), leave out the sizes that cannot change the minimum
        any more; see early.py.
    level, resamples: of the intervals.
    """

    name: str = "points"
    question: str = ""
    cost: str = ""
    expected: str = ""
    root: str = "runs"
    analysis: Analysis = Analysis.power
    base: list[str] = field(default_factory=list)
    arms: dict[str, list[str]] = field(default_factory=dict)
    axes: list[str] = field(default_factory=list)
    sizes: SizesConfig = field(default_factory=SizesConfig)
    lengths: LengthsConfig = field(default_factory=LengthsConfig)
    seeds: list[int] = field(default_factory=lambda: [0])
    repeat: RepeatConfig = field(default_factory=RepeatConfig)
    noise_seeds: list[int] = field(default_factory=list)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    branches: BranchesConfig = field(default_factory=BranchesConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    stand_in: StandInConfig = field(default_factory=StandInConfig)
    stop_early: bool = False
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    level: float = 0.9
    resamples: int = 1000

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return Path(self.root) / self.name

    def check(self) -> None:
        """Raise ValueError on a study that cannot answer its question."""
        unit, lengths = self.lengths.chosen
        branches = self.branches
        seeds = [*self.seeds, *self.repeat.seeds]
        rules: list[tuple[str, object, str, str]] = [
            ("lengths", bool(unit) != bool(branches.every),
             "give values of one unit, or none where branches.every gives the length",
             "lengths.flops=[1e11,4e11]"),
            ("lengths", all(x > 0 for x in lengths), "be positive", "lengths.flops=[1e11,4e11]"),
            ("lengths", len(set(lengths)) == len(lengths), "be distinct", "[1e11,4e11]"),
            ("seeds", self.seeds and len(set(seeds)) == len(seeds) and min(seeds) >= 0,
             "be distinct, at least 0 and apart from repeat.seeds", "seeds=[0,1,2]"),
            ("sizes.params", all(x > 0 for x in self.sizes.params), "be positive", "[2e4,4e4]"),
            ("sizes.at", not self.sizes.exponent or self.sizes.at > 0,
             "be a length where sizes.exponent is not 0", "sizes.at=1e11"),
            ("branches.every", branches.every >= 0, "be at least 0", "100"),
            ("branches.count", branches.count >= 1, "be at least 1", "4"),
            ("branches.decay", 0 < branches.decay < 1, "lie in (0, 1)", "0.2"),
            ("branches.every", (self.analysis is Analysis.schedule) == bool(branches.every),
             "be positive in a study of schedules, and only there", "100"),
            ("repeat.lengths", set(self.repeat.lengths) <= set(lengths), "be among lengths",
             f"some of {lengths}"),
            ("stop_early", not self.stop_early or (
                self.analysis is Analysis.resolution and bool(self.repeat.seeds)),
             "only be set in a study of resolution with repeat.seeds, which give the noise floor",
             "false"),
            ("noise_seeds", len(set(self.noise_seeds)) == len(self.noise_seeds) != 1,
             "be none or at least two, and distinct", "[11,12,13]"),
            ("level", 0 < self.level < 1, "lie in (0, 1)", "0.9"),
            ("resamples", self.resamples >= 1, "be at least 1", "1000"),
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
