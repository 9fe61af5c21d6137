"""Build a study's page: STUDY_DIR/report/index.html, one page that opens offline.

usage: kinescale report STUDY_DIR

example:
  kinescale report runs/demo

It is made from the study's files: runs.csv, law.json, study.json, data.json, samples/; of arms also
values.csv and summary.csv, of points analysis.json. Missing parts are noted on the page; a runs.csv
without a run and a law.json that is no JSON are errors. runs.csv and law.json are enough, and this
makes the second from the first, as the study fits it:
  kinescale fit table=STUDY_DIR/runs.csv out=STUDY_DIR/law.json
"""

from pathlib import Path

from data.shell import command


@command(__doc__)
def main(argv: list[str]) -> int:
    """Build the page of the study named on the command line and print its path."""
    if len(argv) != 1:
        raise ValueError(f"STUDY_DIR={' '.join(argv)}: must be one study's folder. Give one.")
    study_dir = Path(argv[0])
    # After --help, which should not wait for the drawing library.
    from sweeps.report.pages.by_kind import build_page, check_study

    check_study(study_dir)
    print(build_page(study_dir))
    return 0


if __name__ == "__main__":
    main.run()
