"""Build a study's page: ``python -m sweeps.report runs/demo``."""

import argparse
import json
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Build the page of the study named on the command line and print its path."""
    parser = argparse.ArgumentParser(
        prog="python -m sweeps.report",
        description="Write STUDY_DIR/report/index.html, one page that opens offline, from the "
        "study's files (runs.csv, law.json, study.json, data.json, samples/; of arms also "
        "values.csv and summary.csv, of points analysis.json). Missing parts are noted on the "
        "page. runs.csv and law.json are enough: python -m sweeps.fit table=STUDY_DIR/runs.csv "
        "out=STUDY_DIR/law.json makes the second from the first.",
    )
    parser.add_argument("study_dir", type=Path, metavar="STUDY_DIR", help="e.g. runs/demo")
    arguments = parser.parse_args(argv)
    # After --help, which should not wait for the drawing library.
    from sweeps.report.pages.arms import build_arms_report
    from sweeps.report.pages.isoflop import build_report
    from sweeps.report.pages.points import build_grid_report

    try:
        builders = {"arms": build_arms_report, "grid": build_grid_report}
        build = builders.get(_kind(arguments.study_dir), build_report)
        page = build(arguments.study_dir)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(page)
    return 0


def _kind(study_dir: Path) -> str:
    """Return which kind of study a folder says it holds; '' is that of a law."""
    try:
        study = json.loads((study_dir / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(study.get("kind")) if isinstance(study, dict) else ""


if __name__ == "__main__":
    raise SystemExit(main())
