"""Runs in, a law with its frontier, held-out test and warnings out."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from sweeps.fit.__main__ import main
from sweeps.fit.describe import describe
from sweeps.fit.held_out import line_through_budgets
from sweeps.fit.law import fit_law, fit_table
from sweeps.fit.minima.isoflop import isoflop_minima
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.runs import (
    Run,
    best_loss,
    group_budgets,
    interpolated_flops_per_token,
    noise_floor,
)

TRUE = {"E": 0.25, "A": 30.0, "alpha": 0.42, "B": 900.0, "beta": 0.45}
FEW = FitOptions(resamples=100)


def exact(params):
    return 6 * np.asarray(params) + 4e3 * np.sqrt(params)


def true_loss(params, tokens):
    return TRUE["E"] + TRUE["A"] / params ** TRUE["alpha"] + TRUE["B"] / tokens ** TRUE["beta"]


def some_runs(noise=0.004, budgets=4, sizes=5, loss_noise=0.005):
    rng = np.random.default_rng(3)
    runs = []
    for i, flops in enumerate(3e11 * 3.0 ** np.arange(budgets)):
        for params in 5.7e3 * 1.83**i * np.geomspace(0.25, 4, sizes):
            tokens = flops / float(exact(params))
            loss = true_loss(params, tokens) * float(np.exp(noise * rng.standard_normal()))
            runs.append(
                Run(f"b{i}-n{params:.0f}", params, tokens, flops, loss, loss_noise and 0.005 * loss)
            )
    return runs


@pytest.fixture(scope="module")
def law():
    return fit_law(some_runs(), "chinchilla", FEW)


@pytest.mark.heavy
def test_frontier_lies_on_the_exact_iso_flop_line(law):
    for point in law.frontier:
        assert point.params * float(exact(point.params)) / point.params * point.tokens == (
            pytest.approx(point.flops, rel=2e-3)
        )
        for name in ("params", "tokens", "loss"):
            low, high = point.intervals[name]
            assert low <= getattr(point, name) <= high
        assert point.textbook["params"] * point.textbook["tokens"] * 6 == pytest.approx(point.flops)


@pytest.mark.heavy
def test_given_flops_per_token_is_used_as_it_is():
    law = fit_law(some_runs(), options=FitOptions(flops=[1e13], resamples=100), flops_of=exact)
    (point,) = law.frontier
    assert float(exact(point.params)) * point.tokens == pytest.approx(1e13, rel=1e-9)
    assert point.extrapolation_factor == pytest.approx(1e13 / 8.1e12)


def test_planted_loss_on_the_frontier_is_in_its_interval(law):
    for point in law.frontier[:-1]:
        low, high = point.intervals["loss"]
        assert 0.99 * low < true_loss(point.params, point.tokens) < 1.01 * high


def test_minima_are_interior_and_near_the_frontier(law):
    assert [m.interior for m in law.isoflop] == [True] * 4
    for minimum, point in zip(law.isoflop, law.frontier, strict=False):
        assert minimum.params == pytest.approx(point.params, rel=0.35)
    assert 0.3 < law.exponents["approach_2"]["params"] < 0.8


@pytest.mark.heavy
def test_held_out_budget_is_predicted_without_being_seen(law):
    held = law.held_out
    assert held.budget == pytest.approx(8.1e12)
    assert held.extrapolation_factor == pytest.approx(3)
    assert held.inside
    assert abs(held.relative_error) < 0.02
    assert held.relative_error == pytest.approx(held.predicted / held.actual - 1)
    assert held.skill > 0.9
    assert held.noise_floor == pytest.approx(0.005)
    runs = [r for r in some_runs() if r.flops < 8e12]
    spoiled = [
        Run(r.name, r.params, r.tokens, r.flops, 1.2 * r.loss, r.loss_noise)
        for r in some_runs()
        if r.flops > 8e12
    ]
    other = fit_law(runs + spoiled, "chinchilla", FEW).held_out
    assert other.predicted == pytest.approx(held.predicted, rel=1e-9)
    assert other.relative_error == pytest.approx((1 + held.relative_error) / 1.2 - 1)
    assert not other.inside
    assert other.line_predicted == pytest.approx(held.line_predicted, rel=1e-9)
    assert held.line_relative_error == pytest.approx(held.line_predicted / held.actual - 1)
    assert 0.9 < held.line_skill < 1


@pytest.mark.heavy
def test_several_budgets_are_predicted_by_one_fit_that_saw_none_of_them(law):
    seeds = [
        Run(f"{r.name}-again", r.params, r.tokens, r.flops, r.loss * 1.01, r.loss_noise)
        for r in some_runs()
        if r.flops > 2e12
    ]
    runs, options = some_runs() + seeds, FitOptions(resamples=100, held_out=2)
    held = fit_law(runs, "chinchilla", options).held_out
    (near,) = held.nearer
    assert (held.extrapolation_factor, near.extrapolation_factor) == pytest.approx((9, 3))
    spoiled = [r if r.flops < 2e12 else replace(r, loss=1.2 * r.loss) for r in runs]
    other = fit_law(spoiled, "chinchilla", options).held_out
    for test, again in ((held, other), (near, other.nearer[0])):
        assert abs(test.relative_error) < 0.02
        assert again.predicted == pytest.approx(test.predicted, rel=1e-9)
        assert [point["seeds"] for point in test.points] == [2] * 5
        for point, run in zip(test.points, test.runs[:5], strict=True):
            assert point["predicted"] == pytest.approx(run["predicted"], rel=1e-12)
            assert point["actual"] == pytest.approx(1.005 * run["actual"], rel=1e-9)
    assert held.points[0]["interval"][0] > held.runs[0]["interval"][0]  # a mean is quieter
    with pytest.raises(ValueError, match=r"^held_out=0: must be at least 1"):
        FitOptions(held_out=0)
    few = fit_law(some_runs(budgets=2), "chinchilla", options)
    assert few.held_out_reason == ("the runs form 2 compute budgets, and at least 3 are needed")


def test_a_line_through_budgets_is_exact_on_a_power_and_needs_three():
    best = [(c, 0.3 * c**-0.06) for c in (1e10, 3e10, 1e11, 2e11)]
    assert line_through_budgets(best, 4e12) == pytest.approx(0.3 * 4e12**-0.06, rel=1e-12)
    assert line_through_budgets(best[:2], 4e12) is None


def test_skill_is_undefined_where_nothing_improves_beyond_the_noise():
    runs = [
        Run(r.name, r.params, r.tokens, r.flops, 1.0 + 1e-4 * r.loss, 0.01) for r in some_runs()
    ]
    held = fit_law(runs, options=FEW).held_out
    assert held.skill is None
    assert "noise floor" in held.skill_reason


@pytest.mark.heavy
def test_held_out_is_null_with_a_reason_where_too_little_is_left():
    law = fit_law(some_runs(budgets=2, sizes=4), options=FEW)
    assert law.held_out is None
    assert "at least 6 runs" in law.held_out_reason
    assert any("No held-out test" in w for w in law.warnings)


def test_noise_floor_comes_from_replicates_where_larger():
    runs = [Run("a", 1, 1, 6, 1.0, 0.001, "p"), Run("b", 1, 1, 6, math.exp(0.02), 0.001, "p")]
    assert noise_floor(runs) == pytest.approx(0.02 / math.sqrt(2))
    assert noise_floor(runs[:1]) == pytest.approx(0.001)
    assert noise_floor([Run("a", 1, 1, 6, 1.0)]) is None


def test_the_best_of_a_budget_is_a_mean_over_seeds():
    runs = [
        Run("a0", 1, 1, 6, 1.00, cluster="a"),
        Run("a1", 1, 1, 6, 1.04, cluster="a"),
        Run("b0", 2, 1, 12, 1.01, cluster="b"),
        Run("c", 3, 1, 18, 1.50),
    ]
    assert best_loss(runs) == pytest.approx(1.01)
    assert best_loss(runs[:2]) == pytest.approx(1.02)


def test_a_lucky_seed_at_the_end_does_not_refuse_a_minimum():
    sizes = np.array([1e4, 1e4, 1e4, 2e4, 4e4, 8e4, 1.6e5])
    losses = np.array([0.99, 1.05, 1.04, 1.01, 1.0, 1.01, 1.04])
    (found,), _ = isoflop_minima([(1e12, sizes, losses)], 1e-3, lambda n: 6 * n)
    assert found.interior
    assert 2e4 < found.params < 8e4


@pytest.mark.heavy
def test_other_forms_predict_the_held_out_budget_from_the_same_runs(law):
    others = law.held_out.other_forms
    assert set(others) == {"chinchilla_tied", "kaplan", "overtraining", "skaling"}
    again = fit_law(law.runs, "kaplan", FitOptions(resamples=20)).held_out
    assert again.predicted == pytest.approx(others["kaplan"]["predicted"], rel=1e-6)
    assert again.relative_error == pytest.approx(others["kaplan"]["relative_error"], rel=1e-4)
    assert set(again.other_forms) == {"chinchilla", "chinchilla_tied", "overtraining", "skaling"}
    assert again.other_forms["chinchilla"]["predicted"] == pytest.approx(law.held_out.predicted)
    assert f"by other forms: chinchilla_tied {others['chinchilla_tied']['predicted']:.5g} (" in (
        describe(law.to_dict())
    )


def test_budgets_group_by_flops_up_to_rounding():
    rng = np.random.default_rng(0)
    runs = [
        Run(r.name, r.params, r.tokens, r.flops * rng.uniform(0.97, 1.03), r.loss)
        for r in some_runs()
    ]
    assert [len(g) for _, g in group_budgets(runs)] == [5, 5, 5, 5]
    scattered = [Run(str(i), 1, 1, 1.1**i, 1.0) for i in range(30)]
    assert group_budgets(scattered) == []


def test_flops_per_token_is_interpolated_between_sizes_and_continued():
    cost = interpolated_flops_per_token(some_runs())
    sizes = np.array(sorted({r.params for r in some_runs()}))
    np.testing.assert_allclose(cost(sizes), exact(sizes), rtol=1e-12)
    for beyond in (sizes[0] / 3, 3 * sizes[-1]):
        np.testing.assert_allclose(cost(np.array([beyond])), exact(beyond), rtol=0.1)


def write_table(path, runs, header="name,params,tokens,flops,loss,loss_noise", extra=()):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        for r in runs:
            writer.writerow([r.name, r.params, r.tokens, r.flops, r.loss, r.loss_noise])
        writer.writerows(extra)
    return path


@pytest.mark.heavy
def test_a_table_gives_the_same_law_as_its_runs(law, tmp_path):
    path = write_table(tmp_path / "runs.csv", some_runs())
    found = fit_table(path, "chinchilla", FEW)
    assert found["coefficients"] == pytest.approx(law.fit.coefficients, rel=1e-9)
    keys = "form coefficients objective intervals starts identified frontier isoflop held_out"
    assert set((keys + " residuals warnings excluded").split()) <= set(found)


@pytest.mark.heavy
def test_command_writes_json_and_prints_a_table(tmp_path, capsys):
    path = write_table(tmp_path / "runs.csv", some_runs())
    out = tmp_path / "deep" / "law.json"
    arguments = [f"table={path}", "form=chinchilla", f"out={out}", "flops=[1e13,2e13]"]
    assert main([*arguments, "resamples=60", "level=.8"]) == 0
    law = json.loads(out.read_text())
    assert [p["flops"] for p in law["frontier"]] == [1e13, 2e13]
    assert law["level"] == 0.8
    assert list(out.parent.iterdir()) == [out]
    printed = capsys.readouterr().out
    assert "80 % interval" in printed
    assert "Held-out budget 8.1e+12" in printed


@pytest.mark.heavy
def test_columns_are_mapped_and_excluded_rows_listed(tmp_path):
    extra = [["late", "1e4", "1e7", "6e11", "", "", "true", "killed by hand"]]
    header = "name,N,D,flops,val,loss_noise,excluded,reason"
    path = write_table(tmp_path / "t.csv", some_runs(), header, extra)
    found = fit_table(path, options=FEW, columns={"params": "N", "tokens": "D", "loss": "val"})
    assert found["excluded"] == [{"name": "late", "reason": "killed by hand"}]
    assert len(found["residuals"]) == 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["form=chinchilla"], "table=: is required"),
        (["table=x.csv", "colour=red"], "must be key=value"),
        (["tabel=x.csv"], "tabel=x.csv: must be key=value with a known key. Did you mean table?"),
        (["table=x.csv", "seed=a"], "cannot be read"),
        (["table=x.csv", "seed=1", "seed=2"], "given twice"),
        (["table=no.csv"], "is not a file"),
        (["table=no.csv", "form=__import__('os')"], "is not known"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(arguments, said, capsys):
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_help_teaches_with_an_example(capsys):
    assert main(["--help"]) == 0
    assert "kinescale fit table=" in capsys.readouterr().out


@pytest.mark.heavy
def test_description_holds_for_a_law_with_nothing_known(tmp_path):
    runs = [Run(r.name, r.params, r.tokens, r.flops, r.loss) for r in some_runs(budgets=2)]
    text = describe(fit_law(runs, options=FEW).to_dict())
    assert "Held-out test: none" in text


def test_runs_that_share_no_compute_are_held_out_by_their_number(tmp_path):
    rng = np.random.default_rng(0)
    params, tokens = 10 ** rng.uniform(5, 7, 20), 10 ** rng.uniform(8, 9, 20)
    runs = [
        Run(f"r{i}", float(n), float(d), float(6 * n * d), float(1.7 + 9 / n**0.3 + 40 / d**0.3))
        for i, (n, d) in enumerate(zip(params, tokens, strict=True))
    ]
    law = fit_law(runs, "chinchilla", FEW).to_dict()
    text = describe(law)
    assert "The runs form no compute budgets" in text
    assert "Held-out runs of most compute, up to " in text
    assert "Held-out budget" not in text
    shared = describe(fit_law(some_runs(), "chinchilla", FEW).to_dict())
    assert "Held-out budget " in shared
