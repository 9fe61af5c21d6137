"""Profiles of the objective, where a line in logs has its intervals in closed form."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from sweeps.fit.forms.catalogue import CHINCHILLA, LEARNING_RATE
from sweeps.fit.optimum.profile import certify
from sweeps.fit.optimum.solve import completed, fit_form
from sweeps.fit.options import FitOptions
from sweeps.fit.trust.bootstrap import bootstrap_fit
from sweeps.fit.trust.identified import identified

TRUE = {"c": 3.0, "a": 0.3, "b": -0.2}


@pytest.fixture(scope="module")
def table():
    """Return rows of an optimal rate in sizes and tokens, with noise of 5 %."""
    rng = np.random.default_rng(1)
    params, tokens = np.exp(rng.uniform(8, 14, 30)), np.exp(rng.uniform(12, 20, 30))
    rate = 3.0 / params**0.3 / tokens**-0.2 * np.exp(0.05 * rng.standard_normal(30))
    return {"params": params, "tokens": tokens}, rate


def line(table, fixed=()):
    """Return the least-squares line in logs and its standard errors, by the normal equations."""
    columns, rate = table
    design = np.stack(
        [np.ones(len(rate)), -np.log(columns["params"]), -np.log(columns["tokens"])], 1
    )
    names = [n for n in ("c", "a", "b") if n not in fixed]
    held = design[:, [i for i, n in enumerate(("c", "a", "b")) if n in fixed]]
    free = design[:, [i for i, n in enumerate(("c", "a", "b")) if n not in fixed]]
    target = np.log(rate) - held @ [np.log(TRUE[n]) if n == "c" else TRUE[n] for n in fixed]
    best = np.linalg.solve(free.T @ free, free.T @ target)
    rest = target - free @ best
    variance = rest @ rest / (len(rate) - len(names))
    errors = np.sqrt(variance * np.diag(np.linalg.inv(free.T @ free)))
    return dict(zip(names, zip(best, errors, strict=True), strict=True))


@pytest.mark.parametrize("level", [0.5, 0.9])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("fixed", [(), ("b",)])
def test_of_a_line_the_profile_is_the_standard_errors_interval(table, level, mean, fixed):
    fit = fit_form(LEARNING_RATE, *table, FitOptions(mean=mean, fixed={n: TRUE[n] for n in fixed}))
    same, profiles = certify(fit, level)
    known = line(table, fixed)
    assert set(profiles) == set(known)
    wide = NormalDist().inv_cdf(0.5 + level / 2)
    for name, (value, error) in known.items():
        ends = np.array([value - wide * error, value + wide * error])
        assert profiles[name].closed
        found = np.log(profiles[name].interval) if name == "c" else profiles[name].interval
        assert found == pytest.approx(ends, abs=2e-3 * error), name
    assert same.objective <= fit.objective * (1 + 1e-9)


def test_a_fit_that_is_not_at_its_optimum_moves_there(table):
    fit = fit_form(LEARNING_RATE, *table)
    theta = fit.theta + np.array([0.01, 0.004, -0.002])
    worse = float(fit.objective_of.value(theta[None], fit.objective_of.unit)[0])
    assert worse > 1.01 * fit.objective
    moved, _ = certify(replace(fit, theta=theta, objective=worse), 0.9)
    assert moved.coefficients == pytest.approx(fit.coefficients, rel=1e-6)
    assert moved.objective == pytest.approx(fit.objective, rel=1e-9)


def test_exact_rows_leave_no_interval_and_fixed_coefficients_have_none(table):
    columns, _ = table
    exact = 3.0 / columns["params"] ** 0.3 / columns["tokens"] ** -0.2
    _, profiles = certify(
        fit_form(LEARNING_RATE, columns, exact, FitOptions(fixed={"a": 0.3})), 0.9
    )
    assert set(profiles) == {"c", "b"}
    for name, profile in profiles.items():
        assert profile.closed
        assert profile.interval == pytest.approx([TRUE[name]] * 2)


def planted(floor, noise=0.003):
    """Return rows of a law whose floor is there or not."""
    params = (np.geomspace(6e3, 6e5, 5)[:, None] * np.geomspace(0.3, 3.0, 5)).ravel()
    tokens = np.repeat(np.geomspace(3e11, 6e13, 5), 5) / 6 / params
    loss = floor + 30 / params**0.42 + 900 / tokens**0.45
    draw = np.random.default_rng(4).standard_normal(25)
    return {"params": params, "tokens": tokens}, loss * np.exp(noise * draw)


def test_a_floor_that_is_not_there_has_a_profile_open_below():
    fit, profiles = certify(fit_form(CHINCHILLA, *planted(1e-4)), 0.9)
    assert not profiles["E"].closed
    assert np.isnan(profiles["E"].interval[0])
    verdict = identified(fit, bootstrap_fit(fit, range(25), 100), profiles)["E"]
    assert not verdict["ok"]
    assert "its likelihood profile stays open below" in verdict["reason"]


def test_huber_scales_the_interval_to_the_residuals_inside_and_out():
    # lambda = (sum psi^2 / (n - p)) / (share inside); at the ends the rise is half lambda z^2.
    fit, profiles = certify(fit_form(CHINCHILLA, *planted(0.25), FitOptions(delta=2e-3)), 0.9)
    residual = fit.residuals
    psi, inside = np.clip(residual, -2e-3, 2e-3), np.mean(np.abs(residual) <= 2e-3)
    assert 0.2 < inside < 0.8
    scale = (psi @ psi / (25 - 5)) / inside
    wanted = 0.5 * scale * NormalDist().inv_cdf(0.95) ** 2
    for end in profiles["alpha"].interval:
        held = fit_form(
            CHINCHILLA, fit.columns, fit.target, FitOptions(delta=2e-3, fixed={"alpha": end})
        )
        assert held.objective - fit.objective == pytest.approx(wanted, rel=0.15)


def test_a_completed_fit_knows_its_gradient_residuals_and_bounds(table):
    fit = fit_form(LEARNING_RATE, *table)
    again = completed(fit, fit.theta + 1e-3)
    assert again.coefficients == pytest.approx(fit.coefficients, rel=1e-7)
    assert again.converged
    assert again.residuals @ again.residuals / 2 == pytest.approx(again.objective)
    design = np.stack([np.ones(30), *(-np.log(table[0][c]) for c in ("params", "tokens"))], 1)
    best = np.linalg.lstsq(design, np.log(table[1]), rcond=None)[0]
    assert again.coefficients == pytest.approx(
        {"c": np.exp(best[0]), "a": best[1], "b": best[2]}, rel=1e-6
    )
    assert again.residuals == pytest.approx(design @ best - np.log(table[1]), abs=1e-8)
    assert again.at_bound == ()
