"""Read a finished study from its files: which size won each budget, and what the law claims.

python examples/read_a_study.py [FOLDER]
"""

import csv
import json
import sys
from pathlib import Path

COMMITTED = Path(__file__).parents[1] / "docs/studies/cpu_isoflop"
study = Path(sys.argv[1]) if len(sys.argv) > 1 else COMMITTED

with (study / "runs.csv").open(encoding="utf-8", newline="") as file:
    runs = [row for row in csv.DictReader(file) if row["excluded"] == "0"]
law = json.loads((study / "law.json").read_text(encoding="utf-8"))

print(f"{len(runs)} runs, {law['equation']}")
for budget in sorted({float(run["budget"]) for run in runs}):
    tried = [run for run in runs if float(run["budget"]) == budget]
    best = min(tried, key=lambda run: float(run["loss"]))
    size, loss = int(best["params"]), float(best["loss"])
    print(f"{budget:8.3g} FLOPs: {len(tried):2} runs, best {size:7,} parameters, loss {loss:.4f}")

held = law["held_out"]
print(
    f"held out: predicted {held['predicted']:.4f}, measured {held['actual']:.4f} "
    f"({100 * held['relative_error']:+.2f} %), noise floor {100 * held['noise_floor']:.1f} %"
)
for warning in law["warnings"]:  # a law says itself where it is none
    print(f"  - {warning}")
