"""The optimum is found, and certified, on planted tables."""

import numpy as np
import pytest

from sweeps.fit.forms.catalogue import CHINCHILLA, FORMS
from sweeps.fit.minima.isoflop import parabola_minimum
from sweeps.fit.optimum.solve import fit_form
from sweeps.fit.optimum.starts import nonnegative_least_squares
from sweeps.fit.options import FitOptions
from sweeps.fit.trust.bootstrap import bootstrap_fit

TRUE = {"E": 0.25, "A": 30.0, "alpha": 0.42, "B": 900.0, "beta": 0.45}


def planted(num_budgets=5, num_sizes=5, noise=0.0, seed=0):
    params = np.geomspace(6e3, 6e5, num_budgets)[:, None] * np.geomspace(0.3, 3.0, num_sizes)
    flops = np.geomspace(3e11, 6e13, num_budgets)[:, None] * np.ones(num_sizes)
    params, tokens = params.ravel(), (flops / 6 / params).ravel()
    loss = TRUE["E"] + TRUE["A"] / params ** TRUE["alpha"] + TRUE["B"] / tokens ** TRUE["beta"]
    draw = np.random.default_rng(seed).standard_normal(loss.size)
    return {"params": params, "tokens": tokens}, loss * np.exp(noise * draw)


@pytest.mark.parametrize("shape", [(5, 5), (3, 4), (8, 3)])
def test_noise_free_law_is_recovered(shape):
    fit = fit_form(CHINCHILLA, *planted(*shape))
    assert fit.coefficients == pytest.approx(TRUE, rel=1e-10)
    assert fit.converged
    assert fit.objective < 1e-25


def test_a_resample_whose_steps_lead_to_an_overflow_does_not_end_the_fit():
    rng = np.random.default_rng(3)
    flops = np.repeat([3e11, 1e12, 3e12, 1e13], 5)
    params = np.sqrt(flops / 120) * np.tile(np.geomspace(0.25, 4, 5), 4)
    tokens = flops / 6 / params
    loss = 0.25 + 30 / params**0.42 + 900 / tokens**0.45
    loss *= np.exp(0.003 * rng.standard_normal(20))
    fit = fit_form(FORMS["kaplan"], {"params": params, "tokens": tokens}, loss)
    assert len(bootstrap_fit(fit, range(20), resamples=20).theta) == 20


def test_starts_under_a_falling_delta_all_agree_on_few_noisy_runs():
    for seed in range(5):
        fit = fit_form(CHINCHILLA, *planted(4, 4, noise=0.005, seed=seed))
        assert fit.converged
        # Two thirds start under a falling delta, a third at once: these may stop on the way.
        assert fit.starts_agreeing >= 2 / 3 * fit.starts_tried


def test_planted_law_with_noise_lies_in_its_intervals():
    fit = fit_form(CHINCHILLA, *planted(5, 5, noise=0.005, seed=3))
    boot = bootstrap_fit(fit, range(25), resamples=400, level=0.99)
    for name, value in TRUE.items():
        low, high = boot.of(lambda theta, n=name: fit.form.coefficients(theta)[n])
        assert low < value < high, name


def test_an_outlier_hardly_moves_the_fit():
    columns, loss = planted()
    loss[7] *= 1.5
    fit = fit_form(CHINCHILLA, columns, loss)
    assert fit.coefficients == pytest.approx(TRUE, rel=0.05)


def test_nonnegative_least_squares_is_scipys():
    from scipy.optimize import nnls

    rng = np.random.default_rng(0)
    for _ in range(20):
        matrix, target = rng.uniform(0, 1, (9, 3)), rng.standard_normal(9)
        found, _ = nonnegative_least_squares(matrix.T @ matrix, matrix.T @ target)
        np.testing.assert_allclose(found, nnls(matrix, target)[0], atol=1e-8)


def test_parabola_finds_its_vertex_and_refuses_a_cap():
    x = np.array([1.0, 2.0, 4.0, 5.0])
    where, height, curvature = parabola_minimum(x, np.stack([(x - 3) ** 2 + 2, -(x**2)]))
    assert (where[0], height[0], curvature[0]) == pytest.approx((3, 2, 2))
    assert np.isnan(where[1])


def test_one_sided_a_law_of_undertuned_runs_comes_nearer_to_the_well_tuned_one():
    columns, loss = planted(6, 6, noise=0.001)
    # The larger a run, the more of what tuning would have won it is missing: 0 to 6 %, by chance.
    size = np.log(columns["params"] / columns["params"].min())
    missing = 0.06 * size / size.max() * np.random.default_rng(1).uniform(0, 1, len(loss))
    given = FitOptions(), FitOptions(one_sided=True)
    plain, leaning = (fit_form(CHINCHILLA, columns, loss * (1 + missing), o) for o in given)
    off = [abs(f.coefficients["alpha"] - TRUE["alpha"]) for f in (plain, leaning)]
    assert off[1] < 0.6 * off[0]
    assert (leaning.residuals < 0).mean() > 0.6  # most rows lie above their law


def test_one_sided_exact_rows_give_the_law_itself():
    columns, loss = planted()
    fit = fit_form(CHINCHILLA, columns, loss, FitOptions(one_sided=True))
    assert fit.coefficients == pytest.approx(TRUE, rel=1e-8)
