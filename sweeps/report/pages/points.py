"""The page of a study of points: question, answer in words, figure, tables, runs."""

import base64
import json
import math
from pathlib import Path
from typing import Any

from data.words import counted
from sweeps.report import wording
from sweeps.report.explorer.document import Start
from sweeps.report.figures.points import colours, draw_points, save_points_picture
from sweeps.report.figures.svg import file_svg
from sweeps.report.inputs.isoflop import mapping, records, to_number
from sweeps.report.inputs.points import PointsInputs, read_points_inputs
from sweeps.report.pages.ladder import build_ladder, heads_of, prompts_of
from sweeps.report.pages.runs import runs_parts
from sweeps.report.pages.shared import (
    environment_table,
    page_parts,
    show_drawing,
    template,
)
from sweeps.report.tables import isoflop as tables
from sweeps.report.tables.isoflop import Cell, Table, make_table, pairs_table

_RUN_COLUMNS = (
    ("name", "run"), ("arm", "arm"), ("phase", "phase"), ("seed", "seed"), ("params", "params"),
    ("width", "width"), ("depth", "depth"), ("flops", "FLOPs"), ("tokens", "tokens"),
    ("unique_tokens", "unique tokens"), ("epochs", "epochs"), ("steps", "steps"), ("lr", "rate"),
    ("batch_tokens", "batch"), ("loss", "loss"), ("loss_noise", "± noise"),
    ("seconds", "seconds"), ("reason", "left out because"),
)  # fmt: skip
_WORDS = ("name", "arm", "phase", "reason")


def build_points_report(study_dir: Path | str, peak: float = math.nan) -> Path:
    """Write ``report/index.html``, ``report/figures/answer.svg`` and ``answer.png``.

    peak: FLOP/s of one device, for the runs' MFU; NaN shows none.
    Reads files only. A missing or broken part becomes a note on the page. Returns the page's path;
    raises ValueError if ``study_dir`` is no folder.
    """
    inputs = read_points_inputs(Path(study_dir))
    report = inputs.study_dir / "report"
    (report / "figures").mkdir(parents=True, exist_ok=True)
    drawings = draw_points(inputs)
    for drawing in drawings.values():
        path = report / "figures" / f"{drawing.name}.svg"
        path.write_text(file_svg(drawing.svg), encoding="utf-8")
    save_points_picture(inputs, report / "figures" / "answer.png")
    page = report / "index.html"
    page.write_text(_render(inputs, drawings, peak), encoding="utf-8")
    return page


def _render(inputs: PointsInputs, drawings: dict[str, Any], peak: float) -> str:
    study, finding, palette = inputs.study, inputs.finding, colours(inputs)
    config = study.get("config")
    heads = heads_of(inputs.ladder)
    return template("points.html").render(
        **page_parts(len(palette)),
        **runs_parts(
            inputs.study_dir,
            inputs.runs,
            _start(inputs),
            drawn=frozenset(head.run for head in heads),
            peak=peak,
        ),
        samples_at="#videos",
        kind="emergence" if study.get("kind") == "emergence" else "points",
        title=str(study.get("name") or inputs.study_dir.resolve().name),
        question=str(study.get("question") or ""),
        finding=points_finding(inputs),
        said=[str(sentence) for sentence in finding.get("said") or []],
        warnings=[*map(str, finding.get("warnings") or []), *wording.code_warning(study)],
        facts=_facts(inputs),
        figures={name: show_drawing(drawing, palette) for name, drawing in drawings.items()},
        caption=_caption(inputs),
        found=[_records(title, rows) for title, rows in mapping(finding.get("tables")).items()],
        tables={
            "asked": _asked(inputs),
            "runs": _runs(inputs),
            "environment": environment_table(mapping(study.get("env"))),
        },
        ladder=build_ladder(inputs.study_dir, inputs.notes, heads, prompts_of(inputs.ladder)),
        pictures=_pictures(inputs.study_dir),
        runs_uri="data:text/csv;base64," + base64.b64encode(inputs.runs_csv).decode("ascii"),
        command=str(study.get("command") or ""),
        config=json.dumps(config, indent=2, ensure_ascii=False) if config else "",
        notes=inputs.notes,
    )


def _pictures(study_dir: Path) -> list[tuple[str, str]]:
    """Return name and data URI of each picture of samples, as of tiny worlds."""
    found = sorted((study_dir / "samples").glob("ladder-*.png"))
    return [
        (path.stem.removeprefix("ladder-"),
         "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii"))
        for path in found
    ]  # fmt: skip


def points_finding(inputs: PointsInputs) -> str:
    """Return the answer in one sentence."""
    return str(inputs.finding.get("answer") or "This study has no answer yet.")


def _start(inputs: PointsInputs) -> Start:
    """Begin with the setting that the study varies, coloured by another, the arm or the size."""
    varied = [key for run in inputs.runs[:1] for key in run if "." in key]
    first = varied[-1] if varied else "params"
    colour = next((k for k in varied if k != first), "arm" if _has_arms(inputs) else "width")
    return Start((first, "loss"), ("flops", "loss"), colour)


def _has_arms(inputs: PointsInputs) -> bool:
    return len({run.get("arm") for run in inputs.runs}) > 1


def _facts(inputs: PointsInputs) -> list[str]:
    study = inputs.study
    facts = [counted(len(inputs.runs), "run")]
    for key, show, what in (
        ("flops", wording.format_flops, "FLOPs in all"),
        ("seconds", wording.format_seconds, "of training, summed over runs"),
    ):
        value = to_number(study.get(key))
        if math.isfinite(value):
            facts.append(f"{show(value)} {what}")
    if finished := study.get("finished"):
        facts.append(f"finished {wording.format_moment(str(finished))}")
    return facts


def _caption(inputs: PointsInputs) -> str:
    level = to_number(inputs.study.get("level"))
    return f"Bars are {wording.format_percent(level, 0)} intervals." if level else ""


def _asked(inputs: PointsInputs) -> Table:
    study = inputs.study
    asked = [
        ("Question", study.get("question")), ("Cost", study.get("cost")),
        ("Expected beforehand", study.get("expected")),
    ]  # fmt: skip
    # A small network has no recipe, and older studies do not say what their loss is.
    asked += [(key.capitalize(), study[key]) for key in ("loss", "recipe") if study.get(key)]
    return pairs_table("The study", [(word, str(v or wording.NONE)) for word, v in asked])


def _records(title: str, rows: object) -> Table | None:
    """Return rows of any keys as a table."""
    found = records(rows)
    keys = list(dict.fromkeys(key for row in found for key in row))
    cells = [
        [
            Cell(
                wording.format_by_key(key, row.get(key))
                or (tables.show_value(row.get(key)) if row.get(key) != "" else wording.NONE),
                to_number(row[key]) if isinstance(row.get(key), int | float) else None,
            )
            for key in keys
        ]
        for row in found
    ]
    names = [wording.heading(key) for key in keys]
    return make_table(title, names, cells) if cells else None


def _runs(inputs: PointsInputs) -> Table | None:
    own = [str(key) for key in inputs.study.get("columns") or []]
    columns = [*_RUN_COLUMNS[:-1], *((key, wording.heading(key)) for key in own), _RUN_COLUMNS[-1]]
    known = [pair for pair in columns if any(run.get(pair[0]) for run in inputs.runs)]
    rows = []
    for number, run in enumerate(inputs.runs):
        cells = []
        for key, _ in known:
            text = run.get(key, "")
            value = math.nan if key in _WORDS else to_number(text)
            shown = wording.format_by_key(key, value) or tables.show_value(value)
            shown = shown if math.isfinite(value) else text or wording.NONE
            opens = number if key == "name" else None
            cells.append(Cell(shown, value if math.isfinite(value) else None, opens))
        rows.append(cells)
    return make_table("All runs", [label for _, label in known], rows) if rows else None
