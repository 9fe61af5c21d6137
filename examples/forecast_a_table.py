"""Forecast from anybody's table of runs: choose a law, look at it, ask beyond the runs.

python examples/forecast_a_table.py [TABLE [PICTURE.svg]]; each `# %%` is a cell of a notebook.
"""

# %% A table: a path (csv, jsonl, json, parquet), a DataFrame, a list of dicts, wandb:entity/project
import sys
from pathlib import Path

from kinescale import FitOptions, law_of_table

COMMITTED = Path(__file__).parents[1] / "docs/studies/demo/runs.csv"
table = sys.argv[1] if len(sys.argv) > 1 else COMMITTED
law = law_of_table(table, options=FitOptions(resamples=200))

# %% What was chosen, and which law would have foreseen the budgets so far
print(f"{law.fit.form.name}: {law.choice.reason}")
for record in law.choice.records[:5]:
    row = record.to_dict()
    if row["forecasts"]:
        print(f"  {row['method']:<28} errs by {100 * row['mean_absolute_error']:.2f} %")

# %% Ten times beyond the largest run
beyond = law.at(10 * max(run.flops for run in law.runs))
low, high = beyond.intervals["loss"]
print(f"{beyond.flops:.3g} FLOPs: loss {beyond.loss:.4f} ({low:.4f} to {high:.4f})")
print(f"  by {beyond.params:.3g} parameters, {beyond.tokens / beyond.params:.3g} tokens for each")

# %% The picture (in a notebook, `law` alone shows it) and every doubt
if len(sys.argv) > 2:
    law.plot(sys.argv[2])
for warning in law.warnings:
    print(f"  - {warning}")
