"""Anybody's table of runs in, one self-contained page of its law out."""

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.files import write_text
from data.words import counted
from sweeps.fit.beside import asked_of, words_of
from sweeps.fit.forecast.choice import AUTO
from sweeps.fit.options import DEFAULTS, FitOptions
from sweeps.fit.rows.read import Source, title_of
from sweeps.report import wording
from sweeps.report.checklist.checklist import law_checklist
from sweeps.report.explorer.document import Start, document, law_of
from sweeps.report.figures.svg import budget_palette
from sweeps.report.figures.table import draw_table
from sweeps.report.inputs.histories import History
from sweeps.report.inputs.isoflop import Inputs, interval, interval_of, mapping, to_number
from sweeps.report.inputs.table import TableInputs, read_table_inputs
from sweeps.report.pages.runs import explorer_parts
from sweeps.report.pages.shared import page_parts, show_drawing, template
from sweeps.report.readings import frontier, residuals
from sweeps.report.tables import isoflop as tables
from sweeps.report.tables.exponents import bias_text, exponent_table
from sweeps.report.tables.forecast import forms_table, method_of, rolling_table
from sweeps.report.tables.isoflop import Cell, Table, make_table, number_cell
from sweeps.report.tables.run_details import HEIGHT, WIDTH, run_details
from sweeps.report.tables.safe_csv import csv_data_uri


def build_table_page(
    source: Source,
    out: Path,
    form: str = AUTO,
    options: FitOptions = DEFAULTS,
    *,
    columns: Mapping[str, str] | None = None,
    drop_highest: int = 0,
    published: Mapping[str, float] | None = None,
) -> Path:
    """Fit a table, write the page of its law to `out` and return that; arguments as `fit_table`.

    Raises:
        ValueError: as `fit_table`, and for a form that has no frontier over params and tokens.
    """
    found = read_table_inputs(
        source, form, options, columns=columns, drop_highest=drop_highest, published=published
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, render_table(found, source, form == AUTO))
    return out


def render_table(table: TableInputs, source: Source, chosen: bool = True) -> str:
    """Return the page; every value of the table is escaped by the template.

    chosen: whether the form was left to the fit, which reproducing it then does too.
    """
    inputs = table.inputs
    palette = budget_palette(len(inputs.budgets))
    drawings = draw_table(table)
    # A run of a table has no folder: what is known of it is its row.
    histories = [History(run.name, run.values) for run in inputs.runs]
    law = law_of(inputs.law | {"frontier": table.dense})
    start = Start(colour="budget" if inputs.budgets else "")
    return template("table.html").render(
        **page_parts(len(inputs.budgets)),
        **explorer_parts(document(histories, start, law)),
        run_details=run_details(histories),
        spark_box={"width": WIDTH, "height": HEIGHT},
        samples_at="#runs",
        title=title_of(source),
        question="",
        finding=table_finding(inputs),
        facts=_facts(table),
        warnings=wording.warnings_of(inputs),
        law_caption=_law_caption(inputs),
        chosen=_chosen(inputs),
        teller=mapping(inputs.law.get("choice")).get("loss_by"),
        spread=_spread(inputs),
        bias=bias_text(inputs),
        verdict=wording.held_out_verdict(inputs),
        held_out_reason=f"There is none: {inputs.law.get('held_out_reason')}.",
        figures={name: show_drawing(drawing, palette) for name, drawing in drawings.items()},
        checklist=law_checklist(inputs),
        tables=_tables(inputs, source),
        thinned=_thinned(table),
        runs_uri=csv_data_uri(inputs.runs_csv),
        words=_words(source, inputs, chosen),
        notes=[],
    )


def table_finding(inputs: Inputs) -> str:
    """Return the law of a table in a sentence or two: how to grow, and what comes next."""
    spread = mapping(mapping(inputs.law.get("exponents")).get("spread"))
    value, (low, high) = to_number(spread.get("params")), interval(spread.get("interval"))
    points = frontier(inputs)
    if value == value:
        text = (
            f"Parameters should grow as C^{value:.2f} ({low:.2f} to {high:.2f} by all approaches "
            "and forms)"
        )
    else:
        text = wording.finding(inputs).rstrip(".")
    if not points:
        return f"{text}."
    last = points[-1]
    least, most = interval_of(last, "loss")
    factor = to_number(last.get("extrapolation_factor"))
    where = f", {factor:.3g} times the largest run" if factor > 1.01 else ""
    return (
        f"{text}. At {wording.format_flops(to_number(last.get('flops')))} FLOPs{where}, the least "
        f"loss is {wording.format_value(to_number(last.get('loss')))} "
        f"({wording.format_value(least)} to {wording.format_value(most)})."
    )


def _facts(table: TableInputs) -> list[str]:
    """Return the line under the title."""
    inputs = table.inputs
    facts = [counted(table.rows, "row"), f"{table.fitted} fitted"]
    if table.left_out:
        facts.append(f"{table.left_out} left out")
    if budgets := inputs.budgets:
        facts.append(counted(len(budgets), "budget"))
    flops = [run.flops for run in inputs.grid_runs]
    facts.append(f"{wording.format_flops(min(flops))} to {wording.format_flops(max(flops))} FLOPs")
    facts.append(f"{wording.level_text(inputs)} intervals")
    return facts


def _law_caption(inputs: Inputs) -> str:
    text = (
        "Loss against compute. Dots are runs, coloured by budget; the line is the least loss of "
        "each compute with its interval, dashed where no run reaches."
    )
    if mapping(inputs.law.get("held_out")):
        text += (
            " The diamond is what a fit without the largest budget predicted for it, the star what "
            "that budget gave."
        )
    return text


def _chosen(inputs: Inputs) -> str:
    """Return which law this is, and why."""
    law = inputs.law
    equation = str(law.get("equation") or law.get("form"))
    choice = mapping(law.get("choice"))
    if not choice:
        return f"{equation}, as asked for."
    teller = method_of(choice.get("loss_by"))
    told = "it also tells" if choice.get("loss_by") == law.get("form") else f"{teller} tell"
    return (
        f"N* and D* are by {law.get('form')}, {equation}; {told} the least loss. "
        f"Chosen: {choice.get('reason')}."
    )


def _spread(inputs: Inputs) -> str:
    spread = mapping(mapping(inputs.law.get("exponents")).get("spread"))
    forms = mapping(spread.get("by_form"))
    if not forms:
        return ""
    low, high = interval(spread.get("interval"))
    each = ", ".join(f"{name} {to_number(value):.2f}" for name, value in forms.items())
    return (
        f"Over the fitted compute N* grows as C to the power of {each}, by form. With the three "
        f"approaches and their intervals that is {low:.2f} to {high:.2f}."
    )


def _tables(inputs: Inputs, source: Source) -> dict[str, Table | None]:
    """Return the tables by name, None where there is nothing to show."""
    return {
        "frontier": tables.frontier_table(inputs),
        "isoflop": tables.isoflop_table(inputs) if inputs.budgets else None,
        "rolling": rolling_table(inputs),
        "forms": forms_table(inputs),
        "exponents": exponent_table(inputs),
        "held_out": tables.held_out_table(inputs),
        "held_out_sizes": tables.held_out_sizes_table(inputs),
        "held_out_runs": tables.held_out_runs_table(inputs),
        "coefficients": tables.coefficient_table(inputs),
        "residuals": tables.residual_table(inputs),
        "excluded": _excluded(inputs),
        "runs": _runs(inputs),
        "source": _source(inputs, source),
    }


def _excluded(inputs: Inputs) -> Table | None:
    """Return every row that was left out, also those that the page does not list."""
    rows = [
        (Cell(str(item.get("name"))), Cell(str(item.get("reason"))))
        for item in inputs.law.get("excluded") or []
    ]
    return Table("Left out of the fit", ("row", "reason"), rows) if rows else None


def _runs(inputs: Inputs) -> Table | None:
    off = {item.run.name: item.residual for item in residuals(inputs)}
    rows = []
    for number, run in enumerate(inputs.runs):
        residual = off.get(run.name, float("nan"))
        rows.append(
            [
                Cell(run.name, run=number),
                number_cell(run.budget, wording.format_flops(run.budget)),
                number_cell(run.params, wording.format_count(run.params)),
                number_cell(run.tokens, wording.format_count(run.tokens)),
                number_cell(run.flops, wording.format_flops(run.flops)),
                number_cell(run.loss),
                number_cell(residual, wording.format_signed_percent(residual)),
                Cell(run.reason),
            ]
        )
    columns = ("run", "budget", "params", "tokens", "FLOPs", "loss", "off the form", "left out")
    return make_table("All runs", columns, rows) if rows else None


def _thinned(table: TableInputs) -> str:
    shown = len(table.inputs.runs)
    if shown == table.rows:
        return ""
    return (
        f"{shown} of {table.rows} rows, evenly taken, are drawn and listed here; the law is fitted "
        "to all."
    )


def _words(source: Source, inputs: Inputs, chosen: bool) -> str:
    """Return the table and the options that give this law, as words of a command line."""
    asked: dict[str, Any] = asked_of(inputs.law)
    if chosen:
        asked.pop("form", None)
    if published := mapping(inputs.law.get("against")).get("coefficients"):
        asked["against"] = published
    given = {k: v for k, v in asked.items() if getattr(DEFAULTS, k, None) != v}
    return " ".join(shlex.quote(word) for word in [title_of(source), *words_of(given)])


def _source(inputs: Inputs, source: Source) -> Table:
    """Say which table this is, so that another version of it is noticed."""
    pairs = [("Table", title_of(source)), ("Resamples", str(inputs.law.get("resamples")))]
    pairs.append(("Seed of the resamples", str(inputs.law.get("seed"))))
    if isinstance(source, str | Path) and Path(source).is_file():
        digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
        pairs.append(("SHA-256 of the file", digest))
    return tables.pairs_table("What this was made from", pairs)
