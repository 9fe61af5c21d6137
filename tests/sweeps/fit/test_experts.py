"""A law of active and total parameters: dense models are Chinchilla's, experts move both terms."""

import numpy as np
import pytest

from sweeps.fit.forms.catalogue import FORMS
from sweeps.fit.law import fit_table
from sweeps.fit.options import FitOptions

LAW = {
    "E": 1.5, "A": 400.0, "alpha": 0.32, "delta": 0.6, "gamma": -0.02, "B": 700.0, "beta": 0.3,
    "omega": -0.5, "zeta": 0.02,
}  # fmt: skip


def loss_of(n, d, s):
    v = LAW
    first = v["A"] * s ** -v["delta"] / n ** (v["alpha"] + v["gamma"] * np.log(s))
    return v["E"] + first + v["B"] * s ** -v["omega"] / d ** (v["beta"] + v["zeta"] * np.log(s))


def test_the_formula_is_that_of_its_equation_and_dense_rows_are_chinchillas():
    n, d = np.array([1e8, 3e8, 2e9]), np.array([2e9, 5e10, 1e11])
    form = FORMS["experts"]
    for s in (1.0, np.array([2.0, 8.0, 32.0])):
        columns = {"params_active": n, "params_total": n * s, "tokens": d}
        found = np.exp(form.bind(columns).log_prediction(form.theta(**LAW)[None])[0])
        np.testing.assert_allclose(found, loss_of(n, d, s), rtol=1e-12)
    np.testing.assert_allclose(loss_of(n, d, 1.0), 1.5 + 400 / n**0.32 + 700 / d**0.3, rtol=1e-12)


def table(tmp_path, swapped=False):
    lines = ["params_active,params_total,tokens,loss"]
    rng = np.random.default_rng(0)
    for n in (5e7, 2e8, 8e8):
        for s in (1.0, 4.0, 16.0):
            for ratio in (5, 20, 80):
                loss = loss_of(n, ratio * n, s) * np.exp(0.001 * rng.standard_normal())
                lines.append(
                    f"{n * s if swapped else n},{n if swapped else n * s},{ratio * n},{loss}"
                )
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_of_experts_is_fitted_and_predicted(tmp_path):
    unseen = tmp_path / "unseen.csv"
    unseen.write_text("params_active,params_total,tokens\n1.6e9,1.28e10,3.2e10\n")
    found = fit_table(table(tmp_path), "experts", FitOptions(resamples=50), predict=unseen)
    assert found["excluded"] == []
    (row,) = found["predictions"]["rows"]
    assert row["predicted"] == pytest.approx(loss_of(1.6e9, 3.2e10, 8.0), rel=0.005)
    assert row["interval"][0] < row["predicted"] < row["interval"][1]
    assert found["coefficients"]["E"] == pytest.approx(1.5, rel=0.1)


def test_more_active_than_total_parameters_are_refused(tmp_path):
    with pytest.raises(ValueError, match="params_total=: is below params_active in 18 rows"):
        fit_table(table(tmp_path, swapped=True), "experts")
