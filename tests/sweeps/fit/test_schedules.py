"""Of laws of curves that is taken which predicts a schedule left out of its fit."""

import numpy as np
import pytest

from sweeps.fit.forms.catalogue import FORMS
from sweeps.fit.law import fit_table
from sweeps.fit.optimum.schedules import chosen_by_schedule
from sweeps.fit.options import FitOptions

LAWS = {
    "tissue": {"L0": 2.6, "A": 0.6, "alpha": 0.45, "C": 2.0, "lambda": 0.998},
    "multi_power_tied": {"L0": 2.65, "A": 0.6, "alpha": 0.45, "B": 440.0, "C": 2.1, "gamma": 0.65},
}


def curves(law, num=12):
    """Return a cosine, a constant and two two-stage curves of `law` with noise of 1e-4."""
    step = np.linspace(500, 8000, num)
    part = (step - step[0]) / (step[-1] - step[0])
    rates = [3e-5 + 1.35e-4 * (1 + np.cos(np.pi * part)), np.full(num, 3e-4)]
    rates += [np.where(part < 0.5, 3e-4, low) for low in (9e-5, 3e-5)]
    columns = {
        "curve": np.repeat(np.arange(4.0), num), "step": np.tile(step, 4),
        "lr": np.concatenate(rates),
    }  # fmt: skip
    form = FORMS[law]
    logs = form.bind(columns).log_prediction(form.theta(**LAWS[law])[None])[0]
    return columns, np.exp(logs + 1e-4 * np.random.default_rng(0).standard_normal(len(logs)))


@pytest.mark.heavy
@pytest.mark.parametrize("law", list(LAWS))
def test_the_law_that_made_the_curves_is_chosen(law):
    choice = chosen_by_schedule([FORMS[name] for name in LAWS], *curves(law))
    assert choice.form.name == law
    assert choice.errors[law] < 1e-3  # the other one's error is larger, or rests on a wall
    assert all(e is None or e > choice.errors[law] for n, e in choice.errors.items() if n != law)
    assert choice.note.startswith(f"form={law} is chosen: each of the 4 curves was left out")


def written(path, columns, loss, rows):
    cells = [f"c{columns['curve'][i]:g},{columns['step'][i]},{columns['lr'][i]},{loss[i]}"
             for i in np.flatnonzero(rows)]  # fmt: skip
    path.write_text("\n".join(["curve,step,lr,loss", *cells]) + "\n")
    return path


@pytest.mark.heavy
def test_the_error_of_curves_is_the_mean_of_each_ones_own(tmp_path):
    columns, loss = curves("tissue")
    one = written(tmp_path / "one.csv", columns, loss, columns["curve"] == 0)
    long = (columns["curve"] == 1) | ((columns["curve"] == 2) & (columns["step"] > 6000))
    unseen = written(tmp_path / "unseen.csv", columns, loss, long)
    found = fit_table(one, "curves", FitOptions(resamples=2), predict=unseen)
    assert found["form"] == "multi_power_tied"
    assert any("1 curve leaves none to choose a form by" in w for w in found["warnings"])
    rows = found["predictions"]["rows"]
    miss = np.array([abs(row["predicted"] - row["loss"]) for row in rows])
    assert len(miss) == 15
    each = found["predictions"]["mae_by_curve"]
    assert each == {"c1": pytest.approx(miss[:12].mean()), "c2": pytest.approx(miss[12:].mean())}
    assert found["predictions"]["mae_of_curves"] == pytest.approx((each["c1"] + each["c2"]) / 2)
    assert found["predictions"]["mae"] == pytest.approx(miss.mean())
