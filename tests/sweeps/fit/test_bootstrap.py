"""Intervals are reproducible, respect clusters, and cover the truth."""

import numpy as np
import pytest

from sweeps.fit.forms.catalogue import CHINCHILLA
from sweeps.fit.minima.frontier import compute_optimal, frontier_draws, six_n
from sweeps.fit.minima.isoflop import isoflop_minima
from sweeps.fit.optimum.solve import fit_form
from sweeps.fit.trust.bootstrap import bootstrap_fit, percentile_interval, resample_counts

TRUE = {"E": 0.25, "A": 30.0, "alpha": 0.42, "B": 900.0, "beta": 0.45}


def planted(seed, noise=0.005, budgets=4, sizes=4):
    middle = np.geomspace(5.6e3, 2.5e4, budgets)[:, None]
    params = (middle * np.geomspace(0.3, 3.3, sizes)).ravel()
    tokens = np.repeat(np.geomspace(3e11, 6e12, budgets), sizes) / 6 / params
    loss = TRUE["E"] + TRUE["A"] / params ** TRUE["alpha"] + TRUE["B"] / tokens ** TRUE["beta"]
    draw = np.random.default_rng(seed).standard_normal(loss.size)
    return {"params": params, "tokens": tokens}, loss * np.exp(noise * draw)


def test_percentiles_leave_equal_tails_and_ignore_failures():
    draws = np.append(np.arange(101.0), [np.nan, np.inf])
    assert percentile_interval(draws, 0.9) == pytest.approx((5, 95))
    assert np.isnan(percentile_interval(np.array([np.nan]), 0.9)).all()


def test_runs_of_a_cluster_are_drawn_together():
    counts = resample_counts(["a", "b", "a", "c", "c"], 50, seed=0)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 3] == counts[:, 4]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_same_seed_gives_the_same_intervals():
    fit = fit_form(CHINCHILLA, *planted(0))
    first, again, other = (bootstrap_fit(fit, range(16), resamples=50, seed=s) for s in (5, 5, 6))
    assert np.array_equal(first.theta, again.theta)
    assert not np.array_equal(first.theta, other.theta)


def test_degenerate_resamples_are_counted_and_not_fitted():
    columns, loss = planted(0)
    fit = fit_form(CHINCHILLA, {c: v[:6] for c, v in columns.items()}, loss[:6])
    boot = bootstrap_fit(fit, range(6), resamples=200)
    assert 0.5 < boot.failed < 1
    assert len(boot.theta) == round(200 * (1 - boot.failed))


@pytest.mark.heavy
def test_intervals_of_loss_at_compute_cover_the_truth():
    covered, replicates, flops = 0, 20, 6e12
    for seed in range(replicates):
        fit = fit_form(CHINCHILLA, *planted(seed), max_starts=4)
        boot = bootstrap_fit(fit, range(16), resamples=60, level=0.95, seed=seed)
        truth = compute_optimal(fit, fit.form.theta(**TRUE), flops, six_n)[2][0]
        low, high = percentile_interval(frontier_draws(fit, boot, flops, six_n)[2], 0.95)
        covered += low <= truth <= high
    assert 0.85 <= covered / replicates <= 1


def a_budget(flops, best, offsets=(-2, -1, 0, 1, 2), bend=0.05):
    x = np.array(offsets, dtype=float)
    return flops, best * np.exp(x), np.exp(bend * x**2)


def test_isoflop_minima_are_found_with_intervals():
    tables = [a_budget(1e12, 1e4), a_budget(4e12, 2e4)]
    minima, draws = isoflop_minima(tables, 0.002, six_n)
    assert [m.interior for m in minima] == [True, True]
    assert [m.params for m in minima] == pytest.approx([1e4, 2e4])
    assert all(m.interval[0] < m.params < m.interval[1] for m in minima)
    assert minima[0].tokens == pytest.approx(1e12 / 6e4)
    assert draws.shape == (2, 1000)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (a_budget(1e12, 1e4, (0, 1, 2, 3)), "smallest end"),
        (a_budget(1e12, 1e4, (-3, -2, -1, 0)), "largest end"),
        (a_budget(1e12, 1e4, (-1, 0, 1)), "3 sizes"),
        (a_budget(1e12, 1e4, bend=-0.05), "does not curve upwards"),
        (a_budget(1e12, 1e4, bend=1e-4), "no minimum"),
    ],
)
def test_a_minimum_that_is_not_one_is_refused_with_the_reason(table, said):
    minimum = isoflop_minima([table], 0.02, six_n)[0][0]
    assert not minimum.interior
    assert minimum.params is None
    assert said in minimum.reason


def test_a_refusal_says_which_size_is_the_best_and_by_what():
    # The second size has the best single run, the first the best mean.
    params = np.array([1e4, 2e4, 2e4, 4e4, 8e4])
    loss = np.array([1.00, 0.99, 1.03, 1.05, 1.12])
    minimum = isoflop_minima([(1e12, params, loss)], 0.002, six_n)[0][0]
    assert "by the mean over its seeds, is at the smallest end" in minimum.reason
    # The parabola falls to the left of all sizes, where none of them is the best.
    steps = np.arange(8.0)
    params, loss = 1e4 * 2**steps, 1 + 0.002 * (steps + 2) ** 2
    loss[0] = loss[1] + 0.001
    minimum = isoflop_minima([(1e12, params, loss)], 0.002, six_n)[0][0]
    assert "minimum lies below the smallest size tried, but the best size is number 2 of 8" in (
        minimum.reason
    )
