"""Compose a study of any kind from ``sweeps/conf`` and Hydra overrides.

Its ``schema`` is a kind of ``catalogue.py``; the schema of each kind is its ``config.py``.
"""

from functools import cache
from pathlib import Path
from typing import cast

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import launch
from data.bounds import check_bounds
from sweeps.kinds.catalogue import KINDS, OLD_NAMES
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.study.config import Study
from trainer.compose import check_name, compose_values, explain, refuse_unknown, schema_of

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
    _register_kinds()
    # Clusters are the launch room's: its conf folder joins the search path.
    search = f"hydra.searchpath=[file://{CLUSTER_CONF.resolve()}]"
    try:
        config = compose_values(CONF_DIR, "config", [search, *overrides])
        refuse_unknown(config, _allowed(config))
        study = cast(Study, OmegaConf.to_object(config))
    except (HydraException, OmegaConfBaseException) as error:
        chosen = [search, *(o for o in overrides if o.startswith(("study=", "schema=")))]
        raise ValueError(_explain(error, chosen)) from error
    check_bounds(study)
    check_name(study.name)
    study.check()
    return study


@cache
def _register_kinds() -> None:
    """Let Hydra know the schemas: once in a process, since each takes 10 ms."""
    for name in (*KINDS, *OLD_NAMES):
        node = KINDS[OLD_NAMES.get(name, name)].schema
        ConfigStore.instance().store(group="schema", name=name, node=node, package="_global_")


def _allowed(config: DictConfig) -> DictConfig:
    """Return the schema of a composed study; names that a user gives, as of arms, are allowed."""
    kind = OmegaConf.get_type(config)
    assert kind is not None
    schema = schema_of(kind)
    named = [key for key in map(str, schema) if OmegaConf.get_type(schema, key) is dict]
    if not named:
        return schema
    return OmegaConf.structured(kind(**{key: {str(n): [] for n in config[key]} for key in named}))


def _explain(error: BaseException, chosen: list[str]) -> str:
    """Explain an error; ``chosen`` are the overrides that say which study it is."""
    if "must specify 'study'" in str(error):
        names = "|".join(sorted(path.stem for path in (CONF_DIR / "study").glob("*.yaml")))
        return f"study: must be chosen. Allowed: study={names}."
    try:
        schema = _allowed(compose_values(CONF_DIR, "config", chosen))
    except (HydraException, OmegaConfBaseException):  # the choice itself is what is wrong
        schema = schema_of(StudyConfig)
    return explain(error, schema)
