"""Parse key=value arguments over a schema, and tell its keys."""

import dataclasses
from typing import TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data.bounds import check_bounds
from data.keys import key_lines, sections

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


def help_text(schema: type) -> str:
    """Return a schema's keys with type, default, bounds and sentence; sections are left out."""
    return key_lines(next(sections(schema)))
