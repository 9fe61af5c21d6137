"""A finished study in, one self-contained page out: no request leaves it, it opens offline."""

import json
import math
from pathlib import Path
from typing import Any

from data.words import counted
from sweeps.fit.beside import fit_words
from sweeps.report import wording
from sweeps.report.checklist.checklist import checklist, summary
from sweeps.report.explorer.document import Start, law_of
from sweeps.report.figures.law import draw_all, save_picture
from sweeps.report.figures.svg import Drawing, budget_palette, file_svg
from sweeps.report.inputs.isoflop import (
    Inputs,
    mapping,
    read_inputs,
    records,
    to_number,
)
from sweeps.report.pages.ladder import build_ladder, heads_of, prompts_of
from sweeps.report.pages.runs import runs_parts
from sweeps.report.pages.shared import (
    environment_table,
    page_parts,
    show_drawing,
    template,
)
from sweeps.report.tables import isoflop as tables
from sweeps.report.tables.any_json import tabulate
from sweeps.report.tables.breakdown import breakdown_table, noise_table
from sweeps.report.tables.data import accounting_tables, folded
from sweeps.report.tables.exponents import bias_text, exponent_table
from sweeps.report.tables.safe_csv import csv_data_uri
from sweeps.report.tables.weightings import registers, weightings_table


def build_report(study_dir: Path | str, peak: float = math.nan) -> Path:
    """Write ``report/index.html``, ``report/figures/*.svg`` and ``law.png`` from a study's files.

    peak: FLOP/s of one device, for the runs' MFU; NaN shows none.
    Reads files only. A missing or broken part becomes a note on the page. Returns the page's path;
    raises ValueError if ``study_dir`` is no folder.
    """
    inputs = read_inputs(Path(study_dir))
    report = inputs.study_dir / "report"
    (report / "figures").mkdir(parents=True, exist_ok=True)
    drawings = draw_all(inputs)
    for drawing in drawings.values():
        path = report / "figures" / f"{drawing.name}.svg"
        path.write_text(file_svg(drawing.svg), encoding="utf-8")
    if drawings:
        save_picture(inputs, report / "figures" / "law.png")
    page = report / "index.html"
    page.write_text(render_page(inputs, drawings, peak), encoding="utf-8")
    return page


def render_page(inputs: Inputs, drawings: dict[str, Drawing], peak: float = math.nan) -> str:
    """Return the page; every value from a file is escaped by the template."""
    palette = budget_palette(len(inputs.budgets))
    columns = records(inputs.ladder.get("columns"))
    nearest = [inputs.nearest_budget(to_number(column.get("budget"))) for column in columns]
    heads = heads_of(inputs.ladder, inputs.budgets, nearest)
    ladder = build_ladder(inputs.study_dir, inputs.notes, heads, prompts_of(inputs.ladder))
    answers = checklist(inputs)
    return template("isoflop.html").render(
        **page_parts(len(inputs.budgets)),
        **runs_parts(
            inputs.study_dir, [run.values for run in inputs.runs], Start(),
            law=law_of(inputs.law), drawn=frozenset(head.run for head in heads), peak=peak,
        ),
        samples_at="#ladder",
        title=str(inputs.study.get("name") or inputs.study_dir.resolve().name),
        question=str(inputs.study.get("question") or ""),
        facts=_facts(inputs),
        finding=wording.finding(inputs),
        warnings=wording.warnings_of(inputs),
        law_caption=wording.law_caption(inputs),
        verdict=wording.held_out_verdict(inputs),
        figures={name: show_drawing(drawing, palette) for name, drawing in drawings.items()},
        checklist=answers,
        checklist_summary=summary(answers),
        bias=bias_text(inputs),
        held_out_known=bool(mapping(inputs.law.get("held_out"))),
        tables=study_tables(inputs),
        registered=registers(inputs),
        accounting=accounting_tables(inputs),
        data=_folded_tables(inputs),
        ladder=ladder,
        noise=wording.noise_text(mapping(inputs.study.get("seeds_noise"))),
        study=_study_texts(inputs),
        runs_uri=csv_data_uri(inputs.runs_csv),
        notes=inputs.notes,
    )  # fmt: skip


def _facts(inputs: Inputs) -> list[str]:
    """Return the line under the title: what was run, for how long, when."""
    num_excluded = sum(run.excluded for run in inputs.runs)
    facts = [counted(len(inputs.runs), "run")] if inputs.runs else []
    if num_excluded:
        facts.append(f"{num_excluded} excluded")
    if budgets := inputs.budgets:
        ends = f"{wording.format_flops(budgets[0])} to {wording.format_flops(budgets[-1])} FLOPs"
        facts.append(f"{counted(len(budgets), 'budget')}, {ends}")
    seconds = to_number(inputs.study.get("seconds"))
    if math.isfinite(seconds):
        facts.append(f"{wording.format_seconds(seconds)} of training, summed over runs")
    if finished := inputs.study.get("finished"):
        facts.append(f"finished {wording.format_moment(str(finished))}")
    return facts


def study_tables(inputs: Inputs) -> dict[str, tables.Table | None]:
    """Return the tables of a study's page by name, None where there is nothing to show."""
    twin = mapping(inputs.study.get("twin"))
    twin_rows = [(str(k).replace("_", " "), tables.show_value(v)) for k, v in twin.items()]
    return {
        "held_out": tables.held_out_table(inputs),
        "held_out_sizes": tables.held_out_sizes_table(inputs),
        "held_out_runs": tables.held_out_runs_table(inputs),
        "coefficients": tables.coefficient_table(inputs),
        "isoflop": tables.isoflop_table(inputs),
        "exponents": exponent_table(inputs),
        "weightings": weightings_table(inputs),
        "frontier": tables.frontier_table(inputs),
        "residuals": tables.residual_table(inputs),
        "noise": noise_table(inputs),
        "groups": breakdown_table(inputs),
        "real": tables.real_table(inputs),
        "excluded": tables.excluded_table(inputs),
        "runs": tables.runs_table(inputs),
        "environment": environment_table(mapping(inputs.study.get("env"))),
        "twin": tables.pairs_table("The twin check", twin_rows) if twin_rows else None,
    }


def _folded_tables(inputs: Inputs) -> list[tables.Table]:
    """Return what else is on record: single values in one table, then each part."""
    every = folded(inputs)
    parts = {k: v for k, v in every.items() if isinstance(v, dict | list)}
    single = {k: v for k, v in every.items() if k not in parts}
    found = tabulate("The data set", single)
    return found + [t for k, v in parts.items() for t in tabulate(wording.heading(k), v)]


def _study_texts(inputs: Inputs) -> dict[str, str]:
    config = inputs.study.get("config")
    return {
        "command": str(inputs.study.get("command") or ""),
        "fit": fit_words(inputs.law),
        "recipe": _text(inputs.study.get("recipe")),
        "pilot": _text(inputs.study.get("pilot")),
        "config": json.dumps(config, indent=2, ensure_ascii=False, default=str) if config else "",
    }


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
