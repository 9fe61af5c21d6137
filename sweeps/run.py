"""Run a study: expand it, train what is missing, fit the law, draw the samples, write the report.

A study of arms compares a few ways to train instead of fitting a law; one of points asks one named
question of a product of settings.

usage: kinescale run study=NAME [key=value ...]

examples:
  kinescale run study=demo
  kinescale run study=demo name=demo-lr4 recipe.lr=4e-3
  kinescale run study=demo cluster.slots=1
  kinescale run study=framing
  kinescale run study=cpu_seeds

The command line is Hydra's: study=NAME selects sweeps/conf/study/NAME.yaml, key=value sets a value
(keys: config.py of each of sweeps/kinds). Safe to interrupt: the same command
continues, finished runs stay.
"""

from pathlib import Path

from data.shell import command


def _studies() -> str:
    names = sorted(path.stem for path in (Path(__file__).parent / "conf/study").glob("*.yaml"))
    return "studies: " + ", ".join(names)


@command(__doc__, also=_studies, kept="finished runs are kept; the same command continues.")
def main(argv: list[str]) -> int:
    """Parse the command line and run the study."""
    # After --help, which should be quick.
    from sweeps.kinds.arms.config import ArmsConfig
    from sweeps.kinds.arms.run import run_arms
    from sweeps.kinds.compose import compose_any
    from sweeps.kinds.isoflop.config import StudyConfig
    from sweeps.kinds.isoflop.run import run_study
    from sweeps.kinds.points.run import run_grid

    study = compose_any(argv)
    if isinstance(study, StudyConfig):
        return run_study(study, argv)
    return run_arms(study, argv) if isinstance(study, ArmsConfig) else run_grid(study, argv)


if __name__ == "__main__":
    main.run()
