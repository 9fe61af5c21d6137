"""On which data each of two studies was validated, and whether it is the same.

Losses on different clips do not compare. Tables do not say what they were measured on, but the
folders they lie in do: the digest of a data set, the configs of the runs, what the runs counted.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from sweeps.fit.beside import beside
from sweeps.study.archive import read_configs, read_results

# Parts of a run's config on which the number called its loss depends.
KEYS = (
    "data.root", "validation.splits", "validation.samples", "validation.times",
    "validation.noise_seed", "validation.captions", "codec.kind", "codec.digest",
)  # fmt: skip
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where that was built: 20x quicker


@dataclass(frozen=True)
class Validated:
    """What a folder says of its validation data; every part may be empty.

    digest: of the data set. config: values of `KEYS` in the runs' configs. base: overrides that
    all runs shared. counted: clips and tokens of each split, as the runs counted them. y_axis: that
    the study registered, in words; empty where it is the plain one.
    """

    digest: str = ""
    config: dict[str, str] = field(default_factory=dict)
    base: dict[str, str] = field(default_factory=dict)
    counted: dict[str, str] = field(default_factory=dict)
    y_axis: str = ""


@dataclass(frozen=True)
class Agreement:
    """Whether two sides were validated on the same data. compared: what; differs: in words."""

    compared: list[str]
    differs: list[str]

    def sentence(self) -> str:
        """Return what is known in one sentence."""
        if self.differs:
            return f"Their validation data differ: {'; '.join(self.differs)}."
        if self.compared:
            return f"Their validation data are the same by {', '.join(self.compared)}."
        return (
            "Nothing beside them says on which clips and noise they were validated: both must be "
            "measured on the same."
        )


def validated(place: Path) -> Validated:
    """Return what is known of a table's study (the folder that it lies in) or of a run's folder.

    Raises:
        ValueError: an archive there is damaged.
    """
    if place.is_file() and place.name != "runs.csv":
        return Validated()  # a table of its own, whatever else lies in its folder
    folder = place.parent if place.is_file() else place
    configs = _yaml_texts([folder / "config.yaml", *sorted(folder.glob("runs/*/config.yaml"))])
    configs += read_configs(folder).values()
    results = [_json(folder / "result.json"), *read_results(folder).values()]
    results += [_json(path) for path in sorted(folder.glob("runs/*/result.json"))]
    found = [_yaml(text) for text in configs]
    return Validated(
        digest=str(_json(folder / "data.json").get("digest") or ""),
        config={key: text for key in KEYS if (text := _values(_at(c, key) for c in found))},
        base=_base(folder),
        counted=_counted(results),
        y_axis=_y_axis(place),
    )


def _y_axis(place: Path) -> str:
    axis = beside(place).y_axis
    return "" if axis.plain else str(axis)


def agreement(a: Validated, b: Validated) -> Agreement:
    """Compare what both sides say; what only one of them says is left out."""
    pairs = [("digest of the data set", a.digest, b.digest)] if a.digest and b.digest else []
    same_set = bool(pairs) and a.digest == b.digest
    if a.config and b.config:
        pairs += [(k, a.config[k], b.config[k]) for k in KEYS if k in a.config and k in b.config]
    elif a.base and b.base:
        own = "as the experiment has it"
        keys = [k for k in ("experiment", *KEYS) if k in a.base or k in b.base]
        pairs += [(k, a.base.get(k, own), b.base.get(k, own)) for k in keys]
    if a.y_axis or b.y_axis:
        pairs += [("y_axis", a.y_axis or "uniform", b.y_axis or "uniform")]
    shared = sorted(set(a.counted) & set(b.counted))
    pairs += [(f"what was counted of {s}", a.counted[s], b.counted[s]) for s in shared]
    if same_set:  # wherever it lies
        pairs = [pair for pair in pairs if pair[0] != "data.root"]
    differs = [f"{what} is {one} and {other}" for what, one, other in pairs if one != other]
    return Agreement([what for what, *_ in pairs], differs)


def _counted(results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return clips and tokens of each split; a split that runs counted differently has all."""
    found: dict[str, set[str]] = {}
    for result in results:
        for split, seen in (result.get("validation") or {}).items():
            if isinstance(seen, dict) and {"clips", "tokens"} <= set(seen):
                text = f"{seen['clips']} clips of {seen['tokens']} tokens"
                found.setdefault(str(split), set()).add(text)
    return {split: " or ".join(sorted(texts)) for split, texts in found.items()}


def _base(folder: Path) -> dict[str, str]:
    """Return the overrides in a study's base that its validation depends on."""
    texts = _yaml_texts([folder / "study.yaml"])
    study = _yaml(texts[0]) if texts else _json(folder / "study.json").get("config")
    base = study.get("base") if isinstance(study, dict) else None
    pairs = [str(word).partition("=") for word in base or []]
    return {key: text for key, _, text in pairs if key in ("experiment", *KEYS)}


def _at(config: Mapping[str, Any], key: str) -> Any:
    """Return a value by its dotted name, None where there is none."""
    part, _, rest = key.partition(".")
    value = config.get(part)
    return _at(value, rest) if rest and isinstance(value, dict) else None if rest else value


def _values(values: Iterable[Any]) -> str:
    """Return the different values as text."""
    texts = {json.dumps(value) for value in values if value not in (None, "")}
    return " or ".join(sorted(texts))


def _yaml_texts(paths: Iterable[Path]) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in paths if path.is_file()]


def _yaml(text: str) -> dict[str, Any]:
    try:
        found = yaml.load(text, _LOADER)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
