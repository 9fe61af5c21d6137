"""The page of a study of any kind."""

import csv
import json
import math
import re
from pathlib import Path

from launch.planner.machine import load_machine
from sweeps.report import wording
from sweeps.report.inputs.arms import read_arms_inputs
from sweeps.report.inputs.isoflop import read_inputs
from sweeps.report.inputs.points import read_points_inputs
from sweeps.report.pages.arms import arms_finding, build_arms_report
from sweeps.report.pages.isoflop import build_report
from sweeps.report.pages.points import build_points_report, points_finding
from sweeps.study.archive import read_configs

PAGES = {
    "isoflop": build_report,
    "arms": build_arms_report,
    "points": build_points_report,
    "emergence": build_points_report,  # its answer is of the same form
}
_AGAIN = "Move it away, then: kinescale fit table={0}/runs.csv out={0}/law.json."
OLD_NAMES = {"": "isoflop", "grid": "points"}  # what study.json of before 2026-11-30 says


def build_page(study_dir: Path, machine: str = "") -> Path:
    """Write the page of a study's folder, whose study.json says its kind; return its path.

    A folder that does not say is one of a law. machine: of `launch/conf/machine`, by whose peak
    the runs' MFU is computed; empty shows none. Raises ValueError where it is no folder, and for
    an unknown machine.
    """
    peak = peak_of(study_dir, machine) if machine else math.nan
    return PAGES[kind_of(study_dir)](study_dir, peak)


def peak_of(study_dir: Path, machine: str) -> float:
    """Return the peak FLOP/s of one device, in the precision of the study's first run."""
    texts = [*read_configs(study_dir).values()]
    if not texts:
        paths = sorted(study_dir.glob("runs/*/config.yaml"))
        texts = [path.read_text(encoding="utf-8") for path in paths[:1]]
    found = re.search(r"^  precision: (\w+)$", texts[0], re.MULTILINE) if texts else None
    return load_machine(machine).peak(found[1] if found else "fp32")


def finding_of(study_dir: Path) -> str:
    """Return a study's result in one sentence, as its page has it."""
    kind = kind_of(study_dir)
    if kind == "arms":
        return arms_finding(read_arms_inputs(study_dir))
    if kind in ("points", "emergence"):
        return points_finding(read_points_inputs(study_dir))
    return wording.finding(read_inputs(study_dir))


def check_study(study_dir: Path) -> None:
    """Raise ValueError where no page is worth drawing: no run at all, or a law.json that is none.

    Any other part that is missing or broken is a note on the page.
    """
    if not study_dir.is_dir():
        raise ValueError(f"STUDY_DIR={study_dir}: must be a folder. Name a study's: runs/demo.")
    table, law = study_dir / "runs.csv", study_dir / "law.json"
    if not table.exists() and any(study_dir.glob("*/runs.csv")):
        raise ValueError(
            f"STUDY_DIR={study_dir}: is a folder of studies. Name one, or give --index {study_dir}."
        )
    if not _has_a_row(table):
        raise ValueError(f"{table}: lists no run. Run the study, then the same command again.")
    if not law.is_file():
        return
    again = _AGAIN.format(study_dir)
    try:
        found = json.loads(law.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{law}: is no JSON ({error}). {again}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{law}: holds no object. {again}")


def _has_a_row(table: Path) -> bool:
    if not table.is_file():
        return False
    text = table.read_text(encoding="utf-8", errors="replace")
    try:
        return any(True for _ in csv.DictReader(text.splitlines()))
    except csv.Error:
        return False


def kind_of(study_dir: Path) -> str:
    """Return a study's kind; one whose study.json does not say is of a law."""
    try:
        study = json.loads((study_dir / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "isoflop"
    kind = str(study.get("kind") or "") if isinstance(study, dict) else ""
    kind = OLD_NAMES.get(kind, kind)
    return kind if kind in PAGES else "isoflop"
