"""Run a study: expand it, train what is missing, find its answer, write the page.

A study fits a law, compares a few ways to train, or asks one named question of points; its YAML
says which by its schema (sweeps/kinds).

usage: kinescale run study=NAME [key=value ...]

examples:
  kinescale run study=demo
  kinescale run study=demo name=demo-lr4 recipe.lr=4e-3
  kinescale run study=demo cluster.slots=1
  kinescale run study=framing
  kinescale run study=cpu_seeds
  kinescale run check=true study=demo       look whether it would go, and start nothing; --json

The command line is Hydra's: study=NAME selects sweeps/conf/study/NAME.yaml, key=value sets a value
(keys: config.py of the kind in sweeps/kinds). Safe to interrupt: the same command continues,
finished runs stay. --cfg job prints the composed study and stops. check=true looks at the data,
tokens, disk and keys of all runs and tries a step of the largest in a folder that it removes: a
line each, then go (status 0) or no go (2).
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.notices import doing
from data.shell import command

if TYPE_CHECKING:
    from sweeps.study.config import Study
    from sweeps.study.runner import StudyRunner

ANSWERS = ("law.json", "analysis.json", "values.csv", "summary.csv", "runs.csv")


def run_study(study: "Study", argv: Sequence[str]) -> int:
    """Run a study of any kind and say where its page is; return the exit status."""
    # After --help, which should be quick.
    from data.words import counted
    from sweeps.kinds.catalogue import KINDS
    from sweeps.kinds.isoflop.run import IsoflopRunner
    from sweeps.report.pages.by_kind import build_page
    from sweeps.study.phases import INTERRUPTED, Interrupted
    from sweeps.summary import START_SECONDS, send_summary, summary_mode

    runner = KINDS[study.kind].runner(study, argv)
    # Only a law has a summary; a WANDB_MODE that is none is refused before any run, not after all.
    logs = runner.plan.base.log if isinstance(runner, IsoflopRunner) else None
    mode = summary_mode(logs.wandb, os.environ) if logs else None
    try:
        runner.run()
        with doing(f"drawing the page of {study.name}"):
            page = build_page(study.folder)
    except Interrupted:
        print("interrupted: runs saved what they had; the same command continues.")
        return INTERRUPTED
    except Exception as error:
        tell_end(runner, f"It stopped: {error}")
        raise
    if logs is not None and mode is not None:
        seconds = START_SECONDS + logs.wandb_seconds
        with doing("sending the summary to W&B"):
            send_summary(study.folder, mode, logs.project, seconds, ended=True)
    failed = f", {len(runner.failures)} failed" if runner.failures else ""
    tell_end(runner, f"{counted(len(runner.folders), 'run')}{failed}. Page: {page}")
    for name in ANSWERS:
        if (study.folder / name).exists():
            print(f"{name + ':':15s}{study.folder / name}")
    print(f"{'page:':15s}{page}")
    return 1 if runner.failures else 0


def tell_end(runner: "StudyRunner", text: str) -> None:
    """Tell whom its runs alert that a study ended; whom that does not reach is a line."""
    from trainer.mirror.alerts import alerts_in, deliver
    from trainer.mirror.ending import Alert

    frozen = next((f for f in runner.folders.values() if (f / "config.yaml").is_file()), None)
    if frozen is None:
        return
    alert = Alert("ended", runner.study.name, text)
    for problem in deliver(alert, alerts_in(frozen), os.environ):
        print(problem, file=sys.stderr)


def check_study(study: "Study", as_json: bool) -> int:
    """Look whether a study would go, and say so; return the exit status."""
    from data.checks import tell
    from launch.preflight import look_at_runs
    from sweeps.kinds.catalogue import plan_study
    from sweeps.study.clips import Clips
    from sweeps.study.freeze import refuse_other

    refuse_other(study)
    with doing(f"composing the runs of {study.name}"):
        planned = plan_study(study, Clips())
        runs = [expected.compose() for expected in planned.runs]
    doubts = [
        replace(doubt, of=expected.spec.name, remedy=doubt.remedy or "See kinescale plan-study.")
        for expected in planned.runs
        for doubt in expected.doubts
    ]
    return tell([*doubts, *look_at_runs(runs, study.cluster)], as_json)


def _studies() -> str:
    names = sorted(path.stem for path in (Path(__file__).parent / "conf/study").glob("*.yaml"))
    return "studies: " + ", ".join(names)


@command(__doc__, also=_studies, kept="finished runs are kept; the same command continues.")
def main(argv: list[str]) -> int:
    """Parse the command line and run the study."""
    with doing("importing libraries"):
        from sweeps.kinds.compose import compose_any
        from trainer.compose import shown, split_cfg

    only_shown, argv = split_cfg(argv)
    if only_shown:
        print(shown(compose_any(argv)))
        return 0
    if "check=true" in argv:
        words = [word for word in argv if word not in ("check=true", "--json")]
        return check_study(compose_any(words), "--json" in argv)
    return run_study(compose_any(argv), argv)


if __name__ == "__main__":
    main.run()
