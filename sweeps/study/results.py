"""From run folders to one table: runs.csv, a row a run, with what was excluded and why."""

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.files import write_csv
from sweeps.fit.rows.y_axis import PLAIN, YAxis
from sweeps.study.spec import Phase, Spec
from sweeps.study.y_axis import columns_in, on_axis
from trainer.config import RunKind
from trainer.kinds import KINDS

# In the order of a table; what a run does not have is no column of it.
COLUMNS = (
    "name", "params", "tokens", "flops", "flops_6nd", "loss", "loss_noise", "lr", "batch_tokens",
    "excluded", "reason", "budget", "phase", "width", "depth", "steps", "seed", "loss_real",
    "real_token_share", "seconds", "world_size", "zero_stage", "padding_share", "cluster",
)  # fmt: skip
FREE_EPOCHS = 4  # up to here repeated data is worth about as much as new (Muennighoff et al. 2023)
EXCLUDED_PHASES = {
    Phase.pilot: "pilot: chose the grids",
    Phase.twin: "twin: shows that the layout is invisible",
}


@dataclass(frozen=True)
class SeedNoise:
    """Spread of the loss over seeds, taken as the noise of every run.

    points: mean, standard deviation and number of runs of each replicated point.
    mean: of the last point; std: the relative spread pooled over the points, times ``mean``;
    n: runs in all.
    """

    mean: float
    std: float
    n: int
    points: list[tuple[float, float, int]]

    @property
    def relative(self) -> float:
        """Standard deviation over mean."""
        return self.std / self.mean


def read_result(folder: Path) -> dict[str, Any] | None:
    """Read a run's result, or None while there is none."""
    path = folder / "result.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    assert isinstance(result, dict)
    return result


def collect(
    specs: Sequence[Spec],
    folders: dict[str, Path],
    noise: SeedNoise | None,
    kind: RunKind = RunKind.diffusion,
    y_axis: YAxis = PLAIN,
) -> list[dict[str, Any]]:
    """Return a row for every run of a study, also for those that failed or diverged.

    kind: of all runs; it says what a row holds (trainer/kinds.py). y_axis: what ``loss`` weighs;
    the losses by stratum of time stand in every row, so that another axis is a refit.

    ``loss_noise`` joins the run's own noise of validation draws with the spread over seeds.
    ``cluster`` is the same for the seeds of one point, which the fit resamples together.
    """
    rows = []
    for spec in specs:
        result = on_axis(read_result(folders[spec.name]) or {"status": "missing"}, y_axis)
        row: dict[str, Any] = {key: result.get(key) for key in KINDS[kind].columns}
        row |= {"name": folders[spec.name].name, "phase": spec.phase.value}
        row |= {"loss_noise": result.get("loss_noise"), "cluster": None}
        if spec.unit == "flops":
            row["budget"] = spec.budget
        if row["params"] is not None:
            row["cluster"] = f"c{spec.budget:g}-n{row['params']}"
        reason = EXCLUDED_PHASES.get(spec.phase, "")
        if result["status"] != "finished":
            reason = f"{result['status']}: {result.get('reason', 'no result.json')}"
        elif noise is not None:
            draws = result.get("loss_noise") or 0.0
            row["loss_noise"] = (draws**2 + (noise.relative * result["loss"]) ** 2) ** 0.5
        row |= {"excluded": int(bool(reason)), "reason": reason} | columns_in(result)
        rows.append(row)
    return rows


def seed_noise(points: Sequence[Sequence[float]]) -> SeedNoise | None:
    """Return the spread over seeds of some points, or None where none has two runs.

    Relative variances are pooled by degrees of freedom:
    (std / mean)^2 = sum (n - 1) (std_i / mean_i)^2 / sum (n - 1).
    """
    groups = [
        (statistics.mean(losses), statistics.stdev(losses), len(losses))
        for losses in points
        if len(losses) > 1
    ]
    if not groups:
        return None
    freedom = sum(n - 1 for _, _, n in groups)
    relative = (sum((n - 1) * (std / mean) ** 2 for mean, std, n in groups) / freedom) ** 0.5
    mean = groups[-1][0]
    return SeedNoise(mean, relative * mean, sum(n for _, _, n in groups), groups)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write runs.csv atomically; a missing value is an empty field."""
    others = dict.fromkeys(key for row in rows for key in row if key not in COLUMNS)
    write_csv(path, [*COLUMNS, *others], rows)


def excluded_rows(path: Path) -> list[dict[str, str]]:
    """Return name and reason of the excluded rows of a runs.csv."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["excluded"] == "1"]
    return [{"name": row["name"], "reason": row["reason"]} for row in rows]
