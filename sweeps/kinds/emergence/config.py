"""Schema of a study of emergence: budgets, sizes, seeds, the law's data and its twin's, pairs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Le, MinLen
from typing_extensions import Doc

from data.worlds.hidden import WORLDS as RENDERED
from launch.config import ClusterConfig
from sweeps.study.config import Positive, RecipeConfig, SizesConfig
from trainer.config import Seed
from trainer.probes.likelihood.config import Look


@dataclass
class PairsConfig:
    """What every run is asked, beside its twin (``kinescale probe``)."""

    worlds: Annotated[list[str], Doc("Tiny worlds; empty asks about all that the runs saw.")] = (
        field(default_factory=list)
    )
    properties: Annotated[list[str], Doc("What pairs differ in; empty asks about all.")] = field(
        default_factory=list
    )
    count: Annotated[int, Ge(8), Doc("Crossed pairs of each property.")] = 128
    clips: Annotated[int, Ge(64), Doc("Lawful clips behind the linear denoiser.")] = 2048
    seed: Annotated[Seed, Doc("Decides pairs and noise, the same for all runs.")] = 0
    looks: Annotated[
        list[Look],
        MinLen(1),
        Doc("Ways to look at a pair; tests and forecasts are made of the first."),
    ] = field(default_factory=lambda: [Look.given])


@dataclass
class DrawsConfig:
    """What every run and its twin draw (``kinescale continuations``)."""

    clips: Annotated[
        int, Ge(0), Doc("Clips of each world that are gone on from, at least 8; 0 draws none.")
    ] = 64
    seed: Annotated[Seed, Doc("Decides clips and noise, the same for all runs.")] = 0
    steps: Annotated[int, Ge(1), Le(1000), Doc("Steps of the sampler.")] = 24
    shown: Annotated[
        int,
        Ge(0),
        Le(4),
        Doc("Clips that samples/ladder-WORLD.png shows of each budget; 0 draws no picture."),
    ] = 0


@dataclass
class MoreSizesConfig:
    """Sizes beside those of the ladder, by which size and loss come apart."""

    params: Annotated[list[Positive], Doc("Parameters, the same at all these budgets.")] = field(
        default_factory=list
    )
    budgets: Annotated[list[Positive], Doc("Some of the study's budgets.")] = field(
        default_factory=list
    )


@dataclass
class AgainConfig:
    """More seeds of each budget's best size."""

    seeds: Annotated[list[Seed], Doc("Seeds beside the study's.")] = field(default_factory=list)
    budgets: Annotated[
        list[Positive],
        Doc("Only at these budgets; empty is all, of knees the first at which a seed has a law."),
    ] = field(default_factory=list)


@dataclass
class EmergenceConfig:
    """A study of emergence."""

    kind: ClassVar[str] = "emergence"
    tabulates_strata: ClassVar[bool] = True
    free: ClassVar[tuple[str, ...]] = (
        "cost", "expected", "budgets", "until", "seeds", "more_sizes", "again", "knees", "pairs",
        "draws",
    )  # fmt: skip

    name: Annotated[str, Doc("What it is called; its folder is root/name.")] = "emergence"
    question: Annotated[str, Doc("What it asks.")] = ""
    cost: Annotated[str, Doc("What it takes, in words.")] = ""
    expected: Annotated[str, Doc("What its author expects, in words.")] = ""
    root: Annotated[str, Doc("Folder of the study's folder.")] = "runs"
    base: Annotated[list[str], Doc("Hydra overrides that every run shares.")] = field(
        default_factory=list
    )
    law: Annotated[list[str], Doc("Overrides of the runs on lawful clips.")] = field(
        default_factory=list
    )
    twin: Annotated[list[str], Doc("Overrides of their twins, on clips without the law.")] = field(
        default_factory=list
    )
    budgets: Annotated[list[Positive], Doc("Training FLOPs in rising order.")] = field(
        default_factory=list
    )
    until: Annotated[
        float,
        Ge(0),
        Doc("Largest budget to run this time; a later sitting raises it. 0: all of them."),
    ] = 0.0
    forecast_from: Annotated[
        float,
        Ge(0),
        Doc(
            "Largest budget that the forecast of onsets sees, which is written before a larger "
            "one begins. 0: no forecast."
        ),
    ] = 0.0
    least: Annotated[
        float,
        Ge(0),
        Le(1),
        Doc(
            "Smallest law - twin, as a share of the lawful error, that counts as an onset beside "
            "an interval above zero."
        ),
    ] = 0.0
    sizes: SizesConfig = field(default_factory=SizesConfig)
    min_depth: Annotated[int, Ge(1), Doc("Least blocks of a size; one has no second hop.")] = 2
    min_params: Annotated[
        float, Ge(0), Doc("Least parameters of a size: small budgets would ask for fewer.")
    ] = 0.0
    more_sizes: MoreSizesConfig = field(default_factory=MoreSizesConfig)
    seeds: Annotated[list[Seed], MinLen(1), Doc("Seeds of every point.")] = field(
        default_factory=lambda: [0]
    )
    again: AgainConfig = field(default_factory=AgainConfig)
    knees: AgainConfig = field(default_factory=AgainConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    draws: DrawsConfig = field(default_factory=DrawsConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return Path(self.root) / self.name

    @property
    def sitting(self) -> list[float]:
        """The budgets that are run this time."""
        return [b for b in self.budgets if not self.until or b <= self.until]

    def check(self) -> None:
        """Raise ValueError on a study that cannot answer its question."""
        self.recipe.check()
        budgets, seeds = self.budgets, [*self.seeds, *self.again.seeds, *self.knees.seeds]
        some = f"some of {budgets}"
        rules: list[tuple[str, bool, str, str]] = [
            ("budgets", bool(budgets) and sorted(set(budgets)) == list(budgets),
             "hold FLOPs in rising order", "budgets=[1e11,4e11]"),
            ("until", bool(self.sitting), "reach the first budget", f"until={max(budgets):g}"
             if budgets else "until=0"),
            ("sizes.params", bool(self.sizes.params), "name a size", "sizes.params=[1e5]"),
            ("sizes.at", not self.sizes.exponent or self.sizes.at > 0,
             "be a budget where sizes.exponent is not 0", "sizes.at=1e11"),
            ("twin", self.twin != self.law, "differ from law, on clips without it",
             "twin=['data.root=LAWLESS']"),
            ("seeds", len(set(seeds)) == len(seeds),
             "be distinct, those of again and knees with them", "seeds=[0]"),
            ("pairs.worlds", not {*self.pairs.worlds} & {*RENDERED},
             "be tiny ones, of which there are twins", "pairs.worlds=[strip]"),
            ("draws.clips", self.draws.clips == 0 or self.draws.clips >= 8,
             "be none or at least 8", "draws.clips=64"),
            ("draws.shown", self.draws.shown <= self.draws.clips,
             "be no more than draws.clips", "draws.clips=64"),
            ("more_sizes.budgets", set(self.more_sizes.budgets) <= set(budgets),
             "be among budgets", some),
            ("again.budgets", set(self.again.budgets) <= set(budgets), "be among budgets", some),
            ("knees.budgets", set(self.knees.budgets) <= set(budgets)
             and bool(self.knees.seeds or not self.knees.budgets),
             "be among budgets, and empty without knees.seeds", some),
            ("forecast_from", not self.forecast_from or
             sum(b <= self.forecast_from for b in budgets) >= LEAST_FOR_FORECAST,
             f"leave {LEAST_FOR_FORECAST} budgets to forecast from", "0"),
        ]  # fmt: skip
        for key, ok, rule, remedy in rules:
            if not ok:
                raise ValueError(f"{key}: must {rule}. Use {remedy}.")


LEAST_FOR_FORECAST = 4  # budgets that sweeps/emergence/onset.py asks for
