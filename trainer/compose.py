"""What went wrong while composing a config, in one line that says what is allowed; torch-free."""

from collections.abc import Iterable
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def refuse_unknown(config: DictConfig, schema: DictConfig, prefix: str = "") -> None:
    """Raise ValueError for a key that the schema lacks.

    Hydra's "+key=value" adds any key, which ``OmegaConf.to_object`` would drop without a word.
    """
    for key in map(str, config):
        if key not in schema:
            raise ValueError(_unknown_key(f"{prefix}{key}", schema))
        if OmegaConf.is_dict(schema[key]) and OmegaConf.is_dict(config[key]):
            refuse_unknown(config[key], schema[key], f"{prefix}{key}.")


def explain(error: BaseException, schema: DictConfig) -> str:
    """Say in one line what a composer's error is about and what is allowed there."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            group, _, choice = str(cause.missing_cfg_file).rpartition("/")
            choices = ", ".join(cause.options or [])
            return f"{group}={choice}: unknown choice. Allowed: {choices}."
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return _explain_key(cause, schema)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: cannot be read. Write key=value; items that hold an equals sign "
            'need quotes, as in \'base=["experiment=cpu_demo","seed=1"]\'.'
        )
    lines = [line.strip() for line in str(error).splitlines() if line and "http" not in line]
    return f"{': '.join(lines)}. Write key=value or group=choice, see --help."


def _unknown_key(key: str, level: Iterable[Any]) -> str:
    return f"{key}: unknown key. Allowed: {', '.join(sorted(map(str, level)))}."


def _explain_key(error: OmegaConfBaseException, schema: DictConfig) -> str:
    """Explain an error about one key: unknown, or with a value of the wrong type."""
    key = str(error.full_key).split("[")[0]
    *path, last = key.split(".")
    level = OmegaConf.select(schema, ".".join(path)) if path else schema
    if OmegaConf.is_dict(level) and last not in level:
        return _unknown_key(key, level)
    if OmegaConf.is_dict(level) and OmegaConf.is_dict(level[last]):
        inner = ", ".join(f"{key}.{name}" for name in sorted(map(str, level[last])))
        return f"{key}: holds keys, not a value. Allowed: {inner}."
    return f"{key}: {str(error).splitlines()[0]}."
