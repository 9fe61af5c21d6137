"""Schema of an isoFLOP study: a question, budgets and sizes, the recipe of every run."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from launch.config import ClusterConfig
from sweeps.study.config import RecipeConfig, SampleConfig


class LawForm(StrEnum):
    """Form of a law L(N, D); equations in fit/catalogue.py."""

    chinchilla = "chinchilla"
    chinchilla_tied = "chinchilla_tied"
    kaplan = "kaplan"
    overtraining = "overtraining"


@dataclass
class PilotConfig:
    """A short isoFLOP curve that centres the grids: N*(C) = N_pilot * (C / flops) ** exponent."""

    flops: float = 8e10
    params: list[float] = field(default_factory=list)
    exponent: float = 0.5


@dataclass
class GridConfig:
    """IsoFLOP grids: ``sizes`` models a budget, a factor ``spacing`` apart in parameters.

    max_extensions: sizes added on the side where a budget's minimum is not interior.
    max_depth: most blocks of a size; 1 lets sizes differ in width alone, 0 leaves it to the ladder.
    heads: of every size, so that width alone differs; 0 leaves it to the ladder, whose narrow
        models have one and wide ones more.
    """

    sizes: int = 5
    spacing: float = 1.6
    min_params: float = 6e4
    max_extensions: int = 2
    max_depth: int = 0
    heads: int = 0


@dataclass
class ReplicateConfig:
    """Other seeds of the ``sizes`` middle sizes of each of ``budgets``.

    They give the noise floor and take part in the fit; a point's best loss is the mean over seeds.
    """

    budgets: list[float] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    sizes: int = 1


@dataclass
class TwinConfig:
    """One run on one process and again on two with ZeRO 1, to show that the layout is invisible."""

    enabled: bool = False
    params: float = 1e5
    steps: int = 100


@dataclass
class StudyConfig:
    """A study.

    name, question: what it is called and what it asks.
    base: Hydra overrides that every run shares.
    budgets: training FLOPs; the largest is held out of the test fit and predicted.
    form: of the law: one of (params, tokens); ``python -m sweeps.fit --help`` has equations.
    level, resamples: of the bootstrap intervals.
    """

    name: str = "study"
    question: str = ""
    root: str = "runs"
    base: list[str] = field(default_factory=list)
    budgets: list[float] = field(default_factory=list)
    grid: GridConfig = field(default_factory=GridConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    pilot: PilotConfig = field(default_factory=PilotConfig)
    replicates: ReplicateConfig = field(default_factory=ReplicateConfig)
    twin: TwinConfig = field(default_factory=TwinConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    form: LawForm = LawForm.chinchilla
    level: float = 0.9
    resamples: int = 1000

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return Path(self.root) / self.name

    def check(self) -> None:
        """Raise ValueError on a study that cannot answer its question."""
        if len(self.budgets) < 2 or sorted(set(self.budgets)) != list(self.budgets):
            raise ValueError(
                f"budgets={self.budgets}: must hold at least two FLOPs in rising order. "
                "Use for example budgets=[1e11,1e12]."
            )
        if self.budgets[0] <= 0 or self.pilot.flops <= 0:
            raise ValueError("budgets, pilot.flops: must be positive. Use FLOPs such as 1e11.")
        if self.grid.sizes < 1 or self.grid.spacing <= 1:
            raise ValueError(
                f"grid.sizes={self.grid.sizes}, grid.spacing={self.grid.spacing}: need at least "
                "one size and a spacing above 1. Use 5 and 1.6."
            )
        if self.grid.max_depth < 0:
            raise ValueError(
                f"grid.max_depth={self.grid.max_depth}: must be 0 or more. "
                "0 leaves the depth to the ladder."
            )
        if self.grid.heads not in (0, 1, 2, 4):
            raise ValueError(
                f"grid.heads={self.grid.heads}: must be 1, 2 or 4, as widths are multiples of 8, "
                "or 0, which leaves heads to the ladder."
            )
        if self.replicates.sizes < 1:
            raise ValueError(
                f"replicates.sizes={self.replicates.sizes}: must be 1 or more. "
                "Use 1, the middle size of a budget."
            )
        if not set(self.replicates.budgets) <= set(self.budgets):
            raise ValueError(
                f"replicates.budgets={self.replicates.budgets}: must be some of budgets="
                f"{self.budgets}. Use [{self.budgets[0]}]."
            )
