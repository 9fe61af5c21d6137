"""What the page of a study of arms reads; every file may be missing or broken."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.kinds.arms.table import Value, read_values
from sweeps.report.inputs.isoflop import Json, mapping, to_number

NUMBERS = ("mean", "std_over_seeds", "difference", "low", "high", "noise_floor")


@dataclass
class ArmsInputs:
    """Everything the page shows; ``notes`` holds a sentence for each file that cannot be used.

    summary: rows of summary.csv with numbers as floats, nan where empty.
    """

    study_dir: Path
    study: Json = field(default_factory=dict)
    summary: list[Json] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    runs: list[dict[str, str]] = field(default_factory=list)
    samples: Json = field(default_factory=dict)
    summary_csv: bytes = b""
    notes: list[str] = field(default_factory=list)

    @property
    def arms(self) -> list[str]:
        """Return the arms in the order of the study."""
        return [str(name) for name in mapping(self.study.get("arms"))]

    @property
    def reference(self) -> str:
        """Return the arm that the others are compared with."""
        return str(self.study.get("reference") or "")


def read_arms_inputs(study_dir: Path) -> ArmsInputs:
    """Read a study's folder. Raises ValueError if it is no folder."""
    if not study_dir.is_dir():
        raise ValueError(
            f"study_dir={study_dir}: must be a folder. Name a study's folder, e.g. runs/framing."
        )
    inputs = ArmsInputs(study_dir)
    inputs.study = _json(inputs, "study.json", "the study is not described")
    inputs.samples = _json(inputs, "samples.json", "there are no videos")
    inputs.runs = _rows(inputs, "runs.csv", "no run is listed")
    for row in _rows(inputs, "summary.csv", "there is no result"):
        inputs.summary.append(row | {key: to_number(row.get(key)) for key in NUMBERS})
    if inputs.summary:
        inputs.summary_csv = (study_dir / "summary.csv").read_bytes()
    try:
        inputs.values = read_values(study_dir / "values.csv")
    except (OSError, ValueError) as error:
        inputs.notes.append(f"values.csv cannot be used ({error}): runs are not drawn.")
    return inputs


def _json(inputs: ArmsInputs, name: str, consequence: str) -> Json:
    try:
        return mapping(json.loads((inputs.study_dir / name).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"is broken ({error})"
        inputs.notes.append(f"{name} {reason}: {consequence}.")
        return {}


def _rows(inputs: ArmsInputs, name: str, consequence: str) -> list[dict[str, str]]:
    path = inputs.study_dir / name
    if not path.is_file():
        inputs.notes.append(f"{name} is missing: {consequence}.")
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    return [
        {key: value or "" for key, value in row.items() if isinstance(key, str)}
        for row in csv.DictReader(text.splitlines())
    ]
