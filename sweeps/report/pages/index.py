"""The page of all studies in a folder, each with its finding and a link to its own page."""

import base64
import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rich.console import Console

from data.decode.pictures import open_picture
from data.files import write_text
from data.reading import read_object
from data.show.progress import Progress
from data.words import counted
from sweeps.report import wording
from sweeps.report.inputs.isoflop import to_number
from sweeps.report.pages.by_kind import build_page, check_study, finding_of, kind_of
from sweeps.report.pages.runs import explorer_parts
from sweeps.report.pages.shared import page_parts, template
from sweeps.report.tables.isoflop import Cell, Table, make_table, number_cell
from sweeps.study.archive import PICTURE, PICTURES

DEPTH = 3  # folders below the one that is named
_KINDS = {
    "isoflop": "scaling law",
    "arms": "comparison of arms",
    "points": "study of points",
    "emergence": "study of emergence",
}
_LARGEST_PICTURE = 50_000_000  # pixels: nothing that a study drew
_PICTURE_WIDTH = 480  # pixels of a small picture


@dataclass(frozen=True)
class Entry:
    """A study as the index shows it. page: its address, from the index."""

    name: str
    page: str
    kind: str
    question: str
    finding: str
    facts: list[str]
    picture: str
    runs: int
    best: float
    finished: str


def build_index(folder: Path) -> Path:
    """Write FOLDER/index.html; a study without a page gets one. Return the path.

    Raises ValueError where there is no folder or no study in it.
    """
    if not folder.is_dir():
        raise ValueError(f"FOLDER={folder}: must be a folder. Name one that holds studies: runs.")
    entries, notes, studies = [], [], list(studies_in(folder))
    with Progress("pages", Console(stderr=True)) as progress:
        for done, study in enumerate(studies):
            progress.update(done, len(studies), study.name)
            try:
                check_study(study)
                entries.append(_entry(folder, study))
            except ValueError as error:
                notes.append(str(error))
    if not entries:
        why = f" ({notes[0]})" if notes else ""
        raise ValueError(
            f"FOLDER={folder}: holds no study with runs{why}. Name a folder of studies."
        )
    page = folder / "index.html"
    text = template("index.html").render(
        **page_parts(0),
        **explorer_parts(None),
        title=folder.resolve().name,
        finding=f"{counted(len(entries), 'study', 'studies')}",
        question="",
        facts=[counted(sum(entry.runs for entry in entries), "run")],
        notes=notes,
        studies=entries,
        table=_table(entries),
    )
    write_text(page, text)
    return page


def studies_in(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Yield the folders of studies, in the order of their names; those of runs are none."""
    if (folder / "runs.csv").is_file() and (folder / "study.json").is_file():
        yield folder
    elif depth:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                yield from studies_in(path, depth - 1)


def _entry(folder: Path, study: Path) -> Entry:
    page = study / "report" / "index.html"
    if not page.is_file():
        build_page(study)
    about = read_object(study / "study.json").values
    text = (study / "runs.csv").read_text(encoding="utf-8", errors="replace")
    rows = list(csv.DictReader(text.splitlines()))
    losses = [loss for row in rows if (loss := to_number(row.get("loss"))) > 0]
    finished = wording.format_moment(str(about.get("finished") or ""))
    kind = _KINDS[kind_of(study)]
    facts = [
        kind,
        counted(len(rows), "run"),
        *([f"finished {finished}"] if finished else []),
    ]
    return Entry(
        name=str(about.get("name") or study.name),
        page=quote(os.path.relpath(page, folder)),
        kind=kind,
        question=str(about.get("question") or ""),
        finding=finding_of(study),
        facts=facts,
        picture=_picture(study),
        runs=len(rows),
        best=min(losses, default=float("nan")),
        finished=finished,
    )


def _picture(study: Path) -> str:
    """Return a study's picture, made small, as a data URI; empty where it has none."""
    places = [study / "report" / "figures" / name for name in PICTURES] + [study / PICTURE]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        return ""
    try:
        with found.open("rb") as stream, open_picture(stream) as image:
            if image.width * image.height > _LARGEST_PICTURE:
                return ""
            size = _PICTURE_WIDTH, round(_PICTURE_WIDTH * image.height / image.width)
            small = image.convert("RGB").resize(size)
    except (OSError, ValueError):
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=70)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _table(entries: list[Entry]) -> Table:
    rows = [
        [
            Cell(entry.name),
            Cell(entry.kind),
            number_cell(entry.runs, str(entry.runs)),
            number_cell(entry.best),
            Cell(entry.finished or wording.NONE),
        ]
        for entry in entries
    ]
    return make_table("All studies", ("study", "kind", "runs", "least loss", "finished"), rows)
