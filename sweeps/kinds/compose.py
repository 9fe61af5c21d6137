"""Compose a study of any kind from ``sweeps/conf`` and Hydra overrides.

The schema of each kind stands beside it: ``isoflop/config.py``, ``arms/config.py``,
``points/config.py``.
"""

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import launch
from data.bounds import check_bounds
from sweeps.kinds.arms.config import ArmsConfig
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.kinds.points.config import GridStudyConfig
from trainer.compose import check_name, explain, quoted, refuse_unknown

CONF_DIR = Path(__file__).parents[1] / "conf"
CLUSTER_CONF = Path(launch.__file__).parent / "conf"


def compose_study(overrides: list[str]) -> StudyConfig:
    """Compose an isoFLOP study; see :func:`compose_any`."""
    study = compose_any(overrides)
    if not isinstance(study, StudyConfig):
        kind = "compares arms" if isinstance(study, ArmsConfig) else "is one of points"
        raise ValueError(f"study={study.name}: {kind}. Use a study with budgets.")
    return study


def compose_any(overrides: list[str]) -> StudyConfig | ArmsConfig | GridStudyConfig:
    """Compose a study from ``sweeps/conf`` and Hydra overrides; ``study=NAME`` picks the file.

    The file says by its schema which kind of study it is. Raises ValueError with the remedy.
    """
    schemas = {"isoflop": StudyConfig, "arms": ArmsConfig, "grid": GridStudyConfig}
    for name, node in schemas.items():
        ConfigStore.instance().store(group="schema", name=name, node=node, package="_global_")
    schema: DictConfig = OmegaConf.structured(StudyConfig)
    # Clusters are the launch room's: its conf folder joins the search path.
    search = f"hydra.searchpath=[file://{CLUSTER_CONF.resolve()}]"
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.resolve())):
        try:
            overrides = quoted(overrides)
            choices = [o for o in overrides if o.startswith(("study=", "schema="))]
            schema = _allowed(compose(config_name="config", overrides=[search, *choices]))
            config = compose(config_name="config", overrides=[search, *overrides])
            schema = _allowed(config)
            refuse_unknown(config, schema)
            study = OmegaConf.to_object(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(_explain(error, schema)) from error
    assert isinstance(study, StudyConfig | ArmsConfig | GridStudyConfig)
    check_bounds(study)
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
