"""The page of two studies side by side, on shared scales."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.files import write_text
from data.words import counted
from sweeps.report import wording
from sweeps.report.explorer.document import Start, document, law_of
from sweeps.report.figures.pair import Panel, draw_pair
from sweeps.report.inputs.histories import History, read_histories
from sweeps.report.inputs.isoflop import Json, mapping, to_number
from sweeps.report.pages.by_kind import check_study, finding_of
from sweeps.report.pages.runs import explorer_parts
from sweeps.report.pages.shared import page_parts, show_drawing, template
from sweeps.report.tables.isoflop import Cell, Table, make_table, number_cell
from sweeps.report.tables.run_details import HEIGHT, WIDTH, run_details
from sweeps.study.validation import agreement, validated

SAME, DIFFERS = "same", "differs"


@dataclass(frozen=True)
class _Study:
    name: str
    folder: Path
    about: Json
    law: Json
    histories: list[History]


def build_pair(folders: Sequence[Path], validation: str = SAME, out: Path | None = None) -> Path:
    """Write the page of two studies; return its path, by default in the first one's report.

    Raises ValueError where one is no study, or they were validated on other data and
    ``validation`` is not ``differs``.
    """
    if validation not in (SAME, DIFFERS):
        raise ValueError(f"validation={validation}: is not known. Use {SAME} or {DIFFERS}.")
    for folder in folders:
        check_study(folder)
    known = agreement(*(validated(folder / "runs.csv") for folder in folders))
    if known.differs and validation == SAME:
        raise ValueError(
            f"validation={SAME}: {folders[0]} and {folders[1]} were validated on other data: "
            f"{'; '.join(known.differs)}. Such losses do not compare; validation={DIFFERS} shows "
            "them side by side nevertheless."
        )
    studies = [_read(folder) for folder in folders]
    if studies[0].name == studies[1].name:
        studies = [
            _read(folder, f" ({letter})") for folder, letter in zip(folders, "AB", strict=True)
        ]
    page = out or folders[0] / "report" / f"beside-{folders[1].resolve().name}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, _render(studies, known.sentence()))
    return page


def _read(folder: Path, suffix: str = "") -> _Study:
    about, law = _object(folder / "study.json"), _object(folder / "law.json")
    name = str(about.get("name") or folder.resolve().name) + suffix
    text = (folder / "runs.csv").read_text(encoding="utf-8", errors="replace")
    rows = [
        {"study": name} | {k: v or "" for k, v in row.items() if isinstance(k, str)}
        for row in csv.DictReader(text.splitlines())
    ]
    return _Study(name, folder, about, law, read_histories(folder, rows))


def _object(path: Path) -> Json:
    try:
        return mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _render(studies: Sequence[_Study], sentence: str) -> str:
    histories = [history for study in studies for history in study.histories]
    panels = [
        Panel(s.name, [h.row for h in s.histories], law_of(s.law).frontier) for s in studies
    ]  # fmt: skip
    return template("pair.html").render(
        **page_parts(1),
        **explorer_parts(_document(studies, histories)),
        run_details=run_details(histories),
        spark_box={"width": WIDTH, "height": HEIGHT},
        samples_at="#runs",
        title=" and ".join(study.name for study in studies),
        finding=sentence,
        question="",
        facts=[f"{s.name}: {counted(len(s.histories), 'run')}" for s in studies],
        notes=[],
        figures={k: show_drawing(drawing, []) for k, drawing in draw_pair(panels).items()},
        tables={"sides": _sides(studies), "runs": _runs(histories)},
    )


def _document(studies: Sequence[_Study], histories: Sequence[History]) -> dict[str, Any]:
    """Return both studies' runs as one document, which says whose each of them is."""
    found = document(histories, Start(colour="study"))
    found["sides"] = [study.name for study in studies]
    found["side"] = [side for side, study in enumerate(studies) for _ in study.histories]
    for side, study in enumerate(studies):
        law = law_of(study.law)
        found["frontier"] += [point | {"side": side} for point in law.frontier]
        found["minima"] += [point | {"side": side} for point in law.minima]
    return found


def _sides(studies: Sequence[_Study]) -> Table:
    texts = [
        {
            "Question": study.about.get("question"),
            "Finding": finding_of(study.folder),
            "Form of the law": study.law.get("form"),
            "Runs": str(len(study.histories)),
            "Training": wording.format_seconds(to_number(study.about.get("seconds"))),
            "Finished": wording.format_moment(str(study.about.get("finished") or "")),
            "Code": mapping(study.about.get("env")).get("git"),
        }
        for study in studies
    ]
    rows = [
        [Cell(what), *(Cell(str(text[what] or wording.NONE)) for text in texts)]
        for what in texts[0]
        if any(text[what] for text in texts)
    ]
    return make_table("The studies", ["", *(study.name for study in studies)], rows)


def _runs(histories: Sequence[History]) -> Table | None:
    rows = []
    for number, history in enumerate(histories):
        get = {k: to_number(history.row.get(k)) for k in ("params", "tokens", "flops", "loss")}
        rows.append(
            [
                Cell(history.name, run=number),
                Cell(history.row.get("study", "")),
                number_cell(get["params"], wording.format_count(get["params"])),
                number_cell(get["tokens"], wording.format_count(get["tokens"])),
                number_cell(get["flops"], wording.format_flops(get["flops"])),
                number_cell(get["loss"]),
            ]
        )
    columns = ("run", "study", "params", "tokens", "FLOPs", "loss")
    return make_table("All runs", columns, rows) if rows else None
