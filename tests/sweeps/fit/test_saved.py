"""A law that was written is read back as it was, or refused in words."""

import json

import numpy as np
import pytest

from sweeps.fit.forms.catalogue import FORMS, LOSS_FORMS
from sweeps.fit.law import fit_law
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.runs import Run
from sweeps.fit.saved import read_law


def some_runs():
    rng = np.random.default_rng(3)
    runs = []
    for budget in (3e11, 1e12, 3e12, 1e13):
        for params in np.sqrt(budget / 120) * np.geomspace(0.25, 4, 5):
            tokens = budget / 6 / params
            loss = 0.25 + 30 / params**0.42 + 900 / tokens**0.45
            loss *= float(np.exp(0.003 * rng.standard_normal()))
            runs.append(Run(f"{params:.0f}", params, tokens, budget, loss))
    return runs


# Fitting each takes half a second; the fast tests read back the two that differ most.
QUICK = ("chinchilla", "kaplan")
EACH = [pytest.param(name, marks=() if name in QUICK else pytest.mark.heavy) for name in LOSS_FORMS]


@pytest.fixture(scope="module", params=EACH)
def pair(request, tmp_path_factory):
    law = fit_law(some_runs(), request.param, FitOptions(resamples=20))
    path = tmp_path_factory.mktemp("law") / "law.json"
    path.write_text(json.dumps(law.to_dict()))
    return law, read_law(path)


@pytest.mark.heavy
def test_a_law_read_back_predicts_what_was_fitted(pair):
    law, saved = pair
    params, tokens = np.geomspace(1e3, 1e9, 7), np.geomspace(1e10, 1e6, 7)
    np.testing.assert_allclose(
        saved.predict(params, tokens), law.predict(params, tokens), rtol=1e-12
    )
    assert saved.coefficients == law.fit.coefficients
    assert saved.floor == law.fit.coefficients.get("E", 0.0)
    assert saved.warnings == law.warnings
    assert saved.largest_flops == pytest.approx(max(run.flops for run in law.runs))
    assert saved.budgets == [budget for budget, _ in law.budgets]


@pytest.mark.heavy
def test_its_optimum_is_that_of_the_fit(pair):
    law, saved = pair
    for point, row in zip(law.frontier, saved.frontier, strict=True):
        assert (row.params, row.tokens, row.loss) == (point.params, point.tokens, point.loss)
        assert row.loss_interval == point.intervals["loss"]
        params, tokens, loss = saved.optimum(point.flops, law.flops_per_token)
        assert loss == pytest.approx(point.loss, rel=1e-12)
        assert params == pytest.approx(point.params, rel=1e-5)
        assert tokens == pytest.approx(point.tokens, rel=1e-5)


@pytest.fixture(scope="module")
def whole():
    return fit_law(some_runs(), "chinchilla", FitOptions(resamples=1)).to_dict()


def changed(tmp_path, law, **changes):
    path = tmp_path / "law.json"
    path.write_text(json.dumps(law | changes))
    return path


@pytest.mark.parametrize("form", [name for name in FORMS if name not in LOSS_FORMS])
def test_a_law_of_other_columns_is_refused_by_name(tmp_path, form):
    path = tmp_path / "law.json"
    path.write_text(json.dumps({"form": form, "coefficients": {"E": 1.0}}))
    with pytest.raises(ValueError, match=f"form={form}: is no law of params and tokens"):
        read_law(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"form": "cubic"}, "form=cubic: is not known"),
        ({"coefficients": None, "warnings": ["No law was fitted: why"]}, "No law was fitted: why"),
        ({"coefficients": {"E": 1.0}}, "is not whole"),
        ({"coefficients": {"E": 1, "A": -1, "alpha": 1, "B": 1, "beta": 1}}, "must be above 0"),
        ({"coefficients": [1.0]}, "is not whole"),
        ({"residuals": None}, "is not whole"),
        ({"residuals": []}, "names no run"),
        ({"frontier": []}, "has no frontier"),
        ({"frontier": [{"flops": 1e12, "params": None}]}, "is not whole"),
    ],
)
def test_a_file_that_holds_no_law_is_refused_in_words(tmp_path, whole, changes, said):
    path = changed(tmp_path, whole, **changes)
    with pytest.raises(ValueError) as caught:
        read_law(path)
    assert str(caught.value).startswith(f"law={path}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", "{"])
def test_a_file_that_is_no_law_at_all_is_refused(tmp_path, text):
    path = tmp_path / "law.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"cannot be read|names no form"):
        read_law(path)
