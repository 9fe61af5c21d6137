"""Compose, name, freeze and load a run of any schema; an error is one line with the remedy.

Torch-free.
"""

import copy
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from data.bounds import check_bounds
from data.files import write_text
from data.keys import meant
from data.secrets import masked, refuse_secrets, texts_in

CONFIG_FILE = "config.yaml"
_NAMELESS = "run"  # stands for the name of a schema that has none
# group=choice or key=value, without what only Hydra does: + and ~, packages, its own keys.
_PLAIN = re.compile(r"(?!hydra\.)[A-Za-z_][\w.]*=.*", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}")
CONF_DIR = Path(__file__).parent / "conf"
# Hydra's own groups: eight files that every composition would read for keys that nobody asks for.
_OUTPUT = ("output", "launcher", "sweeper", "help", "hydra_help", "hydra_logging", "job_logging")
_WITHOUT_OWN = [f"~hydra/{group}" for group in (*_OUTPUT, "env")]
T = TypeVar("T")


def schema_of(schema: type) -> DictConfig:
    """Return a schema as OmegaConf has it, to be read only: made once, which takes 10 ms."""
    return _structured(schema)


def compose_values(folder: Path, name: str, overrides: list[str]) -> DictConfig:
    """Compose ``folder/NAME.yaml`` and Hydra overrides; raise Hydra's and OmegaConf's errors.

    Raises ValueError for what only Hydra's own command line knows.
    """
    refuse_flags(overrides)
    words = quoted(overrides)
    if all(map(_PLAIN.fullmatch, words)):
        try:
            return _valued(folder, name, words)
        except (HydraException, OmegaConfBaseException):
            pass  # Hydra says below what is wrong with all of them
    return _composed(folder, name, words)


def _valued(folder: Path, name: str, words: Sequence[str]) -> DictConfig:
    """Set the values of words in what their choices make, which is composed once a process.

    Runs of a study differ in values alone, and Hydra takes 60 ms for their choices. Raises the
    composer's errors, also for words that are several values.
    """
    choices = [word for word in words if (folder / word.partition("=")[0]).is_dir()]
    config = copy.deepcopy(_chosen(folder, name, tuple(choices)))
    values = [word for word in words if word not in choices]
    for override in OverridesParser.create().parse_overrides(values):
        if override.is_sweep_override():
            raise HydraException(f"{override.input_line}: is several values")
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    return config


@cache
def _chosen(folder: Path, name: str, choices: tuple[str, ...]) -> DictConfig:
    return _composed(folder, name, choices)


def _composed(folder: Path, name: str, words: Sequence[str]) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(folder.resolve())):
        return compose(config_name=name, overrides=[*words, *_WITHOUT_OWN])


def split_cfg(words: Sequence[str]) -> tuple[bool, list[str]]:
    """Return whether words ask for the config alone, as Hydra's ``--cfg job``, and the others.

    ``job`` may be left out. Raises ValueError for Hydra's own config, which there is not.
    """
    flag = next((word for word in words if word in ("--cfg", "-c")), "")
    if not flag:
        return False, list(words)
    place = words.index(flag)
    which = words[place + 1] if len(words) > place + 1 else ""
    if which in ("hydra", "all"):
        raise ValueError(f"{flag} {which}: Hydra's own config is not used. Use --cfg job.")
    return True, [*words[:place], *words[place + 1 + (which == "job") :]]


def shown(config: Any) -> str:
    """Return a composed schema as YAML, keys masked."""
    return masked(OmegaConf.to_yaml(OmegaConf.structured(config)), os.environ)


def refuse_flags(words: Iterable[str]) -> None:
    """Raise ValueError for flags and keys of Hydra's own command line, with what does it here."""
    for word in words:
        if word in ("--multirun", "-m"):
            raise ValueError(
                f"{word}: one command is one run. Many runs are a study (kinescale run --help), or "
                "a loop of your shell."
            )
        if word.startswith("-"):
            raise ValueError(
                f"{word}: is no flag here. --help teaches the command, kinescale keys lists all "
                "keys, kinescale train --cfg job prints a composed run."
            )
        if word.lstrip("+~").startswith("hydra.") and not word.startswith("hydra.searchpath="):
            raise ValueError(
                f"{word}: Hydra's own keys do nothing here. Leave it out; run_root and name say "
                "where a run lies."
            )


def compose_as(schema: type[T], name: str, overrides: list[str]) -> T:
    """Compose ``trainer/conf/NAME.yaml``, whose defaults begin with ``NAME_schema``.

    Raises ValueError with the remedy.
    """
    if said := said_kind(overrides):  # before its keys are found to be another schema's
        _check_kind(said, schema)
    _register(f"{name}_schema", schema)
    try:
        found = _to_object(compose_values(CONF_DIR, name, overrides), schema)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error, schema_of(schema))) from error
    check_name(getattr(found, "name", _NAMELESS))
    return found


def said_kind(overrides: Sequence[str]) -> str | None:
    """Return the kind of run that ``kind=`` or the file of ``experiment=`` says; None if neither.

    Raises ValueError where they disagree.
    """
    pairs = [word.lstrip("+").partition("=") for word in overrides]
    given = {key: value.strip("'\"") for key, _, value in pairs}
    experiment = given.get("experiment", "")
    said, declared = given.get("kind"), _declared(experiment)
    if said and declared and said != declared:
        raise ValueError(
            f"kind={said}: experiment={experiment} is of kind={declared}. Leave kind out."
        )
    return said or declared


def _declared(experiment: str) -> str | None:
    """Return the kind that an experiment's file says, itself or by one that it is based on."""
    path = CONF_DIR / "experiment" / f"{experiment}.yaml"
    if not experiment or not path.is_file():
        return None  # composing tells which there are
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    if "kind" in config:
        return str(config.kind)
    bases = [name for name in config.get("defaults", []) if isinstance(name, str)]
    found = [_declared(name) for name in bases if name not in ("_self_", experiment)]
    return next((kind for kind in reversed(found) if kind), None)


def quoted(overrides: Iterable[str]) -> list[str]:
    """Return overrides with quotes where Hydra's grammar knows no such value, as folders have it.

    ``data.root=clips/ü (2)`` becomes ``data.root='clips/ü (2)'``; what it can read stays.
    """
    parser = OverridesParser.create()
    found = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and value[:1] not in ("", "[", "{", "'", '"'):
            try:
                parser.parse_override(override)
            except HydraException:
                # Backslashes before a quote, or the end, would speak for it.
                escaped = re.sub(r"(\\*)('|\Z)", _escape, value)
                override = f"{key}='{escaped}'"
        found.append(override)
    return found


def _escape(match: re.Match[str]) -> str:
    slashes, quote = match.groups()
    return 2 * slashes + ("\\'" if quote else "")


def parse_as(schema: type[T], arguments: list[str]) -> T:
    """Read key=value arguments into a schema, for commands that have no files of values.

    Raises ValueError with the remedy.
    """
    try:
        given = OmegaConf.from_dotlist(arguments)
        merged = OmegaConf.merge(schema_of(schema), given)
        assert isinstance(merged, DictConfig)
        return _to_object(merged, schema)
    except OmegaConfBaseException as error:
        raise ValueError(explain(error, schema_of(schema))) from error


@cache
def _structured(schema: type) -> DictConfig:
    made: DictConfig = OmegaConf.structured(schema)
    return made


def _register(name: str, schema: type) -> None:
    """Let Hydra know a run's schema under a name of its own: once, since that takes 10 ms too."""
    _store(name, schema)


@cache
def _store(name: str, schema: type) -> None:
    ConfigStore.instance().store(name=name, node=_opened(OmegaConf.structured(schema)))


def check_name(name: str) -> None:
    """Raise ValueError for a name that cannot be a folder's, or would be one elsewhere."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name={name!r}: must begin with a letter or digit and hold only those and . _ + -, "
            "since it names a folder. Use for example name=run."
        )


def hashed_name(name: str, identity: Mapping[str, Any]) -> str:
    """Return a run folder's name: a readable prefix and the hash of the experiment; never parsed.

    identity: what defines the experiment, whatever machine carries it out; plain values.
    """
    text = json.dumps(identity, sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def freeze_as(
    run: T, folder: Path, load: Callable[[Path], T], identity: Callable[[T], dict[str, Any]]
) -> None:
    """Write ``config.yaml`` into a run folder, or check that what it holds is this experiment.

    Raises ValueError where it holds another one, and for a run that holds a key.
    """
    path, config = folder / CONFIG_FILE, OmegaConf.structured(run)
    refuse_secrets(texts_in(OmegaConf.to_container(config)), os.environ)
    if path.exists() and identity(load(folder)) != identity(run):
        raise ValueError(
            f"run={folder}: holds another experiment. Choose another name or delete the folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, OmegaConf.to_yaml(config))


def read_frozen(folder: Path) -> DictConfig:
    """Read the frozen config of a run folder as it stands, of whatever schema.

    Raises ValueError where there is none, or it is no YAML.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ValueError(f"run={folder}: has no config.yaml. Give a run folder made by a launch.")
    try:
        found = OmegaConf.load(path)
    except (OmegaConfBaseException, YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: cannot be read ({reason}). Restore it.") from error
    if not isinstance(found, DictConfig):
        raise ValueError(f"{path}: holds no keys. Restore it.")
    return found


def load_as(schema: type[T], folder: Path) -> T:
    """Load the frozen config of a run folder."""
    path, frozen = folder / CONFIG_FILE, read_frozen(folder)
    if "kind" in frozen:
        _check_kind(frozen.kind, schema)
    try:
        merged = OmegaConf.merge(schema_of(schema), frozen)
        assert isinstance(merged, DictConfig)
        return _to_object(merged, schema)
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {explain(error, schema_of(schema))}") from error


def _to_object(config: DictConfig, schema: type[T]) -> T:
    refuse_unknown(config, schema_of(schema))
    found = OmegaConf.to_object(config)
    assert isinstance(found, schema)
    _check_kind(getattr(found, "kind", None), schema)
    check_bounds(found)
    return found


def _check_kind(found: object, schema: type) -> None:
    """Raise ValueError for a run that says it is of another kind than its schema's."""
    wanted = getattr(schema, "kind", None)
    if found != wanted:
        raise ValueError(f"kind={found}: must be {wanted} here. Leave it out, or give such a run.")


def _opened(schema: DictConfig) -> DictConfig:
    """Return a schema whose mappings, as ``model.options``, take keys without a plus sign."""
    for key in schema:
        if OmegaConf.is_dict(schema[key]):
            if OmegaConf.get_type(schema, str(key)) is dict:
                OmegaConf.set_struct(schema[key], False)
            else:
                _opened(schema[key])
    return schema


def refuse_unknown(config: DictConfig, schema: DictConfig, prefix: str = "") -> None:
    """Raise ValueError for a key that the schema lacks.

    Hydra's "+key=value" adds any key, which ``OmegaConf.to_object`` would drop without a word. A
    mapping that is empty in the schema, as ``model.options``, takes any key.
    """
    for key in map(str, config):
        if key not in schema:
            raise ValueError(_unknown_key(f"{prefix}{key}", schema))
        if OmegaConf.is_dict(schema[key]) and schema[key] and OmegaConf.is_dict(config[key]):
            refuse_unknown(config[key], schema[key], f"{prefix}{key}.")


def explain(error: BaseException, schema: DictConfig) -> str:
    """Say in one line what a composer's error is about and what is allowed there."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            group, _, choice = str(cause.missing_cfg_file).partition("/")
            options = cause.options or []
            return f"{group}={choice}: unknown choice. {meant(choice, options)}"
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return _explain_key(cause, schema)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: cannot be read. Write key=value; items that hold an equals sign "
            'need quotes, as in \'base=["experiment=cpu_demo","seed=1"]\'.'
        )
    if several := re.match(r"Ambiguous value for argument '(.*)'", str(error)):
        return (
            f"{several[1]}: is several values. A list is key=[a,b]; several runs are a study "
            "(kinescale run --help), or a command each."
        )
    lines = [line.strip() for line in str(error).splitlines() if line and "http" not in line]
    return f"{': '.join(lines)}. Write key=value or group=choice, see --help."


def _unknown_key(key: str, level: Iterable[Any]) -> str:
    return f"{key}: unknown key. {meant(key.rpartition('.')[2], level)}"


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
