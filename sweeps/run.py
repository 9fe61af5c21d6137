"""Run a study: expand it, train what is missing, fit the law, draw the samples, write the report.

A study of arms (arms/run.py) compares a few ways to train instead of fitting a law; one of points
(grids/run.py) asks one named question of a product of settings.

usage: python -m sweeps.run study=NAME [key=value ...]

examples:
  python -m sweeps.run study=demo
  python -m sweeps.run study=demo name=demo-lr4 recipe.lr=4e-3
  python -m sweeps.run study=demo cluster.slots=1
  python -m sweeps.run study=framing
  python -m sweeps.run study=cpu_seeds

The command line is Hydra's: study=NAME selects sweeps/conf/study/NAME.yaml, key=value sets a value
(keys: config.py of sweeps, sweeps/arms and sweeps/grids). Safe to interrupt: the same command
continues, finished runs stay.
"""

import sys
from pathlib import Path

from sweeps.kinds.arms.config import ArmsConfig
from sweeps.kinds.arms.run import run_arms
from sweeps.kinds.compose import compose_any
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.kinds.isoflop.run import run_study
from sweeps.kinds.points.run import run_grid
from sweeps.study.phases import (
    INTERRUPTED,
)


def main(argv: list[str]) -> int:
    """Parse the command line and run the study."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        names = sorted(path.stem for path in (Path(__file__).parent / "conf/study").glob("*.yaml"))
        print("studies: " + ", ".join(names))
        return 0
    try:
        study = compose_any(argv)
        if isinstance(study, StudyConfig):
            return run_study(study, argv)
        return run_arms(study, argv) if isinstance(study, ArmsConfig) else run_grid(study, argv)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # between phases, when the launcher does not catch it
        print("interrupted: finished runs are kept; the same command continues.")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
