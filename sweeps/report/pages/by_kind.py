"""The page of a study of any kind."""

import json
from pathlib import Path

from sweeps.report.pages.arms import build_arms_report
from sweeps.report.pages.isoflop import build_report
from sweeps.report.pages.points import build_points_report

PAGES = {"isoflop": build_report, "arms": build_arms_report, "points": build_points_report}
OLD_NAMES = {"": "isoflop", "grid": "points"}  # what study.json of before 2026-11-30 says


def build_page(study_dir: Path) -> Path:
    """Write the page of a study's folder, whose study.json says its kind; return its path.

    A folder that does not say is one of a law. Raises ValueError where it is no folder.
    """
    kind = _kind(study_dir)
    return PAGES.get(OLD_NAMES.get(kind, kind), build_report)(study_dir)


def _kind(study_dir: Path) -> str:
    try:
        study = json.loads((study_dir / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(study.get("kind") or "") if isinstance(study, dict) else ""
