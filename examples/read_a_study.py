"""Read a finished study from its files: which size won each budget, and what the law claims.

python examples/read_a_study.py [FOLDER]
"""

import sys
from pathlib import Path

from kinescale import load_study

COMMITTED = Path(__file__).parents[1] / "docs/studies/cpu_isoflop"
study = load_study(sys.argv[1] if len(sys.argv) > 1 else COMMITTED)
law = study.law
if law is None:
    sys.exit(f"{study.name} has no law")

print(f"{study.name}: {len(study.runs)} runs, {law['equation']}")
for budget in sorted({run["budget"] for run in study.runs}):
    tried = [run for run in study.runs if run["budget"] == budget]
    best = min(tried, key=lambda run: run["loss"])
    size, loss = int(best["params"]), best["loss"]
    print(f"{budget:8.3g} FLOPs: {len(tried):2} runs, best {size:7,} parameters, loss {loss:.4f}")

held = law["held_out"]
print(
    f"held out: predicted {held['predicted']:.4f}, measured {held['actual']:.4f} "
    f"({100 * held['relative_error']:+.2f} %), noise floor {100 * held['noise_floor']:.1f} %"
)
for warning in law["warnings"]:  # a law says itself where it is none
    print(f"  - {warning}")
