"""Fit a law to a table of runs: the best size at a budget, its interval, and every doubt.

python examples/fit_a_table.py [FILE.csv [FORM]]
"""

import sys
from pathlib import Path

from kinescale import FitOptions, law_of_table

COMMITTED = Path(__file__).parents[1] / "docs/studies/cpu_isoflop/runs.csv"
path = Path(sys.argv[1]) if len(sys.argv) > 1 else COMMITTED
form = sys.argv[2] if len(sys.argv) > 2 else "kaplan"

law = law_of_table(path, form, FitOptions(resamples=200))

print(law.fit.form.equation)
for name, value in law.fit.coefficients.items():
    print(f"  {name} = {value:.4g}")
for point in law.frontier:
    low, high = point.intervals["params"]
    print(
        f"{point.flops:8.3g} FLOPs: N* {point.params:8.3g} ({low:.3g} to {high:.3g}), "
        f"loss {point.loss:.4f}, {point.extrapolation_factor:.2g} times the largest run"
    )
for warning in law.warnings:
    print(f"  - {warning}")
