"""The law under each weighting of noise levels: exponent, coefficients, held-out error, noise."""

import math

from sweeps.report.inputs.isoflop import Inputs, interval, mapping, to_number
from sweeps.report.tables.isoflop import Cell, Table, make_table, number_cell
from sweeps.report.wording import NONE, format_interval, format_signed_percent, format_value


def registers(inputs: Inputs) -> bool:
    """Return whether the study registered its axis; those from before 2026-12 could not."""
    return "y_axis" in mapping(inputs.study.get("config"))


def weightings_table(inputs: Inputs) -> Table | None:
    """Return a row a weighting, the study's own marked; None where the study kept no strata."""
    if not inputs.weightings:
        return None
    asked = mapping(mapping(inputs.law.get("asked")).get("y_axis"))
    own = asked or {"weighting": "uniform", "window": [0.0, 1.0]}
    names = list(
        dict.fromkeys(n for row in inputs.weightings for n in mapping(row.get("coefficients")))
    )
    whose = "registered" if registers(inputs) else "the study's"
    rows = []
    for row in inputs.weightings:
        mark = f" ({whose})" if row.get("y_axis") == own else ""
        values = mapping(row.get("coefficients"))
        exponent = to_number(row.get("exponent"))
        low, high = interval(row.get("interval"))
        held, seeds = (to_number(row.get(key)) for key in ("held_out_error", "seed_spread"))
        rows.append(
            [
                Cell(f"{row.get('name')}{mark}"),
                number_cell(exponent, format_value(exponent, 3)),
                Cell(NONE if math.isnan(low) else format_interval(low, high)),
                number_cell(held, format_signed_percent(held, 2)),
                number_cell(seeds, f"{100 * seeds:.2g} %" if seeds >= 0 else NONE),
                *(number_cell(to_number(values.get(name))) for name in names),
                Cell(str(row.get("reason") or "")),
            ]
        )
    columns = ("weighting", "exponent of N*", "interval", "held-out error", "spread over seeds")
    return make_table(
        "The law under other weightings of noise levels", (*columns, *names, "why there is none"),
        rows,
    )  # fmt: skip
