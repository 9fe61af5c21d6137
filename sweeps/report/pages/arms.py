"""The page of a study of arms: question, result in words, figures, videos side by side, tables."""

import json
import math
from pathlib import Path
from typing import Any

from data.words import counted
from sweeps.kinds.arms.summary import verdict
from sweeps.report import wording
from sweeps.report.explorer.document import Start
from sweeps.report.figures.arms import draw_arms, save_arms_picture
from sweeps.report.figures.svg import budget_palette, file_svg
from sweeps.report.inputs.arms import ArmsInputs, read_arms_inputs
from sweeps.report.inputs.isoflop import Json, mapping, records, to_number
from sweeps.report.pages.ladder import Head, Prompt, build_ladder
from sweeps.report.pages.runs import runs_parts
from sweeps.report.pages.shared import (
    environment_table,
    page_parts,
    show_drawing,
    template,
)
from sweeps.report.tables import isoflop as tables
from sweeps.report.tables.isoflop import Cell, Table, make_table, number_cell, pairs_table
from sweeps.report.tables.safe_csv import csv_data_uri
from sweeps.study.results import FREE_EPOCHS

_RUN_COLUMNS = (
    ("name", "run"), ("arm", "arm"), ("seed", "seed"), ("status", "status"), ("params", "params"),
    ("flops", "FLOPs"), ("tokens", "tokens"), ("steps", "steps"), ("epochs", "epochs"),
    ("loss", "loss, own captions"), ("loss_noise", "± noise draws"), ("seconds", "seconds"),
    ("reason", "reason"),
)  # fmt: skip


def build_arms_report(study_dir: Path | str, peak: float = math.nan) -> Path:
    """Write ``report/index.html``, ``report/figures/*.svg`` and ``differences.png``.

    peak: FLOP/s of one device, for the runs' MFU; NaN shows none.
    Reads files only. A missing or broken part becomes a note on the page. Returns the page's path;
    raises ValueError if ``study_dir`` is no folder.
    """
    inputs = read_arms_inputs(Path(study_dir))
    report = inputs.study_dir / "report"
    (report / "figures").mkdir(parents=True, exist_ok=True)
    drawings = draw_arms(inputs)
    for drawing in drawings.values():
        path = report / "figures" / f"{drawing.name}.svg"
        path.write_text(file_svg(drawing.svg), encoding="utf-8")
    save_arms_picture(inputs, report / "figures" / "differences.png")
    page = report / "index.html"
    page.write_text(_render(inputs, drawings, peak), encoding="utf-8")
    return page


def _render(inputs: ArmsInputs, drawings: dict[str, Any], peak: float) -> str:
    count, study = len(inputs.arms), inputs.study
    palette = budget_palette(count)
    level = to_number(study.get("level"))
    heads = [Head(arm, (), number) for number, arm in enumerate(inputs.arms)]
    config = study.get("config")
    return template("arms.html").render(
        **page_parts(count),
        **runs_parts(
            inputs.study_dir,
            inputs.runs,
            Start(("arm", "loss"), ("tokens", "loss"), "arm"),
            drawn=_drawn(inputs),
            peak=peak,
        ),
        samples_at="#videos",
        title=str(study.get("name") or inputs.study_dir.resolve().name),
        question=str(study.get("question") or ""),
        finding=arms_finding(inputs),
        verdicts=[verdict(row, inputs.reference) for row in _headlines(inputs)],
        warnings=[*_warnings(inputs), *wording.code_warning(inputs.study)],
        facts=_facts(inputs),
        differences_caption=(
            f"Each arm minus {inputs.reference}, paired by seed and by clip, with its "
            f"{wording.format_percent(level, 0)} interval over seeds and clips. Filled: the "
            "interval does not hold zero. The band is twice the spread over seeds of one arm: "
            "what two runs of the same arm may differ by."
        ),
        figures={name: show_drawing(drawing, palette) for name, drawing in drawings.items()},
        tables=_tables(inputs),
        probe_notes=[str(note) for note in study.get("probe_notes") or []],
        summary_uri=csv_data_uri(inputs.summary_csv),
        ladder=build_ladder(inputs.study_dir, inputs.notes, heads, _prompts(inputs)),
        command=str(study.get("command") or ""),
        config=json.dumps(config, indent=2, ensure_ascii=False) if config else "",
        notes=inputs.notes,
    )


def _drawn(inputs: ArmsInputs) -> frozenset[str]:
    """Return the runs whose samples are shown: those of one seed."""
    seed = str(inputs.samples.get("seed"))
    return frozenset(run.get("name", "") for run in inputs.runs if run.get("seed") == seed)


def _headlines(inputs: ArmsInputs) -> list[Json]:
    """Return the compared rows over all clips."""
    return [
        row for row in inputs.summary
        if row["group"] == "all" and row["arm"] != inputs.reference
    ]  # fmt: skip


def arms_finding(inputs: ArmsInputs) -> str:
    """Return the result in one sentence."""
    rows = [row for row in _headlines(inputs) if math.isfinite(row["difference"])]
    resolved = [row for row in rows if row.get("resolved") == "yes"]
    if not rows:
        return "The arms could not be compared: too few runs finished."
    if not resolved:
        return (
            f"No difference between the arms is resolved on any of {len(rows)} measures: what is "
            "seen lies inside the intervals."
        )
    by_chance = (1 - to_number(inputs.study.get("level"))) * len(rows)
    if len(rows) > 3 and len(resolved) <= max(1, round(by_chance)):
        return (
            f"{len(resolved)} of {len(rows)} measures "
            f"{'differs' if len(resolved) == 1 else 'differ'} between the arms, about as many as "
            "chance alone would show: no difference is established."
        )
    # The last measures are those of the study's probe, which answer its question.
    return verdict(resolved[-1], inputs.reference)


def _facts(inputs: ArmsInputs) -> list[str]:
    study = inputs.study
    seeds = {row.get("seed") for row in inputs.runs}
    facts = [
        counted(len(inputs.arms), "arm"),
        counted(len(seeds), "seed"),
        f"{wording.format_flops(to_number(study.get('flops')))} FLOPs a run",
    ]
    seconds = to_number(study.get("seconds"))
    if math.isfinite(seconds):
        facts.append(f"{wording.format_seconds(seconds)} of training, summed over runs")
    if finished := study.get("finished"):
        facts.append(f"finished {wording.format_moment(str(finished))}")
    return facts


def _warnings(inputs: ArmsInputs) -> list[str]:
    """Say what limits the comparison."""
    found = [
        f"{failure.get('job')} failed in “{failure.get('phase')}”: {failure.get('reason')} "
        f"{failure.get('last_line')}".strip()
        for failure in records(inputs.study.get("failures"))
    ]
    failed = [row for row in inputs.runs if row.get("status") != "finished"]
    if failed:
        names = ", ".join(row.get("name", "") for row in failed)
        found.append(f"Runs without a result, left out of every comparison: {names}.")
    seeds = {row.get("seed") for row in inputs.runs if row.get("status") == "finished"}
    if 0 < len(seeds) < 5:
        found.append(
            f"{counted(len(seeds), 'seed')}: intervals over so few seeds are wide, and "
            "rest on differences between seeds being roughly normal."
        )
    epochs = [to_number(row.get("epochs")) for row in inputs.runs]
    often = [value for value in epochs if value > FREE_EPOCHS]
    if often:
        found.append(
            f"{len(often)} of {len(inputs.runs)} runs saw every clip more than {FREE_EPOCHS} times "
            f"(up to {max(often):.1f}): the comparison is one of small data."
        )
    measures = len(_headlines(inputs))
    if measures > 3:
        found.append(
            f"{measures} comparisons are shown. At this level one in "
            f"{1 / max(1 - to_number(inputs.study.get('level')), 1e-9):.0f} would look resolved "
            "by chance; the intervals are not corrected for that."
        )
    return found


def _tables(inputs: ArmsInputs) -> dict[str, Table | None]:
    study = inputs.study
    asked = [
        ("Question", study.get("question")), ("Cost", study.get("cost")),
        ("Expected beforehand", study.get("expected")),
    ]  # fmt: skip
    arms = mapping(study.get("arms"))
    arm_rows = [
        (Cell(name + (" (reference)" if name == inputs.reference else "")),
         Cell("  ".join(map(str, overrides or [])) or "the base as it is"))
        for name, overrides in arms.items()
    ]  # fmt: skip
    return {
        "asked": pairs_table("The study", [(k, str(v or wording.NONE)) for k, v in asked]),
        "arms": make_table("Arms", ("arm", "what differs"), arm_rows) if arm_rows else None,
        "probe": _probe_table(inputs),
        "summary": _summary_table(inputs),
        "runs": _runs_table(inputs),
        "environment": environment_table(mapping(study.get("env"))),
    }


def _probe_table(inputs: ArmsInputs) -> Table | None:
    rows = [
        (
            Cell(str(row.get("measure"))),
            Cell(str(row.get("what") or "")),
            *(_three_digits(row.get(key)) for key in ("value", "baseline")),
            number_cell(to_number(row.get("clips")), f"{to_number(row.get('clips')):.0f}"),
        )
        for row in records(inputs.study.get("probe"))
    ]  # fmt: skip
    columns = ("measure", "on clips with known truth", "value", "by guessing", "clips")
    return make_table("The probe against the truth", columns, rows) if rows else None


def _three_digits(value: object) -> Cell:
    return number_cell(to_number(value), wording.format_value(to_number(value), 3))


def _summary_table(inputs: ArmsInputs) -> Table | None:
    rows = []
    for row in inputs.summary:
        low, high = row["low"], row["high"]
        interval = wording.format_interval(low, high)
        rows.append(
            (
                Cell(str(row["measure"])),
                Cell(str(row["group"])),
                Cell(str(row["arm"])),
                number_cell(row["mean"]),
                number_cell(row["std_over_seeds"], wording.format_value(row["std_over_seeds"], 2)),
                number_cell(row["difference"], wording.format_value(row["difference"], 3)),
                Cell(interval if row["arm"] != inputs.reference else "reference"),
                Cell(str(row.get("resolved") or wording.NONE)),
                number_cell(row["noise_floor"], wording.format_value(row["noise_floor"], 2)),
                number_cell(to_number(row.get("seeds")), str(row.get("seeds"))),
                number_cell(to_number(row.get("clips")), str(row.get("clips"))),
            )
        )
    columns = ("measure", "clips of", "arm", "mean", "± over seeds", "difference", "interval",
               "resolved", "noise floor", "seeds", "clips")  # fmt: skip
    return make_table("All measures", columns, rows) if rows else None


def _runs_table(inputs: ArmsInputs) -> Table | None:
    rows = []
    for number, run in enumerate(inputs.runs):
        cells = []
        for key, _ in _RUN_COLUMNS:
            text = run.get(key, "")
            value = to_number(text) if key not in ("name", "arm", "status", "reason") else math.nan
            shown = tables.show_value(value) if math.isfinite(value) else text or wording.NONE
            opens = number if key == "name" else None
            cells.append(Cell(shown, value if math.isfinite(value) else None, opens))
        rows.append(cells)
    return make_table("All runs", [label for _, label in _RUN_COLUMNS], rows) if rows else None


def _prompts(inputs: ArmsInputs) -> list[Prompt]:
    """Return the prompts whose clips are shown, with the file that each arm drew."""
    found = []
    for row in records(inputs.samples.get("rows")):
        files = mapping(row.get("files"))
        captions, shape = str(row.get("captions") or ""), str(row.get("shape") or "")
        kind = f"{captions} prompt, {shape}" if captions else shape
        names = [files.get(arm) for arm in inputs.arms]
        found.append(Prompt(str(row.get("text") or ""), kind, names, row.get("held_out")))
    return found
