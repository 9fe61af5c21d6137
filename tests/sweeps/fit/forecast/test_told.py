"""What tells the least loss: the nearest budgets, the form among them, or the form alone."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import norm

from sweeps.fit.forecast.choice import BOTH, Choice, choose
from sweeps.fit.forecast.forecaster import Forecaster
from sweeps.fit.forecast.ladder import Ladder
from sweeps.fit.forecast.nearby import nearby_losses
from sweeps.fit.forecast.rolling import NEARBY, Record, joined
from sweeps.fit.forecast.tenths import FADES, FORM_BELIEF, compute_of_best, ends_by_tenths, noise_of
from sweeps.fit.forecast.tenths import FEW as FEW_ORIGINS
from sweeps.fit.forecast.told import told
from sweeps.fit.forms.catalogue import CHINCHILLA
from sweeps.fit.law import fit_law
from sweeps.fit.minima.frontier import six_n
from sweeps.fit.optimum.solve import fit_runs
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.runs import Run

FEW = FitOptions(resamples=60)
BENT = -0.003
LADDER = Ladder(
    compute=1e18 * 3.0 ** np.arange(5), loss=2 + 2 * 3.0 ** (-0.1 * np.arange(5)),
    error=np.full(5, 1e-3), best=2 + 2 * 3.0 ** (-0.1 * np.arange(5)), interior=np.ones(5),
)  # fmt: skip


def choice_of(by, past=((9e18, 8.1e19, 0.004),)):
    teller = Forecaster(LADDER, 0.9, 100, 0)
    return Choice("chinchilla", by, "", {}, [], 8.1e19, np.array(past).reshape(-1, 3), teller)


def test_a_form_is_one_more_member_of_the_median():
    near = told(choice_of(NEARBY), 3e20, 3.0, (2.99, 3.01), 0.9)
    assert near.loss == Forecaster(LADDER, 0.9, 100, 0).at(3e20).loss
    assert near.of_form == 3.0
    assert "chinchilla" not in near.members
    for loss in (1.0, near.loss * 1.0001, 9.0):
        both = told(choice_of(BOTH), 3e20, loss, (0.9 * loss, 1.1 * loss), 0.9)
        assert both.members == near.members | {"chinchilla": loss}
        assert both.loss == pytest.approx(np.median(list(both.members.values())), rel=1e-12)
        assert min(near.members.values()) <= both.loss <= max(near.members.values())
        assert both.interval[0] < both.loss < both.interval[1]


def test_within_the_budgets_only_noise_is_left():
    both = [
        told(choice_of(BOTH, past), 3e19, 2.9, (2.8, 3.0), 0.9)
        for past in ((), ((1e18, 3e18, 9.0),))
    ]
    assert both[0].interval == both[1].interval
    quiet = dataclasses.replace(LADDER, error=np.zeros(5))
    at = Forecaster(quiet, 0.9, 100, 0).at(3e19, {"chinchilla": 2.9})
    assert at.interval == (at.loss, at.loss)


def test_errors_of_the_median_are_what_its_interval_has_earned():
    ends = [
        np.log(
            told(choice_of(BOTH, ((2.7e19, 8.1e19, error),)), 3e20, 2.9, (2.8, 3.0), 0.9).interval
        )
        for error in (0.001, 0.3)
    ]
    assert np.ptp(ends[1]) > 3 * np.ptp(ends[0])


def test_the_record_of_both_is_that_of_the_median_at_each_origin():
    form = Record("chinchilla", [(9e18, 2.7e19, 0.3), (9e18, 8.1e19, -0.3), (2.7e19, 8.1e19, 0.0)])
    both = joined(form, LADDER)
    assert [error[:2] for error in both.errors] == [error[:2] for error in form.errors]
    members = nearby_losses(LADDER.compute[:3], LADDER.loss[None, :3], 2.7e19)[0]
    best = LADDER.best[3]
    expected = np.log(np.median([*members, best * np.exp(0.3)]) / best)
    assert both.errors[0][2] == pytest.approx(expected, abs=1e-12)
    assert max(abs(error) for *_, error in both.errors) < 0.02


def test_errors_of_tenths_grow_with_the_e_folds_and_fade_with_their_origin():
    past = np.array([[1e18, 3e18, 0.01], [1e18, 9e18, -0.03], [3e18, 9e18, 0.02]])
    old = 0.5 ** (np.log(3) / FADES)
    beyond = old * (0.01**2 + 0.03**2 - 2 * 0.008**2) + 0.02**2 - 0.008**2
    folds = old * (np.log(3) ** 2 + np.log(9) ** 2) + np.log(3) ** 2 + 1
    found = ends_by_tenths(past, 0.008, 1.7, 0.9)
    size = np.sqrt((FEW_ORIGINS * beyond + FORM_BELIEF**2) / folds)
    assert found == pytest.approx(norm.ppf(0.95) * size * 1.7, rel=1e-9)
    assert ends_by_tenths(past, 0.008, 0.0, 0.9) == 0
    alone = norm.ppf(0.95) * FORM_BELIEF
    assert ends_by_tenths(past[:0], 0.008, 1.0, 0.9) == pytest.approx(alone)
    drowned = ends_by_tenths(past, 0.05, 1.0, 0.9)  # nothing is left beyond the noise
    assert drowned == pytest.approx(alone / np.sqrt(folds))


def test_the_noise_of_a_run_is_the_scale_of_the_residuals_which_a_stray_run_moves_little():
    runs = scattered(0.0, rows=200)
    fit = fit_runs(CHINCHILLA, runs)
    assert noise_of(fit) == pytest.approx(0.002, rel=0.15)
    stray = dataclasses.replace(fit, residuals=np.append(fit.residuals[1:], 9.0))
    assert noise_of(stray) == pytest.approx(noise_of(fit), rel=0.05)
    few = dataclasses.replace(fit, residuals=fit.residuals[:10])
    scale = 1.4826 * np.median(np.abs(fit.residuals[:10]))
    assert noise_of(few) == pytest.approx(scale * np.sqrt(2))


def scattered(bend, rows=80, noise=0.002):
    """Return runs that share no compute; with a `bend` no form holds their law."""
    rng = np.random.default_rng(3)
    runs = []
    for flops in np.sort(1e18 * 3.0 ** rng.uniform(0, 6, rows)):
        params = np.sqrt(flops / 120) * np.exp(rng.uniform(-1.2, 1.2))
        tokens = flops / 6 / params
        loss = 1.7 + 400 / params**0.34 + 410 / tokens**0.28
        loss *= np.exp(-bend * np.log(flops / 1e18) ** 2)
        loss *= np.exp(noise * rng.standard_normal())
        runs.append(Run("", float(params), float(tokens), float(flops), float(loss)))
    return runs


@pytest.mark.heavy
def test_runs_without_budgets_are_foreseen_by_tenths_and_widen_the_interval():
    sound = choose(scattered(0.0), [], six_n, FEW)
    bent = choose(scattered(BENT), [], six_n, FEW)
    assert sound.by == sound.form
    assert bent.by == bent.form
    reach = np.log(9.0)
    narrow, wide = (
        ends_by_tenths(c.past, noise_of(c.candidates[c.form].fit), reach, 0.9)
        for c in (sound, bent)
    )
    assert wide > 2 * narrow
    assert 0.002 < narrow < 0.05
    assert all(target >= 2 * origin for c in (sound, bent) for origin, target, _ in c.past)
    ends = told(bent, 9 * bent.last, 2.0, (1.99, 2.01), 0.9).interval
    assert ends == pytest.approx((2.0 * np.exp(-wide), 2.0 * np.exp(wide)))


@pytest.mark.heavy
def test_the_held_out_tenth_of_runs_without_budgets_lies_in_its_interval():
    law = fit_law(scattered(BENT), options=FEW)
    held = law.held_out
    assert held.relative_error < -0.004
    assert held.inside
    alone = fit_law(scattered(BENT), law.fit.form.name, FEW).held_out
    assert not alone.inside  # by the noise of the runs alone


def test_the_compute_of_a_tenth_is_that_of_its_best_run():
    runs = scattered(0.0, rows=10)
    best = min(runs, key=lambda run: run.loss)
    assert compute_of_best(runs) == best.flops
    worse = [dataclasses.replace(run, loss=run.loss + 1) for run in runs if run is not best]
    assert compute_of_best([*worse, best]) == best.flops
