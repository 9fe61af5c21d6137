"""A study read back from its folder: its question, its runs and what was found."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.fit.rows.read import read_rows
from sweeps.fit.rows.table import truth

Row = dict[str, float | str | None]


@dataclass(frozen=True)
class SavedStudy:
    """Hold what the files of a study's folder say.

    runs: rows of runs.csv by column, without those that the study excluded; numbers are floats, an
    empty field is None. excluded: the other rows, each with its ``reason``.
    law: law.json as ``fit_table`` returns it; None for a study without a law.
    about: study.json, empty where there is none: question, command, config, kind, times, failures.
    """

    folder: Path
    runs: list[Row]
    excluded: list[Row]
    law: dict[str, Any] | None
    about: dict[str, Any]

    @property
    def name(self) -> str:
        """The study's name, the folder's where no file says it."""
        return str(self.about.get("name", self.folder.resolve().name))

    @property
    def question(self) -> str:
        """What the study asks; empty where no file says it."""
        return str(self.about.get("question", ""))


def load_study(folder: str | Path) -> SavedStudy:
    """Read a study's folder, such as ``runs/demo`` or one below ``docs/studies``.

    Raises:
        ValueError: it has no runs.csv, or a file there cannot be read.
    """
    folder = Path(folder)
    if not (folder / "runs.csv").is_file():
        raise ValueError(
            f"study={folder}: has no runs.csv. Give the folder of a study that has ended a phase."
        )
    runs: list[Row] = []
    excluded: list[Row] = []
    for row, line in zip(*read_rows(folder / "runs.csv"), strict=True):
        left_out = "excluded" in row and truth(row, "excluded", line)
        (excluded if left_out else runs).append({key: _value(row[key]) for key in row})
    law, about = (_read_object(folder / name) for name in ("law.json", "study.json"))
    return SavedStudy(folder, runs, excluded, law, about or {})


def _read_object(path: Path) -> dict[str, Any] | None:
    """Return a file's JSON object, None where there is no such file. Raises ValueError."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}). Restore it.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds no JSON object. Restore it.")
    return found


def _value(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return text or None
