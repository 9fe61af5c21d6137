"""What is chosen where no form is named, and what its intervals promise."""

import dataclasses

import numpy as np
import pytest

from sweeps.fit.forecast.agreement import warn_agreement
from sweeps.fit.forecast.choice import AUTO, BOTH, choose, forecaster_of
from sweeps.fit.forecast.forecaster import Forecaster, earned
from sweeps.fit.forecast.ladder import Ladder
from sweeps.fit.forecast.rolling import NEARBY
from sweeps.fit.law import fit_law
from sweeps.fit.minima.frontier import six_n
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.runs import Run, group_budgets

FEW = FitOptions(resamples=60)


def chinchilla(params, tokens):
    return 1.69 + 406.4 / params**0.34 + 410.7 / tokens**0.28


def warming(params, tokens):
    """The same law, its first budgets made worse by a warm-up of fixed length."""
    return chinchilla(params, tokens) * (1 + 0.4 * (6 * params * tokens / 1e18) ** -0.8)


def table(law, noise=0.001, budgets=7, seed=0, sizes=7):
    rng = np.random.default_rng(seed)
    runs = []
    for flops in np.geomspace(1e18, 1e18 * 3 ** (budgets - 1), budgets):
        grid = np.geomspace(1e6, 1e12, 4000)
        best = grid[np.argmin(law(grid, flops / 6 / grid))]
        for params in best * np.geomspace(0.3, 3.0, sizes):
            tokens = flops / 6 / params
            loss = law(params, tokens) * np.exp(noise * rng.standard_normal())
            runs.append(Run("", params, tokens, flops, float(loss)))
    return runs


def least(law, flops):
    grid = np.geomspace(1e6, 1e13, 20000)
    return float(law(grid, flops / 6 / grid).min())


@pytest.fixture(scope="module")
def warm():
    return fit_law(table(warming), AUTO, FEW)


@pytest.mark.heavy
def test_where_no_form_fits_the_nearest_budgets_tell_the_loss(warm):
    assert warm.choice.by == NEARBY
    assert all(c.structure < 0.05 for c in warm.choice.candidates.values())
    size = {record.method: record.size for record in warm.choice.records}
    assert warm.choice.form == min(warm.choice.candidates, key=size.__getitem__)
    top = warm.frontier[-1]
    truth = least(warming, top.flops)
    assert top.loss == pytest.approx(truth, rel=0.008)
    assert top.intervals["loss"][0] < truth < top.intervals["loss"][1]
    assert abs(top.loss_of_form / truth - 1) > abs(top.loss / truth - 1)
    assert set(top.members)
    assert min(top.members.values()) <= top.loss <= max(top.members.values())


@pytest.mark.heavy
def test_the_held_out_budget_has_no_part_in_the_choice(warm):
    runs = table(warming)
    last = max(r.flops for r in runs)
    moved = [dataclasses.replace(r, loss=r.loss * (0.9 if r.flops == last else 1)) for r in runs]
    other = fit_law(moved, AUTO, FEW)
    assert other.held_out.predicted == warm.held_out.predicted
    assert other.held_out.interval == warm.held_out.interval
    assert warm.held_out.inside
    assert not other.held_out.inside


@pytest.mark.heavy
def test_the_record_of_every_method_stands_in_the_json(warm):
    found = warm.to_dict()
    methods = {row["method"]: row for row in found["rolling_origin"]}
    assert {NEARBY, "chinchilla", "skaling", "E + A C^-a, minima", "A C^-a, bests"} <= set(methods)
    assert methods[NEARBY]["mean_absolute_error"] < methods["chinchilla"]["mean_absolute_error"]
    assert found["choice"]["loss_by"] == NEARBY
    assert found["form"] in found["choice"]["forms"]


@pytest.mark.heavy
def test_a_form_that_fits_tells_the_loss_with_the_nearest_budgets():
    runs = table(chinchilla, noise=0.0002)
    choice = choose(runs, group_budgets(runs), six_n, FEW)
    assert choice.by == BOTH
    both = next(r for r in choice.records if r.method == f"{NEARBY} and {choice.form}")
    assert np.array_equal(both.past, choice.past)
    assert both.size < next(r for r in choice.records if r.method == NEARBY).size
    assert choice.candidates[choice.form].structure >= 0.05
    weights = choice.weights()
    assert weights[choice.form] == max(weights.values())
    assert sum(weights.values()) == pytest.approx(1)


def test_without_budgets_the_form_of_least_bic_is_taken():
    rng = np.random.default_rng(1)
    runs = [
        Run("", n, d, 6 * n * d, float(chinchilla(n, d) * np.exp(0.001 * rng.standard_normal())))
        for n in np.geomspace(1e7, 1e9, 5)
        for d in np.geomspace(1e9, 1e11, 5) * 1.7
    ]
    choice = choose(runs, [], six_n, FEW)
    assert choice.forecaster is None
    assert choice.last == max(run.flops for run in runs)
    assert choice.by == choice.form
    assert choice.form in ("chinchilla", "skaling")
    assert choice.candidates["kaplan"].bic > choice.candidates["chinchilla"].bic + 10


def test_ladders_without_minima_are_no_ladders():
    runs = [r for r in table(chinchilla) if r.params > 0]
    ends = [
        run
        for flops in sorted({r.flops for r in runs})
        for run in sorted((r for r in runs if r.flops == flops), key=lambda r: r.params)[:3]
    ]
    assert forecaster_of(runs, group_budgets(runs), FEW) is not None
    assert forecaster_of(ends, group_budgets(ends), FEW) is None


def test_a_past_error_widens_by_its_size_and_fades_with_its_age():
    late = np.array([[3e20, 1e21, 0.01]])
    early = np.array([[1e18, 3e18, 0.01]])
    reach = np.log(3.0)
    assert earned(late, 1e21, 2 * reach) == pytest.approx(2 * earned(late, 1e21, reach))
    assert earned(2 * late - [[3e20, 1e21, 0]], 1e21, reach) > 1.3 * earned(late, 1e21, reach)
    assert earned(early, 1e21, reach) == pytest.approx(
        earned(np.zeros((0, 3)), 1e21, reach), rel=0.02
    )
    assert earned(late, 1e21, 0.0) == 0.0


def test_members_that_disagree_widen_where_no_past_speaks():
    three = Ladder(
        compute=np.array([1e18, 3e18, 9e18]), loss=np.array([4.0, 3.5, 3.2]),
        error=np.full(3, 1e-4), best=np.array([4.0, 3.5, 3.2]), interior=np.ones(3),
    )  # fmt: skip
    straight = dataclasses.replace(three, loss=4.0 * np.array([1.0, 0.9, 0.81]))
    wide = Forecaster(three, 0.9, 50, 0).at(8e19)
    narrow = Forecaster(straight, 0.9, 50, 0).at(8e19)
    assert np.ptp(np.log(wide.interval)) > 1.5 * np.ptp(np.log(narrow.interval))
    assert Forecaster(three, 0.5, 50, 0).at(8e19).interval[1] < wide.interval[1]


def test_exponents_hold_the_spread_of_forms_and_contradictions_are_said(warm):
    spread = warm.exponents["spread"]
    low, high = spread["interval"]
    assert low <= min(spread["by_form"].values())
    assert high >= max(spread["by_form"].values())
    assert low <= warm.exponents["approach_3"]["interval"][0]
    said = list(
        warn_agreement(
            {
                "approach_2": {"params": 0.38, "interval": (0.31, 0.45)},
                "approach_3": {"params": 0.8, "interval": (0.6, 0.84)},
                "approach_1": {"params": None, "reason": "few"},
            }
        )
    )
    assert len(said) == 1
    assert "C^0.38" in said[0]
    assert "C^0.80" in said[0]
    assert not list(warn_agreement({"approach_2": {"params": 0.5, "interval": (0.4, 0.6)}}))


def test_runs_far_above_their_budgets_best_can_be_left_out():
    runs = table(chinchilla)
    law = fit_law(runs, "chinchilla", FitOptions(resamples=20, within=0.01))
    assert len(law.runs) + len(law.excluded) == len(runs)
    assert law.excluded
    assert "within=0.01" in law.excluded[0]["reason"]
    best = {f: min(r.loss for r in runs if r.flops == f) for f in {r.flops for r in runs}}
    assert all(r.loss <= 1.01 * best[r.flops] for r in law.runs)
    with pytest.raises(ValueError, match=r"within=0\.01: needs runs that share compute"):
        fit_law(
            [Run("", n, d, 6 * n * d, float(chinchilla(n, d))) for n, d in
             zip(np.geomspace(1e7, 1e9, 12), np.geomspace(1e9, 3e11, 12) , strict=True)],
            "chinchilla", FitOptions(within=0.01),
        )  # fmt: skip
    with pytest.raises(ValueError, match="within=0"):
        FitOptions(within=0.0)
