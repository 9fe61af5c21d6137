"""Schema of an isoFLOP study: a question, budgets and sizes, the recipe that trains every run.

The other kinds of study have theirs in ``arms/config.py`` (a few arms at equal compute) and
``grids/config.py`` (points of any settings); all are composed here.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import launch
from launch.config import ClusterConfig
from sweeps.kinds.arms.config import ArmsConfig
from sweeps.study.config import RecipeConfig, SampleConfig
from trainer.compose import check_name, explain, refuse_unknown

if TYPE_CHECKING:  # its schema is made of classes of this file
    from sweeps.kinds.points.config import GridStudyConfig

CONF_DIR = Path(__file__).parents[1] / "conf"
CLUSTER_CONF = Path(launch.__file__).parent / "conf"


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


def compose_study(overrides: list[str]) -> StudyConfig:
    """Compose an isoFLOP study; see :func:`compose_any`."""
    study = compose_any(overrides)
    if not isinstance(study, StudyConfig):
        kind = "compares arms" if isinstance(study, ArmsConfig) else "is one of points"
        raise ValueError(f"study={study.name}: {kind}. Use a study with budgets.")
    return study


def compose_any(overrides: list[str]) -> "StudyConfig | ArmsConfig | GridStudyConfig":
    """Compose a study from ``sweeps/conf`` and Hydra overrides; ``study=NAME`` picks the file.

    The file says by its schema which kind of study it is. Raises ValueError with the remedy.
    """
    from sweeps.kinds.points.config import GridStudyConfig

    schemas = {"isoflop": StudyConfig, "arms": ArmsConfig, "grid": GridStudyConfig}
    for name, node in schemas.items():
        ConfigStore.instance().store(group="schema", name=name, node=node, package="_global_")
    schema: DictConfig = OmegaConf.structured(StudyConfig)
    # Clusters are the launch room's: its conf folder joins the search path.
    search = f"hydra.searchpath=[file://{CLUSTER_CONF.resolve()}]"
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.resolve())):
        try:
            choices = [o for o in overrides if o.startswith(("study=", "schema="))]
            schema = _allowed(compose(config_name="config", overrides=[search, *choices]))
            config = compose(config_name="config", overrides=[search, *overrides])
            schema = _allowed(config)
            refuse_unknown(config, schema)
            study = OmegaConf.to_object(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(_explain(error, schema)) from error
    assert isinstance(study, StudyConfig | ArmsConfig | GridStudyConfig)
    check_name(study.name)
    study.check()
    return study


def _allowed(config: DictConfig) -> DictConfig:
    """Return the schema of a composed study; arms have names of their own."""
    kind = OmegaConf.get_type(config)
    assert kind is not None
    if kind is StudyConfig or "arms" not in config:
        return OmegaConf.structured(kind)
    return OmegaConf.structured(kind(arms={str(name): [] for name in config.arms}))


def _explain(error: BaseException, schema: DictConfig) -> str:
    if "must specify 'study'" in str(error):
        names = "|".join(sorted(path.stem for path in (CONF_DIR / "study").glob("*.yaml")))
        return f"study: must be chosen. Allowed: study={names}."
    return explain(error, schema)


def freeze_study(study: "StudyConfig | ArmsConfig | GridStudyConfig") -> None:
    """Write ``study.yaml`` into the study's folder; refuse a folder that holds another study."""
    path = study.folder / "study.yaml"
    text = OmegaConf.to_yaml(OmegaConf.structured(study))
    if path.exists() and _science(path.read_text(), study) != _science(text, study):
        raise ValueError(
            f"study={study.folder}: holds a study with other settings. "
            "Choose another name=... or move the folder away."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _science(text: str, study: "StudyConfig | ArmsConfig | GridStudyConfig") -> dict:
    """Return a frozen study without what does not change its runs.

    Keys that the schema got since it was frozen have their defaults, which change nothing.
    """
    defaults = OmegaConf.to_container(OmegaConf.structured(type(study)), enum_to_str=True)
    frozen = OmegaConf.merge(OmegaConf.create(defaults), OmegaConf.create(text))
    config = OmegaConf.to_container(frozen)
    assert isinstance(config, dict)
    free = ["cluster", "form", "level", "resamples", "samples", "question", "root"]
    free += ["cost", "expected", "seeds", "losses", "draws"]  # of arms: more of them go on
    free += ["replicates"]  # more of them go on too
    free += ["analysis", "stop_early", "repeat", "noise_seeds", "stand_in"]
    return {key: value for key, value in config.items() if key not in free}
