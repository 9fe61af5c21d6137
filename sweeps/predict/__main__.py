"""Say what a budget buys by a study's law: model, tokens, loss, recipe, layout, money.

usage: kinescale predict study=FOLDER_OR_NAME gpus=N days=D [key=value ...] [--json]

examples:
  kinescale predict study=docs/studies/cpu_isoflop gpus=2 days=.1 machine=cpu2
  kinescale predict study=runs/isoflop gpus=512 days=14 machine=h100 mfu=.4
  kinescale predict study=demo gpus=8 days=1 model.head_dim=128 --json

  study=          a study's name or folder (runs.csv, study.yaml), or a csv of runs
  gpus=, days=    how many devices for how long
  machine=h100    a file of launch/conf/machine; price=VALUE of a device-hour in place of its own
  mfu=.4          share of the machine's peak that trains; flops=C gives the budget itself
  precision=      bf16 or fp32 (default: the machine's faster one)
  form=, level=, resamples=, seed=   of the fit, as for fit (default: the study's own)
  far=true        answer also where the budget is beyond 100 times what was tested
  out=FILE.json   the answer for a tool (--json prints it)
  other keys      settings of the run that is planned, as for train (data.root=...)

The law is fitted to the study's runs.csv; N*, D* and the loss come with intervals and with how far
the budget lies beyond the runs; one that is too far is refused. The shape is the ladder's closest
that can be built, the recipe the study's, the layout kinescale plan's best.
"""

from data.shell import command
from sweeps.predict.command import run


@command(__doc__, prints_only=True)
def main(argv: list[str]) -> int:
    """Predict, write and print."""
    return run(argv)


if __name__ == "__main__":
    main.run()
