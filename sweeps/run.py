"""Run a study: expand it, train what is missing, find its answer, write the page.

A study fits a law, compares a few ways to train, or asks one named question of points; its YAML
says which by its schema (sweeps/kinds).

usage: python -m sweeps.run study=NAME [key=value ...]

examples:
  python -m sweeps.run study=demo
  python -m sweeps.run study=demo name=demo-lr4 recipe.lr=4e-3
  python -m sweeps.run study=demo cluster.slots=1
  python -m sweeps.run study=framing
  python -m sweeps.run study=cpu_seeds

The command line is Hydra's: study=NAME selects sweeps/conf/study/NAME.yaml, key=value sets a value
(keys: config.py of the kind in sweeps/kinds). Safe to interrupt: the same command continues,
finished runs stay.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from sweeps.kinds.catalogue import KINDS
from sweeps.kinds.compose import compose_any
from sweeps.kinds.isoflop.run import IsoflopRunner
from sweeps.report.pages.by_kind import build_page
from sweeps.study.config import Study
from sweeps.study.phases import INTERRUPTED, Interrupted
from sweeps.summary import log_summary

ANSWERS = ("law.json", "analysis.json", "values.csv", "summary.csv", "runs.csv")


def run_study(study: Study, argv: Sequence[str]) -> int:
    """Run a study of any kind and say where its page is; return the exit status."""
    runner = KINDS[study.kind].runner(study, argv)
    try:
        runner.run()
    except Interrupted:
        print("interrupted: runs saved what they had; the same command continues.")
        return INTERRUPTED
    page = build_page(study.folder)
    if isinstance(runner, IsoflopRunner):  # only a law has a summary
        project = runner.plan.base.log.project
        log_summary(runner.study, project, runner.rows, runner.law, page)
    for name in ANSWERS:
        if (study.folder / name).exists():
            print(f"{name + ':':15s}{study.folder / name}")
    print(f"{'page:':15s}{page}")
    return 1 if runner.failures else 0


def main(argv: list[str]) -> int:
    """Parse the command line and run the study."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        names = sorted(path.stem for path in (Path(__file__).parent / "conf/study").glob("*.yaml"))
        print("studies: " + ", ".join(names))
        return 0
    try:
        return run_study(compose_any(argv), argv)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # between phases, when the launcher does not catch it
        print("interrupted: finished runs are kept; the same command continues.")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
