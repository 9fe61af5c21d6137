"""runs.csv of a study of points: the columns of every study, then what a point adds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.files import write_csv
from sweeps.fit.rows.y_axis import PLAIN, YAxis
from sweeps.kinds.points.plan import Point
from sweeps.study.results import COLUMNS, SeedNoise, collect, read_result
from sweeps.study.spec import Phase
from sweeps.study.y_axis import on_axis
from trainer.config import RunKind
from trainer.kinds import KINDS

EXTRA = (
    "arm", "length", "asked_tokens", "unique_tokens", "epochs", "clip_tokens", "loss_noise_draws",
    "spent_flops", "status", "setting", "group", "axes",
)  # fmt: skip
LEFT_OUT = {
    Phase.replicate: "replicate: measures the noise floor",
    Phase.trunk: "trunk: its rate never falls",
}
INTERNAL = ("setting", "group", "axes")  # keys that only the analyses need


def rows_of(
    points: Sequence[Point],
    folders: dict[str, Path],
    noise: SeedNoise | None,
    y_axis: YAxis = PLAIN,
) -> list[dict[str, Any]]:
    """Return a row for every point, also for those that failed, diverged or were left out.

    setting: the same for runs that differ in their seed alone. clip_tokens: mean of the clips seen.
    asked_tokens: what the counted ``tokens`` are close to. spent_flops: those of a branch alone.
    y_axis: what ``loss`` weighs.
    """
    kind = points[0].kind if points else RunKind.diffusion  # a study's runs are all of one
    rows = collect([point.spec for point in points], folders, noise, kind, y_axis)
    for row, point in zip(rows, points, strict=True):
        result = on_axis(read_result(folders[point.spec.name]) or {"status": "missing"}, y_axis)
        row |= _of_tokens(point, result) if "tokens" in KINDS[kind].columns else {}
        row |= {
            "arm": point.arm,
            "length": point.length,
            "cluster": point.cluster or None,
            "status": result["status"],
            "setting": setting_of(point),
            "group": point.group,
            "axes": point.settings,
            "seed": point.seed,
        }
        row |= point.settings
        left_out = LEFT_OUT.get(point.spec.phase)
        if left_out and not row["excluded"]:
            row |= {"excluded": 1, "reason": left_out}
    return rows


def _of_tokens(point: Point, result: dict[str, Any]) -> dict[str, Any]:
    """Return what a row holds of a run that counts tokens and FLOPs."""
    samples, flops = result.get("samples"), result.get("flops")
    return {
        "asked_tokens": point.tokens,
        "unique_tokens": point.unique_tokens,
        "epochs": result.get("accounting", {}).get("epochs"),
        "clip_tokens": result["tokens"] / samples if samples else None,
        "loss_noise_draws": result.get("loss_noise"),
        "spent_flops": None if flops is None else flops - result.get("flops_before", 0),
    }


def setting_of(point: Point) -> str:
    """Return what runs share that differ in their seed alone."""
    overrides = sorted(o for o in point.spec.overrides if not o.startswith("seed="))
    return " ".join([point.arm, *overrides])


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write runs.csv atomically; a missing value is an empty field, a missing key no column."""
    have = dict.fromkeys(key for row in rows for key in row)
    known = [*COLUMNS, *EXTRA]
    others = [key for key in have if key not in known]  # what one kind measures, and the axes
    columns = [key for key in known if key in have or not rows] + others
    write_csv(path, [key for key in columns if key not in INTERNAL], rows)
