"""What the page of a study of points reads; every file may be missing or broken."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.report.inputs.isoflop import Json, mapping


@dataclass
class PointsInputs:
    """Everything the page shows; ``notes`` holds a sentence for each file that cannot be used."""

    study_dir: Path
    study: Json = field(default_factory=dict)
    finding: Json = field(default_factory=dict)
    runs: list[dict[str, str]] = field(default_factory=list)
    ladder: Json = field(default_factory=dict)
    runs_csv: bytes = b""
    notes: list[str] = field(default_factory=list)


def read_points_inputs(study_dir: Path) -> PointsInputs:
    """Read a study's folder. Raises ValueError if it is no folder."""
    if not study_dir.is_dir():
        raise ValueError(
            f"study_dir={study_dir}: must be a folder. Name a study's folder, e.g. runs/cpu_seeds."
        )
    inputs = PointsInputs(study_dir)
    inputs.study = _json(inputs, "study.json", "the study is not described")
    inputs.finding = _json(inputs, "analysis.json", "there is no result")
    if (study_dir / "samples" / "ladder.json").exists():
        inputs.ladder = _json(inputs, "samples/ladder.json", "there are no videos")
    path = study_dir / "runs.csv"
    if path.is_file():
        inputs.runs_csv = path.read_bytes()
        lines = inputs.runs_csv.decode("utf-8", errors="replace").splitlines()
        inputs.runs = [
            {key: value or "" for key, value in row.items() if isinstance(key, str)}
            for row in csv.DictReader(lines)
        ]
    else:
        inputs.notes.append("runs.csv is missing: no run is listed.")
    return inputs


def _json(inputs: PointsInputs, name: str, consequence: str) -> Json:
    try:
        return mapping(json.loads((inputs.study_dir / name).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"is broken ({error})"
        inputs.notes.append(f"{name} {reason}: {consequence}.")
        return {}
