"""Impossible tables are refused by name, and doubtful laws say why in words."""

import csv

import numpy as np
import pytest

from sweeps.fit.law import fit_law, fit_table
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.runs import Run

FEW = FitOptions(resamples=60)


def runs_of(loss, budgets=4, sizes=4, ratio=3.0):
    runs = []
    for i, flops in enumerate(3e11 * ratio ** np.arange(budgets)):
        for params in 6e3 * ratio ** (0.55 * i) * np.geomspace(0.3, 3.3, sizes):
            tokens = flops / 6 / params
            runs.append(Run(f"{i}-{params:.0f}", params, tokens, flops, loss(params, tokens)))
    return runs


def usual(params, tokens):
    return 0.25 + 30 / params**0.42 + 900 / tokens**0.45


def table(tmp_path, header="params,tokens,loss", rows=None, change=()):
    rows = rows or [[r.params, r.tokens, r.loss] for r in runs_of(usual)]
    for row, column, value in change:
        rows[row][column] = value
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def warnings_of(runs, options=FEW):
    return "\n".join(fit_law(runs, options=options).warnings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"header": "params,tokens,perplexity"}, "loss=loss: not a column"),
        ({"change": [(2, 0, "nan")]}, "params='nan' in line 4: must be finite"),
        ({"change": [(2, 1, "-5")]}, "tokens='-5' in line 4: must be finite and above 0"),
        ({"change": [(0, 2, "-1")]}, "loss='-1' in line 2"),
        ({"change": [(1, 0, "")]}, "params='' in line 3: is blank"),
        ({"change": [(1, 2, "2,5")]}, "must be a number"),
        ({"rows": [[1e4, 1e7, 2.0], [2e4, 1e7, 1.9], [3e4, 2e7, 1.8]]}, "runs=3: form=chinchilla"),
        ({"header": "loss,tokens,params"}, "look swapped"),
    ],
)
def test_an_impossible_table_is_refused_by_name(tmp_path, changes, said):
    with pytest.raises(ValueError) as caught:
        fit_table(table(tmp_path, **changes), options=FEW)
    assert said in str(caught.value)


def test_a_table_without_rows_or_with_a_wrong_flag_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("params,tokens,loss\n")
    with pytest.raises(ValueError, match="no rows"):
        fit_table(path)
    path.write_bytes(b"params,tokens,loss\n\xff\xfe,1,2\n")
    with pytest.raises(ValueError, match="UTF-8"):
        fit_table(path)
    path.write_text("params,tokens,loss,excluded\n1e4,1e6,2,perhaps\n")
    with pytest.raises(ValueError, match="true or false"):
        fit_table(path)


@pytest.mark.parametrize(
    "options",
    [
        {"level": 1.5}, {"resamples": 0}, {"seed": -1}, {"delta": 0.0}, {"residual": "cubic"},
        {"noise": -1.0}, {"noise": np.nan}, {"flops": [-1.0]}, {"sizes": [1e6, 0.0]},
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_named(options):
    (key,) = options
    with pytest.raises(ValueError, match=f"{key}="):
        FitOptions(**options)


def test_a_fixed_coefficient_or_a_count_of_rows_that_cannot_be_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"fixed\.E=: must be finite"):
        FitOptions(fixed={"E": np.inf})
    with pytest.raises(ValueError, match="drop_highest=-1: must not be negative"):
        fit_table(table(tmp_path), drop_highest=-1)


def test_a_form_of_other_columns_is_no_law_of_runs():
    with pytest.raises(ValueError, match="form=frontier: is no law of params and tokens"):
        fit_law(runs_of(usual), "frontier")


@pytest.mark.heavy
def test_diverged_runs_are_left_out_with_the_reason():
    bad = [Run("nan", 1e5, 1e7, 6e12, float("nan")), Run("high", 1e5, 1e7, 6e12, 9.0)]
    law = fit_law(runs_of(usual) + bad, options=FEW)
    assert [e["name"] for e in law.excluded] == ["nan", "high"]
    assert law.excluded[1]["reason"].startswith("diverged: loss 9")
    assert len(law.runs) == 16
    assert any("Run high is excluded" in w for w in law.warnings)


@pytest.mark.heavy
def test_a_clean_law_is_identified_and_warns_only_of_reach():
    law = fit_law(runs_of(usual), options=FEW)
    assert all(v["ok"] for v in law.identified.values()), law.identified
    assert not [w for w in law.warnings if "not identified" in w or "converge" in w]


def test_one_size_and_few_budgets_are_said():
    runs = [
        Run(str(i), 1e5, d, 6e5 * d, float(usual(1e5, d)))
        for i, d in enumerate(np.geomspace(1e6, 1e8, 8))
    ]
    law = fit_law(runs, options=FEW)
    text = "\n".join(law.warnings)
    assert "All runs have one size" in text
    assert "needs at least 3" in text
    assert not law.identified["A"]["ok"]
    assert not law.identified["alpha"]["ok"]
    assert "1 distinct values of params" in law.identified["alpha"]["reason"]


@pytest.mark.heavy
def test_a_law_without_a_floor_says_e_is_near_zero():
    law = fit_law(runs_of(lambda n, d: 30 / n**0.42 + 900 / d**0.45), options=FEW)
    assert not law.identified["E"]["ok"]
    assert "near 0" in law.identified["E"]["reason"]


@pytest.mark.heavy
def test_noise_alone_identifies_nothing():
    rng = np.random.default_rng(0)
    law = fit_law(runs_of(lambda n, d: 1 + 0.01 * rng.standard_normal()), "chinchilla", FEW)
    assert not law.identified["alpha"]["ok"]
    assert not law.identified["beta"]["ok"]


@pytest.mark.heavy
def test_losses_that_rise_are_named():
    text = warnings_of(runs_of(lambda n, d: 0.1 * n**0.1 * d**0.05))
    assert "Loss rises with params and with tokens" in text


@pytest.mark.heavy
def test_duplicates_are_counted():
    runs = runs_of(usual)
    assert "Exact duplicates (params, tokens, loss), 1 run" in warnings_of([*runs, runs[3]])


@pytest.mark.heavy
def test_residuals_above_the_noise_are_said():
    rng = np.random.default_rng(0)
    runs = [
        Run(
            r.name, r.params, r.tokens, r.flops, r.loss * np.exp(0.02 * rng.standard_normal()), 1e-3
        )
        for r in runs_of(usual)
    ]
    assert "the form or the recipe misses something" in warnings_of(runs)


@pytest.mark.heavy
def test_far_extrapolation_is_told_in_times():
    text = warnings_of(runs_of(usual), FitOptions(flops=[8.1e14], resamples=60))
    assert "100x beyond the largest fitted run" in text
    assert "33 times further than the held-out test" in text
