"""Build a study's page: ``python -m sweeps.report runs/demo``."""

import argparse
import sys
from pathlib import Path

from sweeps.report.page import build_report


def main(argv: list[str] | None = None) -> int:
    """Build the page of the study named on the command line and print its path."""
    parser = argparse.ArgumentParser(
        prog="python -m sweeps.report",
        description="Write STUDY_DIR/report/index.html, one page that opens offline, from the "
        "study's files (runs.csv, law.json, study.json, data.json, samples/). Missing parts are "
        "noted on the page.",
    )
    parser.add_argument("study_dir", type=Path, metavar="STUDY_DIR", help="e.g. runs/demo")
    arguments = parser.parse_args(argv)
    try:
        page = build_report(arguments.study_dir)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(page)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
