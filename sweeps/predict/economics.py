"""What a target loss costs by a fitted law, on today's machines and in later years.

usage: kinescale economics law=FILE.json [key=value ...] [--json]

examples:
  kinescale economics law=docs/studies/cpu_isoflop/law.json machines=[cpu2,h100]
  kinescale economics law=runs/mine/law.json losses=[0.18,0.15] out=economics.html
  kinescale economics law=runs/mine/law.json mfu=.4 price_per_year=0 algorithm_per_year=0

  losses=[...]              targets; else the law's at 1, 10 and 100 times its largest budget
  machines=[...]            a100, b200, cpu2, h100, h200: launch/conf/machine holds prices
  mfu=.4                    share of the peak; else estimated from the model's width
  price_per_year=-.15       change of the price of a device-hour
  efficiency_per_year=.25   change of the FLOP/s that a device-hour gives
  algorithm_per_year=.3     change of what a FLOP is worth in loss
  years=5 out=FILE.html     how far to look, and a page with a figure

All keys: sweeps/predict/price.py. The yearly changes are assumptions, not measurements. A law does
not know what lies beyond its runs: how far a target lies beyond them is printed beside it.
"""

import json
import sys
from pathlib import Path

from data.shell import command


@command(__doc__, prints_only=True, doing="finding the costs")
def main(argv: list[str]) -> int:
    """Parse the command line and print the costs; return the exit status."""
    words = [word for word in argv if word != "--json"]
    return _run(words, "--json" in argv)


def _run(words: list[str], as_json: bool) -> int:
    from launch.planner.machine import load_machine
    from sweeps.fit.saved import read_law
    from sweeps.predict.price import PriceConfig, costs, factor_of_year, frontier_of
    from trainer.compose import parse_as

    if unknown := [word for word in words if word.startswith("--")]:
        raise ValueError(f"{unknown[0]}: unknown flag. Use --json or --help.")
    settings = parse_as(PriceConfig, words)
    settings.check()
    frontier = frontier_of(read_law(Path(settings.law)), settings.flops_per_param_token)
    found = costs(frontier, [load_machine(name) for name in settings.machines], settings)
    factors = [factor_of_year(settings, year) for year in range(settings.years + 1)]
    if settings.out:
        from sweeps.predict.show_price import write_page

        write_page(Path(settings.out), frontier, settings, found, factors)
        print(f"wrote {settings.out}", file=sys.stderr)
    if as_json:
        rows = [vars(cost) | {"by_year": [cost.money * f for f in factors]} for cost in found]
        print(json.dumps({"assumed": vars(settings), "costs": rows}, indent=1))
    else:
        from sweeps.predict.show_price import show_costs

        show_costs(frontier, settings, found, factors)
    return 0


if __name__ == "__main__":
    main.run()
