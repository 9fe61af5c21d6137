"""What the report reads: the files of a study's folder, each of which may be missing or broken."""

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.study.archive import read_curves, read_results

Json = dict[str, Any]
# Fitted budgets are means over runs whose tokens were rounded to whole steps.
SAME_BUDGET = 1.15


@dataclass(frozen=True)
class Run:
    """A row of ``runs.csv``; numbers that are absent or unreadable are NaN."""

    name: str
    phase: str
    params: float
    tokens: float
    flops: float
    loss: float
    budget: float
    excluded: bool
    reason: str
    values: dict[str, str]

    def number(self, key: str) -> float:
        """Return a further column as a number, NaN if it is none."""
        return to_number(self.values.get(key))


@dataclass
class Inputs:
    """Everything the page shows.

    curves: (flops, loss) pairs per run, from ``curve.csv``.
    results: ``result.json`` per run. weightings: the law under each weighting of noise levels.
    notes: one sentence per file that is missing or unreadable, shown on the page.
    """

    study_dir: Path
    runs: list[Run] = field(default_factory=list)
    runs_csv: bytes = b""
    law: Json = field(default_factory=dict)
    study: Json = field(default_factory=dict)
    data: Json = field(default_factory=dict)
    ladder: Json = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    results: dict[str, Json] = field(default_factory=dict)
    weightings: list[Json] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def held_out_budget(self) -> float:
        """Return the budget left out of the fit, NaN if there is none."""
        stated = to_number(mapping(self.law.get("held_out")).get("budget"))
        nearest = self.nearest_budget(stated)
        return stated if math.isnan(nearest) else nearest

    @property
    def held_out_in_fit(self) -> bool:
        """Return whether the law shown also uses the held-out runs.

        A law may be fitted to all runs, and the test made by a second fit without the last budget.
        """
        fitted = {str(item.get("name")) for item in records(self.law.get("residuals"))}
        held_out = self.held_out_budget
        return any(run.name in fitted for run in self.grid_runs if run.budget == held_out)

    @property
    def budgets(self) -> list[float]:
        """Return the budgets of the study in rising order, without those of pilots alone."""
        return sorted({run.budget for run in self.grid_runs if math.isfinite(run.budget)})

    def nearest_budget(self, flops: float) -> float:
        """Return the study's budget that ``flops`` belongs to (within 15 %), NaN if none does."""
        for budget in self.budgets:
            if flops > 0 and abs(math.log(flops / budget)) < math.log(SAME_BUDGET):
                return budget
        return math.nan

    @property
    def grid_runs(self) -> list[Run]:
        """Return the runs that make the isoFLOP curves: finished, not excluded, not pilots."""
        return [
            run
            for run in self.runs
            if not run.excluded and run.phase != "pilot" and math.isfinite(run.loss)
        ]


def to_number(value: object) -> float:
    """Return ``value`` as a float, NaN for None, '' and what is not a number."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def mapping(value: object) -> Json:
    """Return ``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def records(value: object) -> list[Json]:
    """Return the mappings of a list; anything else gives none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def interval(value: object) -> tuple[float, float]:
    """Return a ``[low, high]`` pair, NaNs if it is none."""
    if isinstance(value, list | tuple) and len(value) == 2:
        return to_number(value[0]), to_number(value[1])
    return math.nan, math.nan


def interval_of(point: Json, key: str) -> tuple[float, float]:
    """Return a quantity's interval from a point of the frontier or a minimum of an isoFLOP curve.

    A frontier point holds ``intervals[key]``; a minimum ``loss_interval``, and ``interval`` for its
    parameters.
    """
    stated = mapping(point.get("intervals")).get(key) or point.get(f"{key}_interval")
    return interval(stated or (point.get("interval") if key == "params" else None))


def read_inputs(study_dir: Path) -> Inputs:
    """Read a study's folder.

    Raises ValueError if it is no folder; a missing or broken file becomes a note.
    """
    if not study_dir.is_dir():
        raise ValueError(
            f"study_dir={study_dir}: must be a folder. Name a study's folder, e.g. runs/demo."
        )
    inputs = Inputs(study_dir)
    _read_runs(inputs)
    inputs.law = _read_json(inputs, "law.json", "there is no fitted law to show")
    inputs.study = _read_json(inputs, "study.json", "the configuration is not shown")
    inputs.data = _read_json(inputs, "data.json", "the data are not accounted for")
    inputs.ladder = _read_json(inputs, "samples/ladder.json", "there are no sampled videos")
    inputs.weightings = _read_weightings(study_dir / "weightings.json")
    _read_archive(inputs)
    for run in inputs.runs:
        _read_run_folder(inputs, run)
    num_missing = sum(not run.excluded and run.name not in inputs.curves for run in inputs.runs)
    if num_missing:
        inputs.notes.append(
            f"curve.csv is missing or empty for {num_missing} of {len(inputs.runs)} runs: "
            "their curves are not drawn."
        )
    return inputs


def file_inside(study_dir: Path, name: object) -> Path | None:
    """Return the path of a file named in a study's JSON, None unless it lies inside the study."""
    if not isinstance(name, str) or not name:
        return None
    for base in (study_dir, study_dir / "samples"):
        path = (base / name).resolve()
        if path.is_relative_to(study_dir.resolve()) and path.is_file():
            return path
    return None


def _read_json(inputs: Inputs, name: str, consequence: str) -> Json:
    try:
        value = json.loads((inputs.study_dir / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        inputs.notes.append(f"{name} is missing: {consequence}.")
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        inputs.notes.append(f"{name} is not valid JSON ({error}): {consequence}.")
        return {}
    if not isinstance(value, dict):
        inputs.notes.append(f"{name} holds no object: {consequence}.")
    return mapping(value)


def _read_weightings(path: Path) -> list[Json]:
    """Return the law under each weighting; none where a study did not look at any."""
    try:
        return records(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []


def _read_runs(inputs: Inputs) -> None:
    path = inputs.study_dir / "runs.csv"
    if not path.is_file():
        inputs.notes.append("runs.csv is missing: no run is listed.")
        return
    inputs.runs_csv = path.read_bytes()
    text = inputs.runs_csv.decode("utf-8", errors="replace")
    for row in csv.DictReader(text.splitlines()):
        values = {key: value or "" for key, value in row.items() if isinstance(key, str)}
        flops = to_number(values.get("flops"))
        budget = to_number(values.get("budget"))
        inputs.runs.append(
            Run(
                name=values.get("name", ""),
                phase=values.get("phase", ""),
                params=to_number(values.get("params")),
                tokens=to_number(values.get("tokens")),
                flops=flops,
                loss=to_number(values.get("loss")),
                budget=flops if math.isnan(budget) else budget,
                excluded=values.get("excluded", "0").strip().lower() in ("1", "true", "1.0"),
                reason=values.get("reason", ""),
                values=values,
            )
        )


def _read_archive(inputs: Inputs) -> None:
    """Read what an archived study keeps of its runs; run folders, where there are any, add."""
    try:
        inputs.results |= read_results(inputs.study_dir)
        inputs.curves |= read_curves(inputs.study_dir)
    except ValueError as error:
        inputs.notes.append(str(error))


def _read_run_folder(inputs: Inputs, run: Run) -> None:
    curve = file_inside(inputs.study_dir, f"runs/{run.name}/curve.csv")
    if curve is not None:
        with curve.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = [
                (to_number(row.get("flops")), to_number(row.get("loss")))
                for row in csv.DictReader(file)
            ]
        points = [(x, y) for x, y in rows if x > 0 and math.isfinite(y)]
        if points:
            inputs.curves[run.name] = points
    result = file_inside(inputs.study_dir, f"runs/{run.name}/result.json")
    if result is not None:
        try:
            inputs.results[run.name] = mapping(json.loads(result.read_text(encoding="utf-8")))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            inputs.notes.append(f"runs/{run.name}/result.json is not valid JSON ({error}).")
