"""Learning rate and batch from one table of runs: both laws, and the regret of following them."""

import pytest

from sweeps.fit.describe import describe
from sweeps.fit.law import fit_table
from sweeps.fit.options import FitOptions

LR, BATCH = {"c": 2.0, "a": 0.4, "b": -0.1}, {"c": 2e-3, "b": -0.5}


def table(tmp_path, both=True):
    """Return runs over a grid of both knobs at nine (params, tokens), bowls about their optima."""
    lines = ["params,tokens,lr,batch,loss" if both else "params,tokens,lr,loss"]
    for params in (1e8, 3e8, 1e9):
        for tokens in (2e9, 8e9, 3.2e10):
            best_lr = LR["c"] / (params ** LR["a"] * tokens ** LR["b"])
            best_batch = BATCH["c"] / tokens ** BATCH["b"]
            for i in range(-3, 4):
                for j in range(-3, 4) if both else (0,):
                    loss = 3 * (1 + 0.01 * (i - 0.2) ** 2 + 0.02 * (j + 0.1) ** 2)
                    lr = best_lr * 2 ** (0.5 * (i - 0.2))
                    batch = [best_batch * 2 ** (0.5 * (j + 0.1))] if both else []
                    lines.append(",".join(map(str, [params, tokens, lr, *batch, loss])))
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("form", ["lr", "batch"])
def test_one_call_gives_both_optima_with_intervals_and_no_regret_where_laws_hold(tmp_path, form):
    law = fit_table(table(tmp_path), form, FitOptions(resamples=50))
    found = law["recipe"]
    assert (found["lr"]["form"], found["batch"]["form"], found["points"]) == ("lr", "batch", 9)
    # The vertex is of log loss, whose bowl is not quite a quadratic.
    for knob, planted in (("lr", LR), ("batch", BATCH)):
        for name in planted.keys() - {"c"}:
            assert found[knob]["coefficients"][name] == pytest.approx(planted[name], abs=1e-6)
            low, high = found[knob]["intervals"][name]
            assert low - 1e-6 <= planted[name] <= high + 1e-6
    assert found["regret"] == {"mean": pytest.approx(0, abs=1e-12), "worst": pytest.approx(0)}
    assert law["coefficients"] == pytest.approx(found[form]["coefficients"], rel=1e-6)
    assert "Learning rate and batch together, 9 points:" in describe(law)


def test_regret_is_what_the_chosen_run_has_above_the_least(tmp_path):
    path = table(tmp_path)
    header, *rows = path.read_text().split()
    # Of one point the optimum lies two steps of lr away: laws of the others choose run i = 0 there.
    cells = [row.split(",") for row in rows]
    there = [c for c in cells if (float(c[0]), float(c[1])) == (3e8, 8e9)]
    for row in there:
        row[2] = str(float(row[2]) * 2)
    path.write_text("\n".join([header, *(",".join(c) for c in cells)]) + "\n")
    regret = fit_table(path, "lr", FitOptions(resamples=5))["recipe"]["regret"]
    expected = (1 + 0.01 * 2.2**2) / (1 + 0.01 * 0.2**2) - 1
    assert regret["worst"] == pytest.approx(expected, rel=0.05)
    assert regret["mean"] >= regret["worst"] / 9


def test_a_table_of_one_knob_has_no_joint_recipe(tmp_path):
    assert "recipe" not in fit_table(table(tmp_path, both=False), "lr", FitOptions(resamples=5))
