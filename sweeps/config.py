"""Schema of an isoFLOP study: a question, budgets and sizes, the recipe that trains every run.

The other kind of study, a few arms at equal compute, has its schema in ``arms/config.py``; both are
composed here.
"""

from dataclasses import dataclass, field
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import launch
from launch.config import ClusterConfig
from sweeps.arms.config import ArmsConfig
from trainer.compose import check_name, explain, refuse_unknown

CONF_DIR = Path(__file__).parent / "conf"
CLUSTER_CONF = Path(launch.__file__).parent / "conf"


@dataclass
class RecipeConfig:
    """How learning rate and batch follow from a run's parameters and tokens; see recipe.py.

    lr: peak rate at ``lr_tokens`` training tokens and the model's ``base_width``.
    lr_tokens, lr_power: lr(D) = lr * (D / lr_tokens) ** -lr_power.
    batch_tokens: batch at ``batch_at_tokens`` training tokens; grows as a power of them.
    batch_power, pack_tokens: exponent of the batch; a batch is whole packs of ``pack_tokens``.
    lr_min, lr_max: bounds of the rate.
    """

    lr: float = 5e-3
    lr_tokens: float = 1e6
    lr_power: float = 0.0
    lr_min: float = 5e-4
    lr_max: float = 2e-2
    batch_tokens: int = 1024
    batch_at_tokens: float = 1e6
    batch_power: float = 0.0
    pack_tokens: int = 1024


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
    """

    sizes: int = 5
    spacing: float = 1.6
    min_params: float = 6e4
    max_extensions: int = 2


@dataclass
class ReplicateConfig:
    """The same run with other seeds, for the noise floor: ``seeds`` of the best of one budget."""

    budget: float = 0.0
    seeds: list[int] = field(default_factory=list)


@dataclass
class TwinConfig:
    """One run on one process and again on two with ZeRO 1, to show that the layout is invisible."""

    enabled: bool = False
    params: float = 1e5
    steps: int = 100


@dataclass
class SampleConfig:
    """The compute ladder: clips from the best model of each budget, same noise and prompts.

    prompts: how many held-out captions; guidance and steps of the sampler.
    """

    prompts: int = 4
    guidance: float = 2.0
    steps: int = 16


@dataclass
class StudyConfig:
    """A study.

    name, question: what it is called and what it asks.
    base: Hydra overrides that every run shares.
    budgets: training FLOPs; the largest is held out of the test fit and predicted.
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
        if self.replicates.seeds and self.replicates.budget not in self.budgets:
            raise ValueError(
                f"replicates.budget={self.replicates.budget}: must be one of budgets="
                f"{self.budgets}. Use {self.budgets[0]}."
            )


_SCHEMAS = {"isoflop": StudyConfig, "arms": ArmsConfig}


def compose_study(overrides: list[str]) -> StudyConfig:
    """Compose an isoFLOP study; see :func:`compose_any`."""
    study = compose_any(overrides)
    if not isinstance(study, StudyConfig):
        raise ValueError(f"study={study.name}: compares arms. Use a study with budgets.")
    return study


def compose_any(overrides: list[str]) -> StudyConfig | ArmsConfig:
    """Compose a study from ``sweeps/conf`` and Hydra overrides; ``study=NAME`` picks the file.

    The file says by its schema which kind of study it is. Raises ValueError with the remedy.
    """
    for name, node in _SCHEMAS.items():
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
    assert isinstance(study, StudyConfig | ArmsConfig)
    check_name(study.name)
    study.check()
    return study


def _allowed(config: DictConfig) -> DictConfig:
    """Return the schema of a composed study; its arms have names of their own."""
    if OmegaConf.get_type(config) is not ArmsConfig:
        return OmegaConf.structured(StudyConfig)
    return OmegaConf.structured(ArmsConfig(arms={str(name): [] for name in config.arms}))


def _explain(error: BaseException, schema: DictConfig) -> str:
    if "must specify 'study'" in str(error):
        names = "|".join(sorted(path.stem for path in (CONF_DIR / "study").glob("*.yaml")))
        return f"study: must be chosen. Allowed: study={names}."
    return explain(error, schema)


def freeze_study(study: StudyConfig | ArmsConfig) -> None:
    """Write ``study.yaml`` into the study's folder; refuse a folder that holds another study."""
    path = study.folder / "study.yaml"
    text = OmegaConf.to_yaml(OmegaConf.structured(study))
    if path.exists() and _science(path.read_text()) != _science(text):
        raise ValueError(
            f"study={study.folder}: holds a study with other settings. "
            "Choose another name=... or move the folder away."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _science(text: str) -> dict:
    """Return a frozen study without what does not change its runs."""
    config = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(config, dict)
    free = ["cluster", "level", "resamples", "samples", "question", "root"]
    free += ["cost", "expected", "seeds", "losses", "draws"]  # of arms: more of them go on
    return {key: value for key, value in config.items() if key not in free}
