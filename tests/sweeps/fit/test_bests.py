"""A law of compute alone takes each budget's best point by itself."""

import numpy as np
import pytest

from sweeps.fit.law import fit_table
from sweeps.fit.options import FitOptions

FEW = FitOptions(resamples=20)
BUDGETS = (1e18, 4e18, 1.6e19, 6.4e19, 2.56e20)


def rows(nominal):
    """Return an isoFLOP table whose bests are E + A C^-alpha, each point with a lucky seed."""
    lines = ["params,tokens,loss,cluster" + ",budget" * nominal]
    for compute in BUDGETS:
        best = 1.8 + 900.0 / compute**0.16
        for step in (-2, -1, 0, 1, 2):
            params = 1e8 * np.sqrt(compute / 1e18) * 2.0**step
            for seed in (-1, 1):
                # The mean over seeds is least at step 0, the least single run is not there.
                spread = 0.03 * seed if step == 1 else 0.0
                loss = best + 0.01 * step**2 + spread
                cells = [params, compute / 6 / params, loss, f"{compute:g} {step}"]
                lines.append(",".join(str(c) for c in cells + [compute] * nominal))
    return lines


@pytest.mark.parametrize("nominal", [False, True])
@pytest.mark.parametrize("form", ["frontier", "frontier_no_floor"])
def test_an_isoflop_table_is_fitted_at_its_budgets_best_points(tmp_path, form, nominal):
    table = tmp_path / "runs.csv"
    table.write_text("\n".join(rows(nominal)) + "\n")
    found = fit_table(table, form, FEW)
    bare = tmp_path / "bests.csv"
    least = [f"{c},{1.8 + 900.0 / c**0.16}" for c in BUDGETS]
    bare.write_text("\n".join(["flops,loss", *least]) + "\n")
    by_hand = fit_table(bare, form, FEW)
    assert found["coefficients"] == pytest.approx(by_hand["coefficients"], rel=1e-6)
    assert [row["loss"] for row in found["residuals"]] == pytest.approx(
        [1.8 + 900.0 / c**0.16 for c in BUDGETS]
    )
    said = f"form={form} is of best losses: 50 runs are taken as the best points of 5 budgets."
    assert said in found["warnings"]
    assert not any("best losses" in warning for warning in by_hand["warnings"])


def test_a_best_at_the_end_of_its_sizes_is_said(tmp_path):
    kept = [line for line in rows(False) if not line.endswith((" 1", " 2"))]
    assert len(kept) == 31
    table = tmp_path / "runs.csv"
    table.write_text("\n".join(kept) + "\n")
    (said,) = [w for w in fit_table(table, "frontier", FEW)["warnings"] if "best losses" in w]
    assert "At 1e+18, 4e+18, 1.6e+19, 6.4e+19, 2.56e+20 FLOPs the best size is at an end" in said
