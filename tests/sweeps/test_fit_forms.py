"""The Chinchilla form, its derivatives and its compute-optimal frontier."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from sweeps.fit.forms import (
    Chinchilla,
    Points,
    compute_optimal,
    huber,
    objective,
    objective_derivatives,
    predict,
    six_n,
)

TRUE = {"E": 0.25, "A": 30.0, "alpha": 0.42, "B": 900.0, "beta": 0.45}


def a_table(num_runs=12, seed=0):
    rng = np.random.default_rng(seed)
    params, tokens = np.exp(rng.uniform(9, 14, num_runs)), np.exp(rng.uniform(13, 18, num_runs))
    loss = TRUE["E"] + TRUE["A"] / params ** TRUE["alpha"] + TRUE["B"] / tokens ** TRUE["beta"]
    return Points(params, tokens, loss)


def test_predict_is_the_published_formula():
    points = a_table()
    form = Chinchilla.of(points)
    found = predict(form, form.theta(**TRUE), points.params, points.tokens)[0]
    np.testing.assert_allclose(found, points.loss, rtol=1e-13)


def test_coefficients_undo_theta():
    form = Chinchilla.of(a_table())
    found = form.coefficients(form.theta(**TRUE))
    assert {k: float(v) for k, v in found.items()} == pytest.approx(TRUE, rel=1e-12)


def test_log_loss_each_agrees_with_the_features():
    points = a_table()
    form = Chinchilla.of(points)
    theta = form.theta(**TRUE)[None]
    found = form.log_loss_each(theta, points.params[None], points.tokens[None])
    np.testing.assert_allclose(np.exp(found[0]), points.loss, rtol=1e-13)


def test_huber_is_quadratic_inside_and_linear_outside():
    found = huber(np.array([0.0, 0.5, -1.0, 3.0, -3.0]), 1.0)
    np.testing.assert_allclose(found, [0, 0.125, 0.5, 2.5, 2.5])


@pytest.mark.parametrize("delta", [1e-3, 0.1, 10.0])
def test_gradient_and_hessian_are_those_of_finite_differences(delta):
    points = a_table()
    form = Chinchilla.of(points)
    phi = form.features(points.params, points.tokens)
    rng = np.random.default_rng(1)
    target = np.log(points.loss) + 0.05 * rng.standard_normal(len(points.loss))
    weights = rng.integers(0, 3, (1, len(points.loss))).astype(float)
    theta = form.theta(**TRUE) + 0.1 * rng.standard_normal(5)
    value, gradient, hessian = objective_derivatives(theta[None], phi, target, weights, delta)
    assert value[0] == pytest.approx(objective(theta[None], phi, target, weights, delta)[0])

    def value_at(t):
        return objective(t[None], phi, target, weights, delta)[0]

    def gradient_at(t):
        return objective_derivatives(t[None], phi, target, weights, delta)[1][0]

    scale = np.abs(hessian[0]).max()
    np.testing.assert_allclose(gradient[0], approx_fprime(theta, value_at, 1e-7), atol=1e-5 * scale)
    np.testing.assert_allclose(
        hessian[0], approx_fprime(theta, gradient_at, 1e-7), atol=1e-5 * scale
    )


def test_frontier_under_6n_is_the_closed_form_of_the_paper():
    form = Chinchilla.of(a_table())
    flops = 1e14
    params, tokens, loss, interior = compute_optimal(form, form.theta(**TRUE), flops, six_n)
    total = TRUE["alpha"] + TRUE["beta"]
    ratio = TRUE["alpha"] * TRUE["A"] / (TRUE["beta"] * TRUE["B"])
    expected = ratio ** (1 / total) * (flops / 6) ** (TRUE["beta"] / total)
    assert params[0] == pytest.approx(expected, rel=1e-6)
    assert 6 * params[0] * tokens[0] == pytest.approx(flops, rel=1e-12)
    assert loss[0] == pytest.approx(predict(form, form.theta(**TRUE), params, tokens)[0, 0])
    assert interior[0]


def test_frontier_follows_the_exact_flops_and_not_6n():
    form = Chinchilla.of(a_table())
    theta = form.theta(**TRUE)

    def exact(n):
        return 6 * n + 4e3 * np.sqrt(n)

    params, tokens, loss, _ = compute_optimal(form, theta, 1e13, exact)
    assert tokens[0] * exact(params)[0] == pytest.approx(1e13, rel=1e-12)
    grid = params[0] * np.exp(np.linspace(-0.5, 0.5, 201))
    around = predict(form, theta, grid, 1e13 / exact(grid))[0]
    assert loss[0] <= around.min() * (1 + 1e-12)


def test_frontier_without_a_minimum_says_so():
    form = Chinchilla.of(a_table())
    theta = form.theta(**(TRUE | {"alpha": 1e-9}))
    assert not compute_optimal(form, theta, 1e13, six_n)[3][0]
