"""Schema of an isoFLOP study: a question, budgets and sizes, the recipe of every run."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import Doc

from data.words import shown
from launch.config import ClusterConfig
from sweeps.study.config import Positive, RecipeConfig, SampleConfig
from sweeps.study.y_axis import YAxisConfig
from trainer.config import Seed


class LawForm(StrEnum):
    """Form of a law L(N, D); equations in fit/catalogue.py."""

    chinchilla = "chinchilla"
    chinchilla_tied = "chinchilla_tied"
    kaplan = "kaplan"
    overtraining = "overtraining"
    skaling = "skaling"


@dataclass
class PilotConfig:
    """A short isoFLOP curve that centres the grids: N*(C) = N_pilot * (C / flops) ** exponent."""

    flops: Annotated[Positive, Doc("Training FLOPs of each of its runs.")] = 8e10
    params: Annotated[list[Positive], Doc("Parameters of its sizes; empty makes no pilot.")] = (
        field(default_factory=list)
    )
    exponent: Annotated[
        float,
        Gt(0),
        Le(1),
        Doc("Power of C by which N* is taken to grow from the pilot to the grids."),
    ] = 0.5


@dataclass
class GridConfig:
    """IsoFLOP grids: sizes of models at every budget."""

    sizes: Annotated[int, Ge(1), Doc("Models a budget.")] = 5
    spacing: Annotated[float, Gt(1), Doc("Factor in parameters between two of them.")] = 1.6
    min_params: Annotated[Positive, Doc("Parameters of the smallest size that is trained.")] = 6e4
    max_extensions: Annotated[
        int, Ge(0), Doc("Sizes added on the side where a budget's minimum is not interior.")
    ] = 2
    max_depth: Annotated[
        int,
        Ge(0),
        Doc(
            "Most blocks of a size; 1 lets sizes differ in width alone, 0 leaves it to the ladder."
        ),
    ] = 0
    heads: Annotated[
        int,
        Ge(0),
        Le(4),
        Doc(
            "Heads of every size (1, 2 or 4), so that width alone differs; 0 leaves them to "
            "the ladder, whose narrow models have one and wide ones more."
        ),
    ] = 0


@dataclass
class ReplicateConfig:
    """Other seeds of some sizes of some budgets.

    They give the noise floor and take part in the fit; a point's best loss is the mean over seeds.
    """

    budgets: Annotated[
        list[Positive], Doc("Budgets whose runs are repeated, some of the study's.")
    ] = field(default_factory=list)
    seeds: Annotated[list[Seed], Doc("Seeds of the repetitions; empty repeats nothing.")] = field(
        default_factory=list
    )
    sizes: Annotated[
        int, Ge(1), Doc("Middle sizes of each of these budgets that are repeated.")
    ] = 1


@dataclass
class TwinConfig:
    """One run on one process and again on two with ZeRO 1, to show that the layout is invisible."""

    enabled: Annotated[bool, Doc("Whether the two runs are made.")] = False
    params: Annotated[Positive, Doc("Parameters of their model.")] = 1e5
    steps: Annotated[int, Ge(1), Doc("Their optimizer steps.")] = 100


@dataclass
class StudyConfig:
    """An isoFLOP study."""

    kind: ClassVar[str] = "isoflop"
    tabulates_strata: ClassVar[bool] = True
    free: ClassVar[tuple[str, ...]] = (
        "form", "level", "resamples", "samples", "replicates", "up_to", "held_out",
    )  # fmt: skip

    name: Annotated[str, Doc("What it is called; its folder is root/name.")] = "study"
    question: Annotated[str, Doc("What it asks.")] = ""
    root: Annotated[str, Doc("Folder of the study's folder.")] = "runs"
    base: Annotated[list[str], Doc("Hydra overrides that every run shares.")] = field(
        default_factory=list
    )
    budgets: Annotated[
        list[Positive],
        Doc(
            "Training FLOPs in rising order, at least two; the largest are held out of the "
            "test fit and predicted."
        ),
    ] = field(default_factory=list)
    held_out: Annotated[
        int,
        Ge(1),
        Doc(
            "How many of the largest budgets the held-out test predicts; one in a sitting that "
            "leaves some out."
        ),
    ] = 1
    up_to: Annotated[
        float,
        Ge(0),
        Doc(
            "Train no budget above so many FLOPs in this sitting, and fit those below; 0 trains "
            "all. What is held out can so be predicted, and the prediction kept, before it runs."
        ),
    ] = 0.0
    grid: GridConfig = field(default_factory=GridConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    pilot: PilotConfig = field(default_factory=PilotConfig)
    replicates: ReplicateConfig = field(default_factory=ReplicateConfig)
    twin: TwinConfig = field(default_factory=TwinConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    form: Annotated[
        LawForm,
        Doc("Form of the law in parameters and tokens; kinescale fit --help has equations."),
    ] = LawForm.chinchilla
    y_axis: YAxisConfig = field(default_factory=YAxisConfig)
    level: Annotated[float, Gt(0), Lt(1), Doc("Level of the bootstrap intervals.")] = 0.9
    resamples: Annotated[int, Ge(1), Doc("Draws of the bootstrap.")] = 1000

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return Path(self.root) / self.name

    @property
    def sitting(self) -> list[float]:
        """The budgets that are trained now."""
        return [b for b in self.budgets if not self.up_to or b <= self.up_to]

    @property
    def largest_budget(self) -> float:
        """FLOPs before which the y-axis is frozen."""
        return max(self.budgets)

    def check(self) -> None:
        """Raise ValueError on a study that cannot answer its question."""
        if len(self.budgets) < 2 or sorted(set(self.budgets)) != list(self.budgets):
            raise ValueError(
                f"budgets={shown(self.budgets)}: must hold at least two FLOPs in rising order. "
                "Use for example budgets=[1e11,1e12]."
            )
        if len(self.sitting) < 2:
            raise ValueError(
                f"up_to={self.up_to:g}: must leave at least two of budgets={shown(self.budgets)}. "
                f"Use up_to={self.budgets[1]:g}, or 0 for all."
            )
        if self.held_out >= len(self.budgets):
            raise ValueError(
                f"held_out={self.held_out}: must leave one of budgets={shown(self.budgets)} to "
                "fit. Use held_out=1."
            )
        _ = self.y_axis.axis  # raises
        if self.grid.heads not in (0, 1, 2, 4):
            raise ValueError(
                f"grid.heads={self.grid.heads}: must be 1, 2 or 4, as widths are multiples of 8, "
                "or 0, which leaves heads to the ladder."
            )
        if not set(self.replicates.budgets) <= set(self.budgets):
            raise ValueError(
                f"replicates.budgets={shown(self.replicates.budgets)}: must be some of budgets="
                f"{shown(self.budgets)}. Use {shown(self.budgets[:1])}."
            )
