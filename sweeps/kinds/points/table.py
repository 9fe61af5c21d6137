"""runs.csv of a study of points: the columns of every study, then what a point adds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.files import write_csv
from sweeps.kinds.points.plan import Point
from sweeps.study.results import COLUMNS, SeedNoise, collect, read_result
from sweeps.study.spec import Phase

EXTRA = (
    "arm", "length", "asked_tokens", "unique_tokens", "epochs", "clip_tokens", "loss_noise_draws",
    "spent_flops", "status", "setting", "group",
)  # fmt: skip
LEFT_OUT = {
    Phase.replicate: "replicate: measures the noise floor",
    Phase.trunk: "trunk: its rate never falls",
}
INTERNAL = ("setting", "group")  # keys that only the analyses need


def rows_of(
    points: Sequence[Point], folders: dict[str, Path], noise: SeedNoise | None
) -> list[dict[str, Any]]:
    """Return a row for every point, also for those that failed, diverged or were left out.

    setting: the same for runs that differ in their seed alone. clip_tokens: mean of the clips seen.
    asked_tokens: what the counted ``tokens`` are close to. spent_flops: those of a branch alone.
    """
    rows = collect([point.spec for point in points], folders, noise)
    for row, point in zip(rows, points, strict=True):
        result = read_result(folders[point.spec.name]) or {"status": "missing"}
        samples = result.get("samples")
        row |= {
            "arm": point.arm,
            "length": point.length,
            "asked_tokens": point.tokens,
            "cluster": point.cluster or None,
            "unique_tokens": point.unique_tokens,
            "epochs": result.get("accounting", {}).get("epochs"),
            "clip_tokens": result["tokens"] / samples if samples else None,
            "loss_noise_draws": result.get("loss_noise"),
            "spent_flops": result["flops"] - result.get("flops_before", 0)
            if "flops" in result
            else None,
            "status": result["status"],
            "setting": setting_of(point),
            "group": point.group,
            "seed": point.seed,
        }
        row |= point.settings
        left_out = LEFT_OUT.get(point.spec.phase)
        if left_out and not row["excluded"]:
            row |= {"excluded": 1, "reason": left_out}
    return rows


def setting_of(point: Point) -> str:
    """Return what runs share that differ in their seed alone."""
    overrides = sorted(o for o in point.spec.overrides if not o.startswith("seed="))
    return " ".join([point.arm, *overrides])


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write runs.csv atomically; a missing value is an empty field."""
    shown = [column for column in EXTRA if column not in INTERNAL]
    axes = [key for row in rows for key in row if key not in COLUMNS and key not in EXTRA]
    columns = [*COLUMNS, *shown, *dict.fromkeys(axes)]
    write_csv(path, columns, rows)
