"""How the study that a table belongs to fits it, so that a refit of the table gives its law."""

import json
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from sweeps.fit.forms.catalogue import FORMS
from sweeps.fit.options import DEFAULTS
from sweeps.fit.rows.y_axis import YAxis, axis_of

FILES = ("study.yaml", "study.json", "law.json")  # the first that says how to fit is believed
DEFAULT_FORM = "chinchilla"
_READERS: dict[str, Callable[[Any], Any]] = {"form": str, "level": float, "resamples": int}
_OF_ANY_FORM = ("columns", "level", "resamples", "seed", "held_out", "y_axis")


@dataclass(frozen=True)
class Beside:
    """What the files beside a table say of its fit.

    values: form, level, resamples and, of a law.json, all else that it was asked for; empty where
    nothing says. source: the file that says it.
    """

    values: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None

    @property
    def form(self) -> str:
        """Return the form of the law, the default where nothing says."""
        return str(self.values.get("form", DEFAULT_FORM))

    @property
    def columns(self) -> dict[str, str]:
        """Return the table's names of columns (ours -> the table's)."""
        return dict(self.values.get("columns") or {})

    @property
    def y_axis(self) -> YAxis:
        """Return the axis that the study registered, the plain one where nothing says."""
        return axis_of(self.values.get("y_axis"))

    def taken(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what holds of the study's values where some are given on a command line.

        Given ones win; with another form only what any form has is left.
        """
        other = given.get("form", self.form) != self.form
        left = {k: v for k, v in self.values.items() if k in _OF_ANY_FORM or not other}
        return {k: v for k, v in left.items() if k not in given}

    def said(self, taken: Mapping[str, Any]) -> str:
        """Return the line that tells what was taken from the study; empty where nothing was."""
        return f"{' '.join(words_of(taken))}: from {self.source}" if taken else ""


def beside(table: Path) -> Beside:
    """Return how the study in whose folder a table lies fits it.

    Only a study's own table counts, runs.csv: another file in its folder is fitted as asked.

    Raises:
        ValueError: a file that should say it cannot be read.
    """
    if table.name != "runs.csv":
        return Beside()
    for name in FILES:
        path = table.parent / name
        if path.is_file() and (values := _read(path)):
            return Beside(values, path)
    return Beside()


def asked_of(law: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the fit of a law.json was asked for: form, level, resamples, and what is unusual.

    Raises:
        TypeError, ValueError: an entry is none.
    """
    found = {k: read(law[k]) for k, read in _READERS.items() if law.get(k) is not None}
    form = FORMS.get(str(law.get("form")))
    if law.get("seed", DEFAULTS.seed) != DEFAULTS.seed:
        found["seed"] = int(law["seed"])
    if form and "delta" in law:
        delta = math.inf if law["delta"] is None else float(law["delta"])  # JSON has no infinity
        found |= {"delta": delta} if delta != form.delta else {}
    if form and law.get("residual", form.residual) != form.residual:
        found["residual"] = str(law["residual"])
    return found | dict(law.get("asked") or {})


def words_of(values: Mapping[str, Any]) -> list[str]:
    """Return options as the words of a command line, those of several entries one by one."""
    words = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            words += [f"{key}.{entry}={_listed(item)}" for entry, item in value.items()]
        elif isinstance(value, list | tuple):
            words.append(f"{key}={_listed(value)}")
        else:
            text = f"{value:.10g}" if isinstance(value, float) else str(value)
            words.append(f"{key}={text.lower() if isinstance(value, bool) else text}")
    return words


def _listed(value: Any) -> str:
    """Return numbers as ``[1,2]``, anything else as it is."""
    if not isinstance(value, list | tuple):
        return str(value)
    return f"[{','.join(f'{item:.10g}' for item in value)}]"


def fit_words(law: Mapping[str, Any]) -> str:
    """Return the options of ``kinescale fit`` that give this law from its table.

    Empty where the law does not say what it was asked for.
    """
    try:
        return " ".join(shlex.quote(word) for word in words_of(asked_of(law)))
    except (TypeError, ValueError):
        return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".yaml":
            found = OmegaConf.to_container(OmegaConf.load(path))
        else:
            found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: cannot be read ({reason}). Mend it or move it away.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds no settings. Mend it or move it away.")
    told = {str(key): value for key, value in found.items()}
    try:
        if path.name == "law.json":
            return asked_of(told) if told.get("coefficients") else {}
        return _settings(told.get("config") or {} if path.name == "study.json" else told)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: does not say how to fit ({error}). Mend it.") from None


def _settings(found: Mapping[str, Any]) -> dict[str, Any]:
    values = {k: read(found[k]) for k, read in _READERS.items() if found.get(k) is not None}
    sitting = 0 < float(found.get("up_to") or 0) < max(found.get("budgets") or [0])
    if not sitting and int(found.get("held_out") or 1) > 1:
        values["held_out"] = int(found["held_out"])
    axis = axis_of(found.get("y_axis"))
    return values if axis.plain else values | {"y_axis": axis.values}
