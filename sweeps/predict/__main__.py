"""Say what a budget buys by a study's law: model, tokens, loss, recipe, layout, money.

usage: python -m sweeps.predict study=FOLDER_OR_NAME gpus=N days=D [key=value ...] [--json]

examples:
  python -m sweeps.predict study=docs/studies/demo gpus=2 days=1 machine=cpu2 mfu=.6
  python -m sweeps.predict study=runs/isoflop gpus=512 days=14 machine=h100 mfu=.4
  python -m sweeps.predict study=demo gpus=8 days=1 model.head_dim=128 --json

  study=          a study's name or folder (runs.csv, study.yaml), or a csv of runs
  gpus=, days=    how many devices for how long
  machine=h100    a file of launch/conf/machine; price=VALUE of a device-hour in place of its own
  mfu=.4          share of the machine's peak that trains; flops=C gives the budget itself
  precision=      bf16 or fp32 (default: the machine's faster one)
  form=, level=.9, resamples=1000, seed=0   of the fit, as for sweeps.fit (form: the study's own)
  out=FILE.json   the answer for a tool (--json prints it)
  other keys      settings of the run that is planned, as for trainer.train (data.root=...)

The law is fitted to the study's runs.csv; N*, D* and the loss come with intervals and with how far
the budget lies beyond the runs, in words where that is too far. The shape is the ladder's closest
that can be built, the recipe the study's, the layout launch.plan's best.
"""

import sys

from launch.pipe import end_with_reader


def main(argv: list[str]) -> int:
    """Predict, print and write; return 2 with the message on stderr for a user's mistake."""
    if not argv or {"-h", "--help", "help"} & set(argv):
        print(__doc__)
        return 0 if argv else 2
    from sweeps.predict.command import run  # after --help, which should be quick

    try:
        return run(argv)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    end_with_reader()
    sys.exit(main(sys.argv[1:]))
