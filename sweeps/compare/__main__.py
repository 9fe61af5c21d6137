"""Say how much compute the better of two recipes, architectures or data sets is worth.

usage: kinescale compare A B [key=value ...] [--json]
       kinescale compare TABLE [reference=RECIPE] [key=value ...] [--json]

examples:
  kinescale compare runs/demo runs/demo-lr4
  kinescale compare dense.csv short.parquet columns.loss=val level=.95 svg=compare.svg
  kinescale compare ladder.csv columns.recipe=optimizer reference=adamw
  kinescale compare runs/demo/runs/RUN_A runs/demo/runs/RUN_B

A and B are two studies' folders, two tables of runs (csv, jsonl, json, parquet or
wandb:entity/project; columns params, tokens, loss, or flops, loss), or two runs' folders. The
answer is the factor of compute at equal loss, over the losses that both reach, with an interval
from resampled runs. It is refused in words where the losses do not overlap, where the interval
holds 1, and where the difference is below the noise.

A single TABLE has a column recipe: each recipe is compared with the reference (default: the first
of the table) by one law of both. An F test says whether one floor and the same exponents hold them;
then the factor is the same at all scales. Else it is told at both ends.

  method=        law: both frontiers L*(C) from a law of (params, tokens); frontier: a power of
                 FLOPs through each budget's best run; shared: one law of both, as of a TABLE
                 (default: law where both tables allow it)
  form=          of both laws (default: each study's own; auto, as kinescale fit chooses, where it
                 has none; of shared laws chinchilla, chinchilla_tied or overtraining)
  validation=same  refuses sides that were validated on other data, by what their folders say: the
                 data set's digest, the runs' configs and counts; differs compares them nevertheless
  columns.X=COL  the tables' column for X (default: each study's own)
  within=        of recipes: fit only runs at most so far above their budget's best (0.05: 5 %)
  level=.9       of the intervals
  resamples=1000 bootstrap refits; seed=0 of them
  out=FILE.json  the result for a tool (--json prints it)
  svg=FILE.svg   both frontiers and the multiplier

A table that lies in no study does not say what it was validated on: both must be the same.
"""

from data.shell import command
from sweeps.compare.command import run


@command(__doc__, prints_only=True, doing="comparing")
def main(argv: list[str]) -> int:
    """Compare, write and print."""
    return run(argv)


if __name__ == "__main__":
    main.run()
