"""Build a study's page: ``python -m sweeps.report runs/demo``."""

import argparse
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
    from sweeps.report.pages.by_kind import build_page

    try:
        page = build_page(arguments.study_dir)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(page)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
