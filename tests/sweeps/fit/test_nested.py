"""Two forms of which one holds the other: does the table ask for the larger?"""

import numpy as np
import pytest
from scipy.stats import f as snedecor

from sweeps.fit.describe import describe
from sweeps.fit.forms.catalogue import FORMS
from sweeps.fit.law import fit_table
from sweeps.fit.optimum.nested import nested_test, nested_tests
from sweeps.fit.optimum.solve import fit_form
from sweeps.fit.options import DEFAULTS, FitOptions


def table(k, noise=0.003, seed=0):
    """Return a ladder of eight budgets times eight sizes and losses under an outer power k."""
    middle = np.geomspace(5e7, 2e9, 8)[:, None]
    params = (middle * np.geomspace(0.2, 5, 8)).ravel()
    tokens = np.repeat(np.geomspace(1e18, 1e21, 8), 8) / 6 / params
    loss = 1.7 + (400 / params**0.34 + 800 / tokens**0.31) ** k
    draws = np.random.default_rng(seed).standard_normal(len(params))
    return {"params": params, "tokens": tokens}, loss * np.exp(noise * draws)


def pair_of(k, options=DEFAULTS):
    columns, loss = table(k)
    small, large = (
        fit_form(FORMS[n], columns, loss, options, max_starts=6) for n in ("chinchilla", "skaling")
    )
    return nested_test(small, large), small, large


def test_additive_terms_are_kept_where_they_are_true_and_refused_where_they_are_not():
    true, _, _ = pair_of(1.0)
    assert (true.small, true.large, true.degrees) == ("chinchilla", "skaling", 1)
    assert true.p > 0.05
    false, _, _ = pair_of(0.5)
    assert false.p < 1e-4
    assert false.statistic > 15


def test_of_least_squares_it_is_the_f_test():
    found, small, large = pair_of(0.8, FitOptions(delta=float("inf")))
    one, two = (np.sum(fit.residuals**2) for fit in (small, large))
    ratio = (one - two) / (two / (64 - 6))
    assert found.statistic == pytest.approx(ratio, rel=1e-6)
    assert found.p == pytest.approx(snedecor.sf(ratio, 1, 58), rel=1e-5)


def test_a_tie_of_exponents_is_tested_alike_and_exact_data_ask_for_nothing():
    columns, loss = table(1.0, noise=0.0)
    tied, untied = (fit_form(FORMS[n], columns, loss) for n in ("chinchilla_tied", "chinchilla"))
    assert nested_test(tied, untied).p == 0
    outer = fit_form(FORMS["skaling"], columns, loss)
    assert (nested_test(untied, outer).statistic, nested_test(untied, outer).p) == (0, 1)


def test_fits_that_do_not_nest_are_refused():
    _, small, _ = pair_of(1.0)
    with pytest.raises(ValueError, match="chinchilla in chinchilla: must be fitted"):
        nested_test(small, small)
    columns, loss = table(1.0, seed=1)
    with pytest.raises(ValueError, match="to the same rows"):
        nested_test(small, fit_form(FORMS["skaling"], columns, loss, max_starts=1))


def rows(k):
    columns, loss = table(k)
    each = zip(columns["params"], columns["tokens"], loss, strict=True)
    return [{"params": n, "tokens": d, "loss": y} for n, d, y in each]


@pytest.mark.heavy
def test_a_law_says_whether_its_rows_ask_for_the_larger_form():
    few = FitOptions(resamples=20)
    named, chosen = (fit_table(rows(0.5), form, few) for form in ("skaling", "auto"))
    assert "nested" not in fit_table(rows(0.5), "chinchilla", few)
    for law in (named, chosen):
        (test,) = law["nested"]
        assert (test["small"], test["large"], test["degrees"]) == ("chinchilla", "skaling", 1)
        assert test["statistic"] == pytest.approx(pair_of(0.5)[0].statistic, rel=1e-3)
        assert test["p"] < 1e-4
        assert "these runs ask for the larger form" in describe(law)


def test_a_held_outer_power_leaves_nothing_to_test():
    columns, loss = table(0.5)
    held = FitOptions(fixed={"k": 0.5})
    fits = {
        "chinchilla": fit_form(FORMS["chinchilla"], columns, loss, max_starts=2),
        "skaling": fit_form(FORMS["skaling"], columns, loss, held, max_starts=2),
    }
    assert nested_tests(fits) == []
