"""Build a page of a study, of anybody's table of runs, of two studies, or of all in a folder.

usage: kinescale report STUDY_DIR [machine=NAME]  STUDY_DIR/report/index.html
       kinescale report TABLE [key=value ...]     TABLE with .html for its ending
       kinescale report A B [validation=differs] [out=FILE]
       kinescale report --index FOLDER            FOLDER/index.html

Every page is one file that opens offline.

examples:
  kinescale report runs/demo
  kinescale report ladder.csv columns.params=N columns.loss=val out=ladder.html
  kinescale report wandb:lab/ladder tokens=train/tokens out=ladder.html
  kinescale report docs/studies/cpu_isoflop runs/mine out=both.html
  kinescale report --index runs

A page is made from the study's files: runs.csv, law.json, study.json, data.json, samples/; of arms
also values.csv and summary.csv, of points analysis.json. Missing parts are noted on the page; a
runs.csv without a run and a law.json that is no JSON are errors. runs.csv and law.json are enough,
and this makes the second from the first, as the study fits it:
  kinescale fit table=STUDY_DIR/runs.csv out=STUDY_DIR/law.json

A table (csv, jsonl, json, parquet or wandb:entity/project) is fitted first, by the options of
kinescale fit, the form chosen unless form= names one. Its page has the law with its intervals, what
was left out and why, how every method foresaw the budgets so far, every doubt, and how to reproduce
it. Of large tables 800 rows are drawn and listed; all are fitted.

Two studies that were validated on other data are refused; validation=differs shows them
nevertheless. An index builds the pages that are missing. machine=h100 (of launch/conf/machine) adds
to each run its MFU by that machine's peak, which no run records.
"""

from pathlib import Path

from data.notices import doing
from data.shell import command
from sweeps.fit.rows.files import KINDS
from sweeps.fit.rows.wandb_runs import SCHEME
from sweeps.report.pages.by_kind import build_page, check_study
from sweeps.report.pages.index import build_index
from sweeps.report.pages.pair import build_pair


@command(__doc__)
def main(argv: list[str]) -> int:
    """Build the page that the command line names and print its path."""
    if argv and is_table(argv[0]):
        print(_build_table(argv[0], argv[1:]))
        return 0
    folders = [Path(word) for word in argv if "=" not in word and word != "--index"]
    given = dict(word.split("=", 1) for word in argv if "=" in word and not Path(word).is_dir())
    folders += [Path(word) for word in argv if "=" in word and Path(word).is_dir()]
    print(_build(folders, given, is_index="--index" in argv))
    return 0


def is_table(word: str) -> bool:
    """Say whether a word of the command line is a table: a file, or a tracker's project."""
    return word.startswith(SCHEME) or (Path(word).suffix.lower() in KINDS and Path(word).is_file())


def _build_table(table: str, words: list[str]) -> Path:
    from sweeps.fit.__main__ import parse  # after --help, which should not wait for the fitter
    from sweeps.report.pages.table import build_table_page

    named = [word for word in words if word.startswith("out=")]
    asked = parse([f"table={table}", *(word for word in words if word not in named)])
    drawn = {"predict": asked.predict, "plot": asked.plot, "bands": asked.bands}
    if wrong := next((key for key, value in drawn.items() if value), ""):
        raise ValueError(f"{wrong}={drawn[wrong]}: is no part of a page. Use kinescale fit.")
    if not named and table.startswith(SCHEME):
        raise ValueError(
            f"TABLE={table}: lies in no folder. Say where its page goes: out=FILE.html."
        )
    out = Path(named[-1].removeprefix("out=")) if named else Path(table).with_suffix(".html")
    with doing(f"fitting {table} and drawing its page"):
        return build_table_page(
            table, out, asked.form, asked.options, columns=asked.columns,
            drop_highest=asked.drop_highest, published=asked.published,
        )  # fmt: skip


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
