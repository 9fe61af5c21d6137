"""What a law says under each weighting of noise levels: one fit each of the same runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.fit.entries import plain
from sweeps.fit.law import law_of_table
from sweeps.fit.options import FitOptions
from sweeps.fit.result import Law
from sweeps.fit.rows.read import read_rows
from sweeps.fit.rows.runs import seed_spread
from sweeps.fit.rows.y_axis import MIDDLE, PLAIN, YAxis, YWeighting, strata_in

RESAMPLES = 100  # at most: a table of a dozen fits tells how an exponent moves, to a tenth of it


def axes_of(strata: int) -> list[YAxis]:
    """Return the axes of a table of weightings, the single strata last."""
    single = [YAxis(window=(s / strata, (s + 1) / strata)) for s in range(strata)]
    return [PLAIN, YAxis(YWeighting.trained), MIDDLE, YAxis(YWeighting.elbo), *single]


def by_weighting(
    table: str | Path, form: str, options: FitOptions, columns: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Fit a table of runs under each weighting that its losses by stratum allow.

    Every row names its axis and holds the coefficients, the exponent of N* with its interval, the
    error of the held-out budget, and the spread over seeds; or the ``reason`` why there is no law.
    No row where the table keeps no loss by stratum.
    """
    rows, _ = read_rows(table)
    strata = max((len(strata_in(row)) for row in rows), default=0)
    quick = replace(options, resamples=min(options.resamples, RESAMPLES))
    found = []
    for axis in axes_of(strata) if strata else ():
        entry: dict[str, Any] = {"name": str(axis), "y_axis": axis.values, "reason": None}
        try:
            law = law_of_table(table, form, quick, columns=columns, y_axis=axis)
            entry |= _entry(law)
        except ValueError as error:
            entry["reason"] = str(error)
        found.append(plain(entry))
    return found


def _entry(law: Law) -> dict[str, Any]:
    exponent = law.exponents.get("approach_3", {})
    return {
        "form": law.fit.form.name,
        "coefficients": law.fit.coefficients,
        "exponent": exponent.get("params"),
        "interval": exponent.get("interval"),
        "held_out_error": law.held_out.relative_error if law.held_out else None,
        "seed_spread": seed_spread(law.runs),
        "scatter": law.scatter,
    }


def weightings_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table for a terminal."""
    lines = [f"  {'weighting':<32}{'N* exponent':>12}{'interval':>18}{'held out':>10}{'seeds':>9}"]
    for row in rows:
        if row["reason"]:
            lines.append(f"  {row['name']:<32}{row['reason']}")
            continue
        low, high = row["interval"] or (None, None)
        between = "-" if low is None else f"{low:.3f} to {high:.3f}"
        lines.append(
            f"  {row['name']:<32}{_number(row['exponent'], '.3f'):>12}{between:>18}"
            f"{_number(row['held_out_error'], '+.2%'):>10}{_number(row['seed_spread'], '.2%'):>9}"
        )
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
