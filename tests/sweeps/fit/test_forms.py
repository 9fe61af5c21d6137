"""Every form: its published formula, its derivatives, its recovery from exact data."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from sweeps.fit.describe import describe
from sweeps.fit.forms.catalogue import FORMS, form_of
from sweeps.fit.forms.curves import schedule_of
from sweeps.fit.forms.powers import SumOfPowers
from sweeps.fit.general import fit_or_reduce
from sweeps.fit.law import fit_law
from sweeps.fit.minima.frontier import compute_optimal, six_n
from sweeps.fit.optimum.objective import Objective, huber
from sweeps.fit.optimum.solve import fit_form, walls
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.runs import Run

RECOVERY = 1e-10  # relative error of every coefficient from exact data
LAW = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}


def schedules(num_points=40):
    """Return three loss curves' worth of (curve, step, lr): cosine, constant, two stages."""
    step = np.linspace(500, 8000, num_points)
    part = (step - step[0]) / (step[-1] - step[0])
    cosine = 3e-5 + 1.35e-4 * (1 + np.cos(np.pi * part))
    rates = [cosine, np.full(num_points, 3e-4), np.where(part < 0.5, 3e-4, 9e-5)]
    return {
        "curve": np.repeat([0.0, 1.0, 2.0], num_points),
        "step": np.tile(step, 3),
        "lr": np.concatenate(rates),
    }


def a_table(num_rows=60, seed=0):
    rng = np.random.default_rng(seed)
    params, tokens = 10 ** rng.uniform(7, 10, num_rows), 10 ** rng.uniform(8.5, 11.5, num_rows)
    columns = {
        "params": params,
        "tokens": tokens,
        "params_active": params,
        "params_total": params * rng.choice([1.0, 1.0, 2.0, 4.0, 8.0, 16.0], num_rows),
        "unique_tokens": tokens / rng.choice([1, 1, 2, 4, 10, 40], num_rows),
        "flops": 6 * params * tokens,
        "width": 2 ** rng.uniform(8, 12, num_rows),
        "depth": rng.uniform(4, 40, num_rows),
        "x": 10 ** rng.uniform(3, 9, num_rows),
    }
    return columns


PLANTED = {
    "chinchilla": LAW,
    "chinchilla_tied": {"E": 1.9, "A": 521.0, "alpha": 0.35, "B": 1488.0},
    "kaplan": {"N_c": 6.4e13, "alpha_N": 0.076, "D_c": 1.8e13, "alpha_D": 0.103},
    "overtraining": {"E": 1.8, "a": 166.0, "eta": 0.27, "b": 287.0},
    "skaling": {"E": 1.6, "A": 900.0, "alpha": 0.45, "B": 1800.0, "beta": 0.4, "k": 0.7},
    "data_constrained": LAW | {"R_D_star": 15.4, "R_N_star": 5.3},
    "width_depth": {
        "E": 1.5, "A": 8.0, "alpha": 0.3, "B": 2.0, "beta": 0.5, "C": 8e4, "gamma": 0.53,
    },
    "width_depth_params": {
        "E": 1.5, "A": 5.0, "alpha": 0.35, "B": 1.2, "beta": 0.6, "C": 500.0, "gamma": 0.38,
        "D": 5e4, "delta": 0.52,
    },
    "experts": {
        "E": 1.5, "A": 400.0, "alpha": 0.32, "delta": 0.6, "gamma": -0.02, "B": 700.0, "beta": 0.3,
        "omega": -0.5, "zeta": 0.02,
    },
    "power": {"E": 0.5, "A": 20.0, "alpha": 0.3},
    "power_no_floor": {"A": 20.0, "alpha": 0.3},
    "broken_power": {"E": 0.5, "b": 20.0, "c0": 0.1, "c1": 0.3, "d": 3e5, "f": 0.5},
    "frontier": {"E": 1.7, "A": 1070.0, "alpha": 0.155},
    "frontier_no_floor": {"A": 2.4, "alpha": 0.027},
    "quality": {"E": 2.0, "A": 9e5, "alpha": 0.25},
    "quality_no_floor": {"A": 9e5, "alpha": 0.25},
    "lr": {"c": 1.8, "a": 0.71, "b": -0.31},
    "batch": {"c": 0.57, "b": -0.57},
    "batch_params_tokens": {"c": 0.02, "a": -0.19, "b": -0.81},
    "tissue": {"L0": 2.6, "A": 0.6, "alpha": 0.45, "C": 2.0, "lambda": 0.998},
    "multi_power": {
        "L0": 2.65, "A": 0.6, "alpha": 0.45, "B": 440.0, "C": 2.1, "beta": 0.6, "gamma": 0.65,
    },
    "multi_power_tied": {
        "L0": 2.65, "A": 0.6, "alpha": 0.45, "B": 440.0, "C": 2.1, "gamma": 0.65,
    },
    "curves": {
        "L0": 2.65, "A": 0.6, "alpha": 0.45, "B": 440.0, "C": 2.1, "gamma": 0.65,
    },
}  # fmt: skip


def planted(name):
    form, coefficients = FORMS[name], PLANTED[name]
    columns = schedules() if "curve" in form.columns else a_table()
    columns = {c: columns[c] for c in form.columns}
    ones = np.ones(len(columns[form.columns[0]]))
    if name == "data_constrained":
        placed = form
    else:
        placed = form.placed(columns, ones)
    theta = placed.theta(**coefficients)
    target = np.exp(placed.bind(columns).log_prediction(theta[None])[0])
    return placed, theta, columns, target


def test_every_form_of_the_catalogue_is_planted_here():
    assert set(PLANTED) == set(FORMS)


@pytest.mark.parametrize("name", list(FORMS))
def test_coefficients_undo_theta(name):
    placed, theta, _, _ = planted(name)
    found = {k: float(v) for k, v in placed.coefficients(theta).items()}
    assert found == pytest.approx(PLANTED[name], rel=1e-9)


@pytest.mark.parametrize("name", list(FORMS))
def test_derivatives_are_those_of_finite_differences(name):
    placed, theta, columns, target = planted(name)
    rng = np.random.default_rng(1)
    theta = theta + 0.02 * rng.standard_normal(len(theta))
    weights = rng.integers(0, 3, (1, len(target))).astype(float)
    noisy = target * np.exp(0.02 * rng.standard_normal(len(target)))
    for residual, delta, one_sided in (("log", 0.01, True), ("linear", 10.0, False)):
        asked = FitOptions(delta=delta, residual=residual, one_sided=one_sided)
        problem = Objective.of(placed, columns, noisy, asked)
        _, gradient, hessian = problem.derivatives(theta[None], weights)

        def value_at(t, problem=problem):
            return problem.value(t[None], weights)[0]

        def gradient_at(t, problem=problem):
            return problem.derivatives(t[None], weights)[1][0]

        size = np.abs(gradient[0]).max()
        found = approx_fprime(theta, value_at, 1e-7)
        np.testing.assert_allclose(gradient[0], found, atol=2e-3 * size)
        numeric = approx_fprime(theta, gradient_at, 1e-7)
        np.testing.assert_allclose(hessian[0], numeric, atol=2e-3 * np.abs(hessian[0]).max())


@pytest.mark.heavy
@pytest.mark.parametrize("name", list(FORMS))
def test_exact_data_give_the_coefficients_back(name):
    _, _, columns, target = planted(name)
    starts = 4 if "curve" in FORMS[name].columns else 16
    fit = fit_form(FORMS[name], columns, target, max_starts=starts)
    assert fit.coefficients == pytest.approx(PLANTED[name], rel=RECOVERY)
    assert fit.converged


def test_fixed_coefficients_stay_and_the_others_are_found():
    _, _, columns, target = planted("data_constrained")
    fit = fit_form(FORMS["data_constrained"], columns, target, FitOptions(fixed=LAW))
    assert fit.coefficients == pytest.approx(PLANTED["data_constrained"], rel=1e-8)
    assert fit.fixed == tuple(LAW)
    for given in ({"E": 0.0}, {"A": -4.0}):
        (name,) = given
        with pytest.raises(ValueError, match=rf"fixed\.{name}={given[name]:g}: must be above 0"):
            fit_form(FORMS["chinchilla"], columns, target, FitOptions(fixed=given))
    with pytest.raises(ValueError, match=r"fixed\.N_c=-3: must be above 0"):
        fit_form(FORMS["kaplan"], columns, target, FitOptions(fixed={"N_c": -3.0}))
    with pytest.raises(ValueError, match=r"fixed\.gamma=: not a coefficient"):
        fit_form(FORMS["chinchilla"], columns, target, FitOptions(fixed={"gamma": 1.0}))


def test_the_outer_power_can_be_held_and_what_it_couples_cannot():
    _, _, columns, target = planted("chinchilla")
    held = fit_form(FORMS["skaling"], columns, target, FitOptions(fixed={"k": 1.0, "E": 1.69}))
    assert held.coefficients == pytest.approx(LAW | {"k": 1.0}, rel=1e-8)
    with pytest.raises(ValueError, match=r"fixed\.A=: cannot be held in skaling"):
        fit_form(FORMS["skaling"], columns, target, FitOptions(fixed={"A": 400.0}))


@pytest.mark.heavy
def test_a_coefficient_on_its_wall_makes_way_for_the_reduced_form():
    columns, form = schedules(), FORMS["multi_power"]
    coefficients = PLANTED["multi_power"] | {"gamma": 1.3, "C": 0.002}
    theta = form.theta(**coefficients)
    target = np.exp(form.bind(columns).log_prediction(theta[None])[0])
    fit, notes = fit_or_reduce(form, columns, target, max_starts=4)
    assert fit.form.name == "multi_power_tied"
    assert notes[0].startswith("gamma of multi_power ends on the wall")
    inside = np.exp(
        form.bind(columns).log_prediction(form.theta(**PLANTED["multi_power"])[None])[0]
    )
    fit, notes = fit_or_reduce(form, columns, inside, max_starts=4)
    assert (fit.form.name, notes) == ("multi_power", [])


def test_the_published_formulas_are_what_is_predicted():
    columns = a_table()
    n, d, u = columns["params"], columns["tokens"], columns["unique_tokens"]
    form = form_of("chinchilla").placed(columns, np.ones(60))
    found = np.exp(form.bind(columns).log_prediction(form.theta(**LAW)[None])[0])
    np.testing.assert_allclose(found, 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28, rtol=1e-12)
    each = {c: v[None] for c, v in columns.items()}
    np.testing.assert_allclose(
        np.exp(form.log_loss_each(form.theta(**LAW)[None], each)[0]), found, rtol=1e-12
    )

    kaplan = form_of("kaplan").placed(columns, np.ones(60))
    theta = kaplan.theta(**PLANTED["kaplan"])
    found = np.exp(kaplan.bind(columns).log_prediction(theta[None])[0])
    expected = ((6.4e13 / n) ** (0.076 / 0.103) + 1.8e13 / d) ** 0.103
    np.testing.assert_allclose(found, expected, rtol=1e-12)

    skaling = form_of("skaling").placed(columns, np.ones(60))
    theta = skaling.theta(**PLANTED["skaling"])
    found = np.exp(skaling.bind(columns).log_prediction(theta[None])[0])
    expected = 1.6 + (900 / n**0.45 + 1800 / d**0.4) ** 0.7
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    at_one = skaling.theta(**skaling.from_nested(LAW))
    found = np.exp(skaling.bind(columns).log_prediction(at_one[None])[0])
    np.testing.assert_allclose(found, 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28, rtol=1e-12)

    repeated = form_of("data_constrained")
    theta = repeated.theta(**PLANTED["data_constrained"])
    found = np.exp(repeated.bind(columns).log_prediction(theta[None])[0])
    gain = (0.34 * 406.4 / (0.28 * 410.7)) ** (1 / 0.62)
    best = np.minimum(gain * (gain * u) ** (0.28 / 0.34), n)
    n_worth = best + best * 5.3 * (1 - np.exp(-(n / best - 1) / 5.3))
    d_worth = u + u * 15.4 * (1 - np.exp(-(d / u - 1) / 15.4))
    expected = 1.69 + 406.4 / n_worth**0.34 + 410.7 / d_worth**0.28
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_curves_area_and_drops_are_those_of_its_every_step():
    step = np.arange(500, 8001, 50.0)
    rate = 3e-4 * (1 - 0.9 * (step - 500) / 7500)
    columns = {"curve": np.zeros(len(step)), "step": step, "lr": rate}
    every = np.arange(1, 8001.0)
    whole = np.where(every < 500, 3e-4 * every / 500, 3e-4 * (1 - 0.9 * (every - 500) / 7500))
    form = FORMS["tissue"]
    rows = form.prepare(columns)
    area = np.cumsum(whole)[step.astype(int) - 1]
    np.testing.assert_allclose(rows.area, area, rtol=3e-3)
    memory, sums, total, by_step = 0.999, 0.0, 0.0, []
    for before, now in zip(np.append(0, whole[:-1]), whole, strict=True):
        sums = memory * sums + before - now
        total += sums
        by_step.append(total)
    shape = np.array([[0.4, np.log(1 / (1 - memory))]])
    found = form.terms(shape, rows)[0][0, 2]
    expected = np.array(by_step)[step.astype(int) - 1]
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


def test_huber_is_quadratic_inside_and_linear_outside():
    found = huber(np.array([0.0, 0.5, -1.0, 3.0, -3.0]), 1.0)
    np.testing.assert_allclose(found, [0, 0.125, 0.5, 2.5, 2.5])
    np.testing.assert_allclose(huber(np.array([3.0]), np.inf), [4.5])


def test_a_mean_has_the_sums_optimum_and_its_share_of_the_objective():
    _, _, columns, target = planted("chinchilla")
    noisy = target * np.exp(0.01 * np.random.default_rng(0).standard_normal(len(target)))
    total = fit_form(FORMS["chinchilla"], columns, noisy)
    mean = fit_form(FORMS["chinchilla"], columns, noisy, FitOptions(mean=True))
    assert mean.objective == pytest.approx(total.objective / len(target), rel=1e-9)
    assert mean.coefficients == pytest.approx(total.coefficients, rel=1e-6)


def test_an_unknown_form_is_refused_by_name():
    with pytest.raises(ValueError, match="form=cubic: is not known"):
        form_of("cubic")


def fitted():
    _, _, columns, target = planted("chinchilla")
    return fit_form(FORMS["chinchilla"], columns, target)


def test_frontier_under_6n_is_the_closed_form_of_the_paper():
    fit, flops = fitted(), 1e21
    params, tokens, loss, interior = compute_optimal(fit, fit.theta, flops, six_n)
    total = LAW["alpha"] + LAW["beta"]
    ratio = LAW["alpha"] * LAW["A"] / (LAW["beta"] * LAW["B"])
    expected = ratio ** (1 / total) * (flops / 6) ** (LAW["beta"] / total)
    assert params[0] == pytest.approx(expected, rel=1e-6)
    assert 6 * params[0] * tokens[0] == pytest.approx(flops, rel=1e-12)
    assert loss[0] == pytest.approx(fit.predict({"params": params, "tokens": tokens})[0])
    assert interior[0]


def test_frontier_follows_the_exact_flops_and_not_6n():
    fit = fitted()

    def exact(n):
        return 6 * n + 4e4 * np.sqrt(n)

    params, tokens, loss, _ = compute_optimal(fit, fit.theta, 1e20, exact)
    assert tokens[0] * exact(params)[0] == pytest.approx(1e20, rel=1e-12)
    grid = params[0] * np.exp(np.linspace(-0.5, 0.5, 201))
    around = fit.predict({"params": grid, "tokens": 1e20 / exact(grid)})
    assert loss[0] <= around.min() * (1 + 1e-12)


def test_frontier_without_a_minimum_says_so():
    fit = fitted()
    flat = fit.form.theta(**(LAW | {"alpha": 1e-9}))
    assert not compute_optimal(replace(fit, theta=flat), flat, 1e20, six_n)[3][0]


def test_tied_exponents_are_one_parameter():
    form = FORMS["chinchilla_tied"]
    assert isinstance(form, SumOfPowers)
    assert form.coefficient_names == ("E", "A", "alpha", "B")


def test_changes_of_a_schedule_are_dated_between_records_and_jumps_at_theirs():
    """A warm-up to 1 at step 10, a small change after 20 and a jump at 40; two curves alike."""
    step, lr = np.array([10.0, 20, 30, 40]), np.array([1.0, 1, 0.95, 0.5])
    columns = {"curve": np.repeat([3.0, 8.0], 4), "step": np.tile(step, 2), "lr": np.tile(lr, 2)}
    found = FORMS["tissue"].prepare(columns)
    area = np.array([5, 15, 15 + 5 + 0.95 * 5, 15 + 5 + 0.95 * 15])
    np.testing.assert_allclose(found.area, np.tile(area, 2))
    rise = (np.arange(16) + 0.5) / 16  # the middles of the warm-up's steps
    for row in range(8):
        own, place = found.row == row, row % 4
        when, drop, now = 10 * rise, np.full(16, -1 / 16), rise + 0.5 / 16
        before = 5 * rise**2
        if place >= 2:
            when, drop, now = np.append(when, 25), np.append(drop, 0.05), np.append(now, 0.95)
            before = np.append(before, 20)
        if place == 3:
            when, drop, now = np.append(when, 40), np.append(drop, 0.45), np.append(now, 0.5)
            before = np.append(before, area[3])
        order = np.argsort(found.steps[own])[::-1]
        np.testing.assert_allclose(found.steps[own][order], step[place] - when, atol=1e-12)
        np.testing.assert_allclose(found.since[own][order], area[place] - before, atol=1e-12)
        np.testing.assert_allclose(found.drop[own][order], drop)
        np.testing.assert_allclose(found.log_lr[own][order], np.log(now))
    sums = found.sum_rows(found.drop[None])[0]
    np.testing.assert_allclose(sums, np.tile(-lr, 2), atol=1e-12)  # all changes make the rate


def test_a_multi_power_gain_is_the_sum_over_changes_by_hand():
    step, lr = np.array([10.0, 20, 30, 40]), np.array([1.0, 1, 0.95, 0.5])
    columns = {"curve": np.zeros(4), "step": step, "lr": lr}
    form = FORMS["multi_power"].placed(columns, np.ones(4))
    assert (form.peak, form.reach) == (1.0, pytest.approx(15 + 5 + 0.95 * 15))
    theta = form.theta(L0=2.0, A=0.5, alpha=0.4, B=3.0, C=0.7, beta=0.6, gamma=0.3)
    rows = form.prepare(columns)
    for row in range(4):
        own = rows.row == row
        lr_k, since, drop = np.exp(rows.log_lr[own]), rows.since[own], rows.drop[own]
        gain = sum(drop * (1 - (1 + 0.7 * lr_k**-0.3 * since) ** -0.6))
        expected = 2 + 0.5 * rows.area[row] ** -0.4 - 3 * gain
        found = np.exp(form.bind(columns).log_prediction(theta[None])[0, row])
        assert found == pytest.approx(expected)


def test_steps_of_a_curve_rise_and_each_curve_begins_anew():
    rows = {"curve": ["a", "a", "b", "b"], "step": [5.0, 9.0, 1.0, 2.0], "lr": [1e-3] * 4}
    columns = {name: np.array(values) for name, values in rows.items()}
    assert schedule_of(columns).area == pytest.approx([5e-3 / 2, 5e-3 / 2 + 4e-3, 5e-4, 1.5e-3])
    for steps in ([5.0, 4.0], [5.0, 5.0]):
        wrong = columns | {"step": np.array([*steps, 1.0, 2.0])}
        with pytest.raises(ValueError, match="step=: must rise within each curve"):
            schedule_of(wrong)


def test_rows_that_saw_their_data_once_are_the_base_where_they_are_enough():
    tokens, form = np.linspace(1e9, 9e9, 9), FORMS["data_constrained"]
    unique = np.where(np.arange(9) < 6, tokens, tokens / 2)  # once: as many tokens as unique ones
    once = form.base_rows({"tokens": tokens, "unique_tokens": unique})
    assert once.tolist() == [True] * 6 + [False] * 3
    few = np.where(np.arange(9) < 5, tokens, tokens / 2)  # as many as there are coefficients
    assert form.base_rows({"tokens": tokens, "unique_tokens": few}).all()


@pytest.mark.parametrize("name", [name for name in FORMS if not FORMS[name].choices])
def test_a_coefficient_that_is_held_is_held_whatever_the_others_are(name):
    _, _, columns, target = planted(name)
    rng = np.random.default_rng(3)
    for held in (p for p in FORMS[name].parameters if p.name not in FORMS[name].unheld):
        value = 0.9 * PLANTED[name][held.name]
        inside = FORMS[name].base.coefficient_names if FORMS[name].base else ()
        given = {held.name: value}
        form = FORMS[name].placed(columns, target, {n: PLANTED[name][n] for n in inside} | given)
        low, high = walls(form, given)
        draws = np.maximum(low, -3) + rng.random((5, len(low))) * (
            np.minimum(high, 3) - np.maximum(low, -3)
        )
        draws = np.where(low == high, low, draws)
        found = form.coefficients(draws)[held.name]
        assert found == pytest.approx(np.full(5, value), rel=1e-9), held.name


def test_kaplans_scales_are_held_at_their_values():
    _, _, columns, target = planted("kaplan")
    for held in ({"N_c": 1e13}, {"D_c": 1e13}, {"N_c": 6.4e13, "D_c": 1.8e13}):
        fit = fit_form(FORMS["kaplan"], columns, target, FitOptions(fixed=held))
        assert {n: fit.coefficients[n] for n in held} == pytest.approx(held, rel=1e-12)
        assert fit.converged
    assert fit.coefficients == pytest.approx(PLANTED["kaplan"], rel=1e-6)


def test_a_law_whose_coefficients_are_all_held_is_judged_as_it_is():
    runs = [
        Run(f"r{i}", n, d, 6 * n * d, 1.69 + 406 / n**0.34 + 411 / d**0.28)
        for i, (n, d) in enumerate(product((1e7, 3e7, 1e8, 3e8), (1e9, 3e9, 1e10)))
    ]
    law = fit_law(runs, "chinchilla", FitOptions(fixed=LAW, resamples=20)).to_dict()
    assert law["coefficients"] == pytest.approx(LAW)
    assert {v["reason"] for v in law["identified"].values()} == {"fixed, not fitted"}
    assert law["profile"] == {}
    assert law["condition"] == 1.0
    assert law["frontier"][0]["loss"] > LAW["E"]
    assert "fixed, not fitted" in describe(law)
