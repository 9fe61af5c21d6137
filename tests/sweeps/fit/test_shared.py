"""One form for two recipes: what they share, by the runs of both."""

import numpy as np
import pytest

from sweeps.fit.forms.catalogue import CHINCHILLA, FRONTIER
from sweeps.fit.forms.shared import RECIPE, Shared
from sweeps.fit.optimum.shared import APART, FLOORS, SCALED, fit_shared
from sweeps.fit.optimum.solve import fit_form
from sweeps.fit.options import FitOptions
from sweeps.fit.trust.bootstrap import bootstrap_fit, resample_counts

NAMES = ("plain", "better")
EVERY = FitOptions()
TRUE = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}


def rows(noise=0.0, seed=0, factor=1.5, steeper=0.0, floor=0.0):
    """Return two isoFLOP tables; the second needs `factor` fewer tokens, and may differ in form."""
    rng = np.random.default_rng(seed)
    found = []
    for place in (0, 1):
        for flops in 1e18 * 4.0 ** np.arange(4):
            for params in 0.6 * (flops / 6) ** 0.45 * np.geomspace(0.3, 3.3, 5):
                tokens = flops / 6 / params
                seen = tokens * factor**place
                size = TRUE["A"] / params ** (TRUE["alpha"] + steeper * place)
                loss = TRUE["E"] + floor * place + size + TRUE["B"] / seen ** TRUE["beta"]
                found.append((params, tokens, place, loss * np.exp(noise * rng.standard_normal())))
    params, tokens, place, loss = np.array(found).T
    return {"params": params, "tokens": tokens, RECIPE: place}, loss


@pytest.mark.heavy
def test_a_recipe_that_counts_tokens_half_again_differs_by_one_amplitude():
    columns, loss = rows()
    found = fit_shared(CHINCHILLA, NAMES, columns, loss, EVERY)
    assert found.chosen == SCALED
    got = found.fits[SCALED].coefficients
    assert {k: got[k] for k in ("E", "alpha", "beta")} == pytest.approx(
        {k: TRUE[k] for k in ("E", "alpha", "beta")}, rel=1e-6
    )
    assert got["A[better]"] == pytest.approx(got["A[plain]"], rel=1e-6)
    assert (got["B[plain]"] / got["B[better]"]) ** (1 / got["beta"]) == pytest.approx(1.5)


@pytest.mark.heavy
def test_with_nothing_shared_it_is_two_fits():
    columns, loss = rows(noise=0.004)
    whole = fit_shared(CHINCHILLA, NAMES, columns, loss, EVERY).fits[APART]
    for place, name in enumerate(NAMES):
        own = columns[RECIPE] == place
        alone = fit_form(CHINCHILLA, {k: columns[k][own] for k in ("params", "tokens")}, loss[own])
        for key, value in alone.coefficients.items():
            assert whole.coefficients[f"{key}[{name}]"] == pytest.approx(value, rel=1e-4)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("change", "chosen"),
    [({}, SCALED), ({"floor": 0.1}, FLOORS), ({"steeper": 0.03}, APART)],
)
def test_the_runs_say_what_recipes_share(change, chosen):
    found = fit_shared(CHINCHILLA, NAMES, *rows(noise=0.002, **change), EVERY)
    assert found.chosen == chosen
    less, more = (found.fits[name].objective for name in (SCALED, APART))
    assert more <= found.fits[FLOORS].objective <= less
    assert found.alike.p < 1e-3


@pytest.mark.heavy
def test_a_form_of_compute_alone_is_shared_alike():
    flops = np.geomspace(1e18, 1e21, 8)
    columns = {"flops": np.tile(flops, 2), RECIPE: np.repeat([0.0, 1.0], 8)}
    loss = 1.8 + 30 * (columns["flops"] * np.repeat([1, 2], 8)) ** -0.08
    found = fit_shared(FRONTIER, NAMES, columns, loss, EVERY)
    got = found.fits[SCALED].coefficients
    assert (got["A[plain]"] / got["A[better]"]) ** (1 / got["alpha"]) == pytest.approx(2, rel=1e-4)


def test_coefficients_and_theta_are_inverse_and_every_recipe_has_its_form():
    columns, loss = rows()
    form = Shared(CHINCHILLA, NAMES, ("A", "B")).placed(columns, loss)
    assert form.equation.endswith("; shared: E, alpha, beta")
    phi = form.features(columns)
    mine = np.isin(form.index[0], form.index[1], invert=True)
    assert (phi[:, columns[RECIPE] == 1][:, :, form.index[0][mine]] == 0).all()
    theta = np.random.default_rng(1).normal(0.3, 0.1, len(form.parameters))
    values = {k: float(v) for k, v in form.coefficients(theta).items()}
    assert list(values) == ["E", "A[plain]", "A[better]", "alpha", "B[plain]", "B[better]", "beta"]
    assert form.theta(**values) == pytest.approx(theta)
    assert form.from_nested(values) == values
    assert form.from_nested({"E": 1.0, "A": 2.0})["A[better]"] == 2.0
    whole = form.bind(columns).log_prediction(theta[None])[0]
    assert form.log_loss_each(theta[None], columns)[0] == pytest.approx(whole)
    for place in (0, 1):
        own = columns[RECIPE] == place
        single = form.single.bind({k: v[own] for k, v in columns.items()})
        of_one = form.of_recipe(theta[None], place)
        assert single.log_prediction(of_one)[0] == pytest.approx(whole[own])
        assert form.of_recipe(np.stack(form.bounds()), place) == pytest.approx(
            np.stack(form.single.bounds())
        )
    with pytest.raises(AssertionError):
        Shared(CHINCHILLA, NAMES, ("A", "alpha", "beta"))


def test_its_start_at_fixed_exponents_is_linear_in_each_recipe_s_amplitudes():
    columns, loss = rows()
    form = Shared(CHINCHILLA, NAMES, ("E", "A", "B")).placed(columns, loss)
    basis, outer = form.basis(np.array([[0.34, 0.28]]), columns)
    assert basis.shape == (1, 6, len(loss))
    assert outer == pytest.approx(1)
    amplitudes = np.linalg.lstsq(basis[0].T, loss, rcond=None)[0]
    assert amplitudes @ basis[0] == pytest.approx(loss, rel=1e-9)


@pytest.mark.heavy
def test_strata_are_redrawn_each_by_itself():
    strata = [0] * 3 + [1] * 5
    counts = resample_counts(range(8), 40, 0, strata)
    assert (counts[:, :3].sum(axis=1) == 3).all()
    assert (counts[:, 3:].sum(axis=1) == 5).all()
    assert counts.std() > 0
    columns, loss = rows(noise=0.003)
    fit = fit_shared(CHINCHILLA, NAMES, columns, loss, EVERY).fits[SCALED]
    boot = bootstrap_fit(fit, range(len(loss)), 20, strata=columns[RECIPE].tolist())
    assert boot.failed == 0
    assert (boot.weights[:, columns[RECIPE] == 0].sum(axis=1) == 20).all()
