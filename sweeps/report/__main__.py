"""Build a study's page, of two side by side, or of all in a folder: one file that opens offline.

usage: kinescale report STUDY_DIR [machine=NAME]  STUDY_DIR/report/index.html
       kinescale report A B [validation=differs] [out=FILE]
       kinescale report --index FOLDER            FOLDER/index.html

examples:
  kinescale report runs/demo
  kinescale report docs/studies/cpu_isoflop runs/mine out=both.html
  kinescale report --index runs

A page is made from the study's files: runs.csv, law.json, study.json, data.json, samples/; of arms
also values.csv and summary.csv, of points analysis.json. Missing parts are noted on the page; a
runs.csv without a run and a law.json that is no JSON are errors. runs.csv and law.json are enough,
and this makes the second from the first, as the study fits it:
  kinescale fit table=STUDY_DIR/runs.csv out=STUDY_DIR/law.json

Two studies that were validated on other data are refused; validation=differs shows them
nevertheless. An index builds the pages that are missing. machine=h100 (of launch/conf/machine) adds
to each run its MFU by that machine's peak, which no run records.
"""

from pathlib import Path

from data.notices import doing
from data.shell import command
from sweeps.report.pages.by_kind import build_page, check_study
from sweeps.report.pages.index import build_index
from sweeps.report.pages.pair import build_pair


@command(__doc__)
def main(argv: list[str]) -> int:
    """Build the page that the command line names and print its path."""
    folders = [Path(word) for word in argv if "=" not in word and word != "--index"]
    given = dict(word.split("=", 1) for word in argv if "=" in word and not Path(word).is_dir())
    folders += [Path(word) for word in argv if "=" in word and Path(word).is_dir()]
    print(_build(folders, given, is_index="--index" in argv))
    return 0


def _build(folders: list[Path], given: dict[str, str], is_index: bool) -> Path:
    named = " ".join(map(str, folders))
    if is_index and (len(folders) != 1 or given):
        raise ValueError(f"FOLDER={named}: must be one folder of studies. Give one.")
    if not 1 <= len(folders) <= 2:
        raise ValueError(f"STUDY_DIR={named}: must be one study's folder, or two. Give them.")
    known = {"validation", "out"} if len(folders) == 2 else {"machine"}
    if unknown := set(given) - known:
        raise ValueError(f"{min(unknown)}={given[min(unknown)]}: is not known here. See --help.")
    if is_index:
        return build_index(folders[0])
    with doing(f"drawing the page of {named}"):
        if len(folders) == 2:
            out = Path(given["out"]) if "out" in given else None
            return build_pair(folders, given.get("validation", "same"), out)
        check_study(folders[0])
        return build_page(folders[0], given.get("machine", ""))


if __name__ == "__main__":
    main.run()
