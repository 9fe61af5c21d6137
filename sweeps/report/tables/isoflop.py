"""The tables of a study's page: rows of plain text, each cell with the value it sorts by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sweeps.report.inputs.isoflop import (
    Inputs,
    Run,
    interval,
    interval_of,
    mapping,
    records,
    to_number,
)
from sweeps.report.readings import frontier, residuals
from sweeps.report.wording import (
    NONE,
    format_count,
    format_flops,
    format_interval,
    format_percent,
    format_seconds,
    format_signed_percent,
    format_value,
    level_text,
)

LONGEST_NAME = 44  # letters of a name that no line break splits
WORST = 8  # residuals in words; the figure shows all


@dataclass(frozen=True)
class Cell:
    """A cell's text and, where it is a number, the value to sort by.

    run: the number of the run whose details the cell opens.
    """

    text: str
    value: float | None = None
    run: int | None = None

    @property
    def sorted_by(self) -> str:
        """Return the value in as few digits as sorting and a spreadsheet need."""
        return f"{self.value:.10g}"

    @property
    def short(self) -> bool:
        """Return whether the text should stay on one line: it is short, or a run's name."""
        return len(self.text) <= 26 or (" " not in self.text and len(self.text) <= LONGEST_NAME)


@dataclass(frozen=True)
class Table:
    """A table: ``numeric`` columns are right-aligned; the first column heads its row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = field(default_factory=frozenset)


def number_cell(value: float, text: str | None = None) -> Cell:
    """Return a cell that sorts by ``value``; the text defaults to four digits."""
    shown = format_value(value) if text is None else text
    return Cell(shown, value) if math.isfinite(value) else Cell(NONE)


def make_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """Return a table whose numeric columns are those where some cell has a value."""
    numeric = frozenset(
        i for i in range(len(columns)) if any(i < len(row) and row[i].value is not None
                                              for row in rows)
    )  # fmt: skip
    return Table(caption, columns, rows, numeric)


def pairs_table(caption: str, pairs: Sequence[tuple[str, str]]) -> Table:
    """Return a two-column table without a heading row."""
    return Table(caption, (), [(Cell(key), Cell(value)) for key, value in pairs])


def held_out_table(inputs: Inputs) -> Table | None:
    """Return the held-out test, None if the law has none."""
    held_out = mapping(inputs.law.get("held_out"))
    if not held_out:
        return None
    get = {key: to_number(value) for key, value in held_out.items()}
    low, high = interval(held_out.get("interval"))
    factor = get.get("extrapolation_factor", math.nan)
    skill = get.get("skill", math.nan)
    reason = str(held_out.get("skill_reason") or NONE)
    skill_text = format_value(skill, 3) if math.isfinite(skill) else reason
    error = get.get("relative_error", math.nan)
    pairs = [
        ("Budget left out", f"{format_flops(inputs.held_out_budget)} FLOPs"),
        ("Extrapolation", f"{factor:.3g}× the largest fitted budget"),
        ("Predicted loss", format_value(get.get("predicted", math.nan), 5)),
        ("Measured loss", format_value(get.get("actual", math.nan), 5)),
        ("Error, predicted against measured", format_signed_percent(error)),
        (f"{level_text(inputs)} interval of the prediction", format_interval(low, high, 4)),
        ("Measured loss inside it", show_value(held_out.get("inside"))),
        (
            "Noise floor: seeds and validation draws together",
            format_percent(get.get("noise_floor", math.nan), 2),
        ),
        ("Skill against “nothing improves”", skill_text),
    ]  # fmt: skip
    for near in records(held_out.get("nearer")):
        budget = to_number(near.get("budget"))
        off = format_signed_percent(to_number(near.get("relative_error")))
        text = f"{off}, {'inside' if near.get('inside') else 'outside'} its interval"
        pairs.append((f"By the same fit at {format_flops(budget)} FLOPs, left out, too", text))
    line = get.get("line_predicted", math.nan)
    if math.isfinite(line):
        off = format_signed_percent(get.get("line_relative_error", math.nan))
        text = f"{format_value(line, 5)} ({off})"
        pairs.append(("By a power of compute through the budgets’ best losses", text))
    for form, item in mapping(held_out.get("other_forms")).items():
        other = {key: to_number(value) for key, value in mapping(item).items()}
        off = format_signed_percent(other.get("relative_error", math.nan))
        text = f"{format_value(other.get('predicted', math.nan), 5)} ({off})"
        pairs.append((f"By the form {form}, from the same runs", text))
    return pairs_table("Held-out test", pairs)


def held_out_sizes_table(inputs: Inputs) -> Table | None:
    """Return each held-out size's mean over seeds beside its prediction; None without seeds."""
    held_out = mapping(inputs.law.get("held_out"))
    rows, seeds = [], 0
    for test in (*records(held_out.get("nearer")), held_out):
        budget = format_flops(to_number(test.get("budget")))
        for point in records(test.get("points")):
            get = {key: to_number(value) for key, value in point.items()}
            seeds = max(seeds, int(get["seeds"]))
            rows.append(
                (
                    Cell(budget),
                    number_cell(get["params"], format_count(get["params"])),
                    number_cell(get["seeds"], str(int(get["seeds"]))),
                    number_cell(get["predicted"]),
                    number_cell(get["actual"]),
                    number_cell(
                        get["relative_error"], format_signed_percent(get["relative_error"])
                    ),
                    Cell(show_value(point.get("inside"))),
                )
            )
    columns = ("budget", "params", "seeds", "predicted", "mean measured", "error", "inside")
    return (
        make_table("Each held-out size, mean over its seeds", columns, rows) if seeds > 1 else None
    )


def held_out_runs_table(inputs: Inputs) -> Table | None:
    """Return measured against predicted loss of each held-out run."""
    rows = []
    for run in records(mapping(inputs.law.get("held_out")).get("runs")):
        params, error = to_number(run.get("params")), to_number(run.get("relative_error"))
        rows.append(
            (
                Cell(str(run.get("name") or NONE)),
                number_cell(params, format_count(params)),
                number_cell(to_number(run.get("predicted"))),
                number_cell(to_number(run.get("actual"))),
                number_cell(error, format_signed_percent(error)),
                Cell(show_value(run.get("inside"))),
            )
        )
    columns = ("run", "params", "predicted", "measured", "error", "inside")
    return make_table("Each held-out run", columns, rows) if rows else None


def coefficient_table(inputs: Inputs) -> Table | None:
    """Return coefficients with intervals and whether they are identified."""
    values = mapping(inputs.law.get("coefficients"))
    if not values:
        return None
    intervals = mapping(inputs.law.get("intervals"))
    identified = mapping(inputs.law.get("identified"))
    equation = str(inputs.law.get("equation") or inputs.law.get("form") or "the law")
    rows = []
    for name, value in values.items():
        verdict = mapping(identified.get(name))
        text = show_value(verdict.get("ok"))
        reason = str(verdict.get("reason") or "")
        rows.append(
            (
                Cell(str(name)),
                number_cell(to_number(value)),
                Cell(format_interval(*interval(intervals.get(name)))),
                Cell(f"{text}: {reason}" if reason else text),
            )
        )
    columns = ("coefficient", "value", f"{level_text(inputs)} interval", "identified")
    return make_table(f"Coefficients of {equation}", columns, rows)


def isoflop_table(inputs: Inputs) -> Table | None:
    """Return the minimum of each isoFLOP curve, or why there is none."""
    points = records(inputs.law.get("isoflop"))
    if not points:
        return None
    rows = []
    for point in points:
        budget, params = to_number(point.get("budget")), to_number(point.get("params"))
        low, high = interval_of(point, "params")
        bounds = f"{format_count(low)} to {format_count(high)}" if math.isfinite(low) else NONE
        tokens = to_number(point.get("tokens"))
        rows.append(
            (
                number_cell(budget, format_flops(budget)),
                number_cell(params, format_count(params)),
                Cell(bounds),
                number_cell(tokens, format_count(tokens)),
                number_cell(to_number(point.get("loss"))),
                Cell(str(point.get("reason") or "interior")),
            )
        )
    columns = ("budget", "N*", f"{level_text(inputs)} interval", "D*", "loss", "minimum")
    return make_table("Minima of the isoFLOP curves", columns, rows)


def frontier_table(inputs: Inputs) -> Table | None:
    """Return the frontier's points, each with how far it lies beyond the largest fitted run."""
    rows = []
    for point in frontier(inputs):
        flops, factor = to_number(point.get("flops")), to_number(point.get("extrapolation_factor"))
        row = [number_cell(flops, format_flops(flops))]
        for key in ("params", "tokens", "loss"):
            form = format_value if key == "loss" else format_count
            value, (low, high) = to_number(point.get(key)), interval_of(point, key)
            known = math.isfinite(low + high)
            row.append(number_cell(value, form(value)))
            row.append(Cell(f"{form(low)} to {form(high)}" if known else NONE))
        inside = factor <= 1.01
        row.append(number_cell(factor, "inside" if inside else f"{factor:.3g}× beyond"))
        rows.append(row)
    columns = ("compute", "N*", "N* interval", "D*", "D* interval", "loss", "loss interval",
               "largest fitted run")  # fmt: skip
    caption = f"The frontier, with {level_text(inputs)} intervals"
    return make_table(caption, columns, rows) if rows else None


def residual_table(inputs: Inputs) -> Table | None:
    """Return the fitted runs that lie furthest from the law, worst first."""
    found = sorted(residuals(inputs), key=lambda item: -abs(item.residual))
    rows = [
        (
            Cell(item.run.name),
            number_cell(item.run.budget, format_flops(item.run.budget)),
            number_cell(item.run.params, format_count(item.run.params)),
            number_cell(item.run.tokens, format_count(item.run.tokens)),
            number_cell(item.run.loss),
            number_cell(item.residual, f"{item.residual:+.4f}".replace("-", "−")),
        )
        for item in found[:WORST]
    ]
    columns = ("run", "budget", "params", "tokens", "loss", "log(measured / fitted)")
    caption = f"The {len(rows)} worst of {len(found)} residuals"
    return make_table(caption, columns, rows) if rows else None


def real_table(inputs: Inputs) -> Table | None:
    """Return the best run of each budget with its loss on rendered and on held-out real video."""
    rows = []
    for budget in inputs.budgets:
        best = min(
            (run for run in inputs.grid_runs if run.budget == budget), key=lambda run: run.loss
        )
        if math.isfinite(best.number("loss_real")) or math.isfinite(
            best.number("real_token_share")
        ):
            share = best.number("real_token_share")
            rows.append(
                (
                    number_cell(budget, format_flops(budget)),
                    Cell(best.name),
                    number_cell(best.loss),
                    number_cell(best.number("loss_real")),
                    number_cell(share, format_percent(share)),
                )
            )
    columns = ("budget", "best run", "loss, rendered", "loss, real", "real tokens in training")
    return make_table("Rendered and real video", columns, rows) if rows else None


def excluded_table(inputs: Inputs) -> Table | None:
    """Return every excluded run with the reason, from the runs and from the law."""
    reasons = {run.name: run.reason for run in inputs.runs if run.excluded}
    for item in records(inputs.law.get("excluded")):
        reasons.setdefault(str(item.get("name")), str(item.get("reason") or ""))
    rows = [(Cell(name), Cell(reason or "no reason given")) for name, reason in reasons.items()]
    return Table("Excluded from the fit", ("run", "reason"), rows) if rows else None


def runs_table(inputs: Inputs) -> Table | None:
    """Return all runs, in the order of the file."""
    if not inputs.runs:
        return None
    columns = ("run", "phase", "budget", "params", "tokens", "FLOPs", "6ND / FLOPs", "loss",
               "± noise", "loss, real", "learning rate", "batch tokens", "steps", "time",
               "excluded")  # fmt: skip
    rows = [_run_row(number, run) for number, run in enumerate(inputs.runs)]
    return make_table("All runs", columns, rows)


def _run_row(number: int, run: Run) -> Sequence[Cell]:
    ratio = run.number("flops_6nd") / run.flops if run.flops else math.nan
    seconds = run.number("seconds")
    return (
        Cell(run.name, run=number),
        Cell(run.phase or NONE),
        number_cell(run.budget, format_flops(run.budget)),
        number_cell(run.params, format_count(run.params)),
        number_cell(run.tokens, format_count(run.tokens)),
        number_cell(run.flops, format_flops(run.flops)),
        number_cell(ratio, format_value(ratio, 3)),
        number_cell(run.loss),
        number_cell(run.number("loss_noise"), format_value(run.number("loss_noise"), 2)),
        number_cell(run.number("loss_real")),
        number_cell(run.number("lr"), f"{run.number('lr'):.3g}"),
        number_cell(run.number("batch_tokens"), format_count(run.number("batch_tokens"))),
        number_cell(run.number("steps"), f"{run.number('steps'):.0f}"),
        number_cell(seconds, format_seconds(seconds)),
        Cell(run.reason or "yes") if run.excluded else Cell(""),
    )


def show_value(value: object) -> str:
    """Return any JSON value as short text."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
        return f"{value:,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return format_value(value)
    if isinstance(value, list):
        return ", ".join(show_value(item) for item in value) or NONE
    if isinstance(value, dict):
        return ", ".join(f"{key}: {show_value(item)}" for key, item in value.items()) or NONE
    return str(value)
