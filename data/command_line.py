"""Parse key=value arguments over a schema, and tell its keys."""

import dataclasses
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data.bounds import check_bounds

Schema = TypeVar("Schema")


def parse(schema: type[Schema], arguments: list[str]) -> Schema:
    """Build a config from ``key=value`` arguments over a dataclass's defaults.

    Raises ValueError that names the allowed keys, the wanted type, or the bound that is broken.
    """
    allowed = ", ".join(f.name for f in dataclasses.fields(schema))  # type: ignore[arg-type]
    for argument in arguments:
        if "=" not in argument:
            raise ValueError(f"{argument}: must be key=value. Allowed keys: {allowed}.")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.from_dotlist(arguments))
        config: Schema = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or getattr(error, "key", None) or "?"
        given = next((a for a in arguments if a.split("=")[0] == key), f"{key}=?")
        rule = str(error).split("\n")[0]
        raise ValueError(f"{given}: {rule}. Allowed keys: {allowed}.") from error
    check_bounds(config)
    return config


def help_text(schema: type[Any]) -> str:
    """Return a schema's keys with their meaning and default values."""
    defaults = schema()
    lines = (schema.__doc__ or "").strip().split("\n\n", 1)[-1]
    values = "\n".join(
        f"    {f.name}={getattr(defaults, f.name)}"
        for f in dataclasses.fields(schema)
        if not dataclasses.is_dataclass(getattr(defaults, f.name))
    )
    return f"    {lines.strip()}\n\nDefaults:\n{values}"
