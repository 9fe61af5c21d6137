"""Print the table of a study's runs before anything starts.

usage: kinescale plan-study study=NAME [machine=cpu2] [key=value ...] [--json]

examples:
  kinescale plan-study study=demo
  kinescale plan-study study=demo machine=h100 devices=64
  kinescale plan-study study=framing machine=cpu2 seeds=[0,1,2,3,4]
  kinescale plan-study study=demo grid.sizes=7 clip=33x240x416 --json

  study=NAME         sweeps/conf/study/NAME.yaml; other keys are the study's, as for run
  machine=cpu2       a file of launch/conf/machine: its speed, price and disk decide hours and money
  price=VALUE        of a device-hour, in place of the file's
  devices=N          devices the study may use at once (default: those of one node)
  clip=FxHxW         plan for clips of F frames of H x W source pixels, whatever the data set holds
  --json             JSON for a tool in place of the table

Nothing is started or written. Every run is composed, so a bad setting shows here. What exists in
the study's folder is taken into account; without a data set a stand-in clip gives FLOPs a token,
and the table says so. Hours are those of training on idle devices.
"""

from data.shell import command
from sweeps.plan.command import run


@command(__doc__, prints_only=True)
def main(argv: list[str]) -> int:
    """Plan a study and print it."""
    return run(argv)


if __name__ == "__main__":
    main.run()
