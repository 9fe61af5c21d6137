"""Compose a study of any kind from ``sweeps/conf`` and Hydra overrides.

Its ``schema`` is a kind of ``catalogue.py``; the schema of each kind is its ``config.py``.
"""

from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import launch
from data.bounds import check_bounds
from sweeps.kinds.catalogue import KINDS, OLD_NAMES
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.study.config import Study
from trainer.compose import check_name, explain, quoted, refuse_unknown

CONF_DIR = Path(__file__).parents[1] / "conf"
CLUSTER_CONF = Path(launch.__file__).parent / "conf"


def compose_study(overrides: list[str]) -> StudyConfig:
    """Compose an isoFLOP study; see :func:`compose_any`."""
    study = compose_any(overrides)
    if not isinstance(study, StudyConfig):
        does = KINDS[study.kind].does
        raise ValueError(f"study={study.name}: {does}. Use a study with budgets.")
    return study


def compose_any(overrides: list[str]) -> Study:
    """Compose a study from ``sweeps/conf`` and Hydra overrides; ``study=NAME`` picks the file.

    The file says by its schema which kind of study it is. Raises ValueError with the remedy.
    """
    for name in (*KINDS, *OLD_NAMES):
        node = KINDS[OLD_NAMES.get(name, name)].schema
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
            study = cast(Study, OmegaConf.to_object(config))
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(_explain(error, schema)) from error
    check_bounds(study)
    check_name(study.name)
    study.check()
    return study


def _allowed(config: DictConfig) -> DictConfig:
    """Return the schema of a composed study; names that a user gives, as of arms, are allowed."""
    kind = OmegaConf.get_type(config)
    assert kind is not None
    schema: DictConfig = OmegaConf.structured(kind)
    named = [key for key in map(str, schema) if OmegaConf.get_type(schema, key) is dict]
    return OmegaConf.structured(kind(**{key: {str(n): [] for n in config[key]} for key in named}))


def _explain(error: BaseException, schema: DictConfig) -> str:
    if "must specify 'study'" in str(error):
        names = "|".join(sorted(path.stem for path in (CONF_DIR / "study").glob("*.yaml")))
        return f"study: must be chosen. Allowed: study={names}."
    return explain(error, schema)
