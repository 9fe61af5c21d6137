"""Parse key=value arguments over a schema, and tell its keys."""

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from data.bounds import check_bounds
from data.keys import guess, key_lines, sections

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
        merged = OmegaConf.merge(
            OmegaConf.structured(schema), OmegaConf.create(_given(schema, arguments))
        )
        config: Schema = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or getattr(error, "key", None) or "?"
        given = next((a for a in arguments if a.split("=")[0] == key), f"{key}=?")
        near = guess(str(key), allowed.split(", "))
        unknown = isinstance(error, ConfigKeyError)
        rule = "unknown key" if unknown else str(error).split("\n")[0]
        raise ValueError(f"{given}: {rule}. {near}Allowed keys: {allowed}.") from error
    check_bounds(config)
    return config


def _given(schema: type[Any], arguments: list[str]) -> Any:
    """Return what arguments say, as nested values; a text stays as it was typed.

    YAML would read a folder named "a: b", "007" or "" as something else.
    """
    kinds = get_type_hints(schema)
    texts = {key for key, kind in kinds.items() if kind is str}
    others = [word for word in arguments if word.partition("=")[0] not in texts]
    found: Any = OmegaConf.to_container(OmegaConf.from_dotlist(others))
    for word in arguments:
        key, _, value = word.partition("=")
        if key in texts:
            found[key] = unquoted(value)
    return found


def unquoted(text: str) -> str:
    """Return a value without the quotes around all of it, which some command lines need."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def read_json(path: Path, key: str) -> Any:
    """Return what a JSON file holds that ``key=`` names. Raises ValueError that names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{key}={path}: cannot be read ({error.strerror}). Use another."
        ) from error
    except ValueError as error:
        raise ValueError(f"{key}={path}: is no JSON ({error}). Mend it, or use another.") from error


def help_text(schema: type) -> str:
    """Return a schema's keys with type, default, bounds and sentence; sections are left out."""
    return key_lines(next(sections(schema)))
