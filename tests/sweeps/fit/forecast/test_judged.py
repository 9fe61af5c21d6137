"""What a form is judged by where none is named: BIC, structure, its record."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import f_oneway

from sweeps.fit.forecast.choice import BOTH, Candidate, Choice, _bic, _by, _fit, _structure
from sweeps.fit.forecast.ladder import Ladder
from sweeps.fit.forecast.rolling import NEARBY, Record, rolling_origin
from sweeps.fit.forecast.tenths import rolling_tenths
from sweeps.fit.forms.catalogue import CHINCHILLA
from sweeps.fit.minima.frontier import six_n
from sweeps.fit.optimum.solve import fit_runs
from sweeps.fit.options import DEFAULTS
from sweeps.fit.rows.runs import Run, columns_of


def runs_of(rows=40, noise=0.002, bend=0.0):
    """Return runs that share no compute, by compute."""
    rng = np.random.default_rng(3)
    runs = []
    for flops in np.sort(1e18 * 3.0 ** rng.uniform(0, 6, rows)):
        params = np.sqrt(flops / 120) * np.exp(rng.uniform(-1.2, 1.2))
        tokens = flops / 6 / params
        loss = 1.7 + 400 / params**0.34 + 410 / tokens**0.28
        loss *= np.exp(noise * rng.standard_normal() - bend * np.log(flops / 1e18) ** 2)
        runs.append(Run("", float(params), float(tokens), float(flops), float(loss)))
    return runs


@pytest.fixture(scope="module")
def fit():
    return fit_runs(CHINCHILLA, runs_of())


def test_forms_weigh_by_their_bic_and_alike_where_none_fits(fit):
    candidates = {str(bic): Candidate(fit, bic, 0.5) for bic in (10.0, 12.0, 16.5)}
    both = Choice("10.0", BOTH, "", candidates, [], 1e20, np.zeros((0, 3)), None)
    share = 1 / (1 + np.exp(-1))
    assert list(both.weights().values()) == pytest.approx([share, 1 - share, 0])
    nearby = dataclasses.replace(both, by=NEARBY)
    assert list(nearby.weights().values()) == pytest.approx([1 / 3] * 3)


def test_bic_is_that_of_laplace_residuals_with_the_correction_for_few_runs(fit):
    mean = np.mean(np.abs(fit.residuals))
    assert _bic(fit) == pytest.approx(80 * np.log(mean) + 5 * np.log(40) + 2 * 5 * 6 / 34)


def test_structure_is_an_f_test_of_the_runs_near_each_budget_s_best(fit):
    rng = np.random.default_rng(0)
    residuals = 0.01 * rng.standard_normal(40)
    target = np.tile([3.0, 3.1, 3.14, 3.16], 10)  # the last lies 5.3 % above the best
    target[36:] = [2.0, 3.0, 3.0, 3.0]  # a budget of which one run is near
    near = np.arange(40).reshape(10, 4)[:9, :3]
    residuals -= residuals[near].mean()
    moved = dataclasses.replace(fit, residuals=residuals, target=target)
    budgets = [(float(i), np.arange(4 * i, 4 * i + 4)) for i in range(10)]
    assert _structure(moved, budgets) == pytest.approx(f_oneway(*residuals[near]).pvalue)
    assert _structure(moved, budgets[9:]) is None


def test_a_form_without_a_record_or_a_test_leaves_the_loss_to_the_budgets():
    known, none = (Record("kaplan", errors) for errors in ([(1e18, 3e18, 0.01)], []))
    assert _by(0.5, known, known, known)[0] == BOTH
    assert _by(None, known, known, known)[0] == NEARBY
    assert _by(0.04, known, known, known)[0] == NEARBY
    assert _by(0.5, none, known, none) == (NEARBY, "kaplan cannot be fitted to fewer budgets")


def test_a_form_is_compared_from_three_runs_beyond_its_coefficients():
    runs = runs_of(8)
    assert _fit("chinchilla", runs, DEFAULTS) is not None
    assert _fit("chinchilla", runs[:7], DEFAULTS) is None


def test_a_tenth_is_foreseen_from_the_runs_of_less_compute_at_its_best_run():
    runs = runs_of(bend=0.003)
    (record,) = rolling_tenths(runs, DEFAULTS, ["chinchilla"])
    tenths = [runs[i : i + 4] for i in range(0, 40, 4)]
    ends = {tenths[count - 1][-1].flops for count in range(5, 10)}
    best = {min(tenth, key=lambda run: run.loss).flops for tenth in tenths[5:]}
    asked = {(end, at) for end in ends for at in best if at >= 2 * end}
    assert {error[:2] for error in record.errors} == asked
    known = fit_runs(CHINCHILLA, runs[:20])
    told = np.log(
        known.predict(columns_of(tenths[9])[0]).min() / min(run.loss for run in tenths[9])
    )
    (error,) = [
        error
        for origin, at, error in record.errors
        if (origin, at) == (runs[19].flops, min(tenths[9], key=lambda run: run.loss).flops)
    ]
    assert error == pytest.approx(told, rel=1e-3)
    assert told > 0.01  # losses bend below what the form foresees


@pytest.mark.parametrize("record", ["tenths", "budgets"])
def test_no_record_knows_of_runs_beyond_its_origin(record):
    runs = runs_of(40, bend=0.003)
    budgets = [(runs[i + 3].flops, np.arange(i, i + 4)) for i in range(0, 40, 4)]

    def told(rows):
        if record == "tenths":
            (found,) = rolling_tenths(rows, DEFAULTS, ["kaplan"])
            return [e[2] + np.log(min(r.loss for r in rows[36:])) for e in found.errors
                    if e[0] == rows[19].flops][-1:]  # fmt: skip
        best = np.array([min(rows[i].loss for i in g) for _, g in budgets])
        compute = np.array([c for c, _ in budgets])
        ladder = Ladder(compute, best, np.full(10, 1e-3), best, np.ones(10))
        found = {
            r.method: r for r in rolling_origin(rows, budgets, ladder, six_n, DEFAULTS, ["kaplan"])
        }["kaplan"]
        return [e[2] + np.log(best[np.searchsorted(compute, e[1])]) for e in found.errors[:1]]

    later = [dataclasses.replace(run, loss=run.loss * 1.3) for run in runs[20:]]
    assert told(runs) == pytest.approx(told([*runs[:20], *later]), abs=1e-12)
    assert len(told(runs)) == 1
