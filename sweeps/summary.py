"""The study's own W&B run: the law, its tables and figures, in the group of its runs."""

import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.report.checklist.checklist import checklist
from sweeps.report.inputs.isoflop import Inputs, read_inputs
from sweeps.report.pages.isoflop import study_tables
from sweeps.report.tables.isoflop import Cell, Table, make_table
from sweeps.study.results import COLUMNS
from sweeps.workspaces import write_definition
from trainer.config import WandbMode
from trainer.mirror.wandb_run import start_wandb

_FILES = ("runs.csv", "law.json", "study.json", "data.json", "study.yaml", "report/index.html")


def log_summary(
    study: StudyConfig,
    project: str,
    rows: Sequence[dict[str, Any]],
    law: dict[str, Any],
    report: Path,
) -> None:
    """Log tables, law, figures, page and files of a study; W&B's mode variable decides where to.

    Also writes ``wandb_report.json``, the definition of a report, where wandb-workspaces is there.
    """
    mode = WandbMode(os.environ.get("WANDB_MODE", "offline"))
    if mode is WandbMode.disabled:
        return
    import wandb

    inputs = read_inputs(study.folder)
    config = {"question": study.question, "budgets": list(study.budgets)}
    tags = ["law", str(law.get("form") or "no-law")]
    run = start_wandb(f"{study.name}-law", mode, study.folder, project, study.name, tags, config)
    cells = [[row.get(column) for column in COLUMNS] for row in rows]
    logged: dict[str, Any] = {"runs": wandb.Table(columns=list(COLUMNS), data=cells)}
    for name, table in summary_tables(inputs).items():
        columns, values = plain_table(table)
        logged[f"tables/{name}"] = wandb.Table(columns=columns, data=values)
    for figure in sorted((report.parent / "figures").glob("*.svg")):
        logged[f"figures/{figure.stem}"] = wandb.Html(figure.read_text("utf-8"), inject=False)
    picture = report.parent / "figures" / "law.png"
    if picture.exists():
        logged["law_figure"] = wandb.Image(str(picture))
    logged["report"] = wandb.Html(report.read_text("utf-8"), inject=False)
    run.log({"step": 0} | logged)
    run.summary.update(summary_numbers(law))
    run.log_artifact(_artifact(study))
    run.finish()
    if path := write_definition(inputs, project):
        print(f"W&B report: {path}; publish it with kinescale workspaces --help")
    else:
        print("W&B report: not written, wandb-workspaces is not installed.", file=sys.stderr)


def summary_tables(inputs: Inputs) -> dict[str, Table]:
    """Return the tables of the page that a summary holds, by name; absent ones are left out."""
    found = {name: table for name, table in study_tables(inputs).items() if name != "runs"}
    rows = [
        [Cell(a.question), Cell(a.status.value), Cell(a.text)] for a in checklist(inputs)
    ]  # fmt: skip
    found["checklist"] = make_table("Checklist", ("item", "status", "answer"), rows)
    return {name: table for name, table in found.items() if table is not None}


def plain_table(table: Table) -> tuple[list[str], list[list[float | str]]]:
    """Return columns of one type each: numbers where every cell that says something has one."""
    names = [name or "name" for name in table.columns or ("what", "value")]
    columns = list(zip(*table.rows, strict=True)) if table.rows else []
    numeric = [all(c.value is not None or not c.text.strip("– ") for c in cells)
               and any(c.value is not None for c in cells) for cells in columns]  # fmt: skip
    values = [
        [(math.nan if cell.value is None else cell.value) if number else cell.text
         for cell, number in zip(row, numeric, strict=True)]
        for row in table.rows
    ]  # fmt: skip
    return names, values


def summary_numbers(law: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a law that one sorts and plots studies by."""
    held_out, exponents = law.get("held_out") or {}, law.get("exponents") or {}
    found = {f"law/{name}": value for name, value in (law.get("coefficients") or {}).items()}
    for key in ("predicted", "actual", "relative_error", "skill", "extrapolation_factor"):
        found[f"held_out/{key}"] = held_out.get(key)
    for key, item in exponents.items():
        found[f"exponent/{key}"] = (item or {}).get("params")
    for key in ("objective", "scatter", "noise_floor"):
        found[f"fit/{key}"] = law.get(key)
    return {k: float(v) for k, v in found.items() if isinstance(v, int | float)}


def _artifact(study: StudyConfig) -> Any:
    """Return the study's files, from which anybody can refit the law and build the page again."""
    import wandb

    name = re.sub(r"[^\w.-]", "-", f"{study.name}-study")[:128]
    artifact = wandb.Artifact(name, type="study")
    for file in _FILES:
        if (study.folder / file).is_file():
            artifact.add_file(str(study.folder / file), name=file)
    return artifact
