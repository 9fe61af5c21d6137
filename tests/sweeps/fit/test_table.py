"""Any table and any form from the command line: the keys of the result, and bad input by name."""

import csv
import json

import numpy as np
import pytest

from sweeps.fit.__main__ import main
from sweeps.fit.forms.catalogue import FORMS
from sweeps.fit.law import fit_table
from sweeps.fit.options import FitOptions

KEYS = {
    "form", "coefficients", "objective", "intervals", "starts", "identified", "frontier",
    "residuals", "warnings",
}  # fmt: skip
BASE = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}
FEW = ["resamples=40"]


def write(path, columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def some(noise=0.003, num=40, seed=0):
    rng = np.random.default_rng(seed)
    params, tokens = 10 ** rng.uniform(7, 9.5, num), 10 ** rng.uniform(9, 11, num)
    width, depth = 2 ** rng.uniform(8, 12, num), rng.uniform(4, 40, num)
    wiggle = np.exp(noise * rng.standard_normal(num))
    flops = 6 * params * tokens
    return {
        "params": params,
        "tokens": tokens,
        "unique_tokens": tokens / rng.choice([1, 2, 8], num),
        "flops": flops,
        "width": width,
        "depth": depth,
        "x": flops,
        "loss": (1.69 + 406.4 / params**0.34 + 410.7 / tokens**0.28) * wiggle,
        "fid": (3 + 3e7 / flops**0.32) * wiggle,
        "lr": 1.8 * params**-0.7 * tokens**0.3 * wiggle,
        "batch": 0.57 * tokens**0.57 * wiggle,
    }


def run(tmp_path, columns, *arguments):
    table, out = write(tmp_path / "t.csv", columns), tmp_path / "law.json"
    assert main([f"table={table}", f"out={out}", *FEW, *arguments]) == 0
    return json.loads(out.read_text())


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("form", "arguments"),
    [
        ("chinchilla_tied", ["flops=[1e20]"]),
        ("kaplan", ["flops=[1e20]"]),
        ("overtraining", ["flops=[1e20]"]),
        ("data_constrained", [f"fixed.{k}={v}" for k, v in BASE.items()]),
        ("width_depth", []),
        ("frontier", ["flops=[1e20,1e22]"]),
        ("power", ["columns.loss=fid"]),
        ("quality", []),
        ("lr", []),
        ("batch", []),
    ],
)  # fmt: skip
def test_every_form_writes_the_same_keys(tmp_path, capsys, form, arguments):
    law = run(tmp_path, some(), f"form={form}", *arguments)
    assert set(law) >= KEYS
    assert law["form"] == form
    assert set(law["coefficients"]) == set(FORMS[form].coefficient_names)
    assert set(law["identified"]) == set(law["intervals"]) == set(law["coefficients"])
    assert set(law["starts"]) == {"tried", "agreeing"}
    assert len(law["residuals"]) == 40
    if "flops=" in "".join(arguments):
        assert [p["flops"] for p in law["frontier"]] == json.loads(arguments[-1].split("=")[1])
    assert "identified" in capsys.readouterr().out


def test_an_lr_law_is_found_in_its_interval(tmp_path):
    law = run(tmp_path, some(), "form=lr", "level=.99")
    assert law["coefficients"]["a"] == pytest.approx(0.7, abs=0.01)
    low, high = law["intervals"]["b"]
    assert low < -0.3 < high
    assert law["identified"]["a"]["ok"]


def test_a_grid_of_runs_gives_the_optimum_of_each_point_first(tmp_path):
    rows = {k: [] for k in ("params", "tokens", "lr", "batch", "loss")}
    for params in (1e8, 3e8, 1e9):
        for tokens in (2e9, 8e9, 3.2e10):
            best = np.log([2.0 * params**-0.6 * tokens**0.2, 0.5 * tokens**0.57])
            for i in range(-3, 4):
                for j in range(-3, 4):
                    # The last point's best learning rate is at the end of those tried.
                    shift = 3 if (params, tokens) == (1e9, 3.2e10) else 0.3
                    off = np.log(2) * np.array([i + shift, j - 0.2])
                    rows["params"].append(params)
                    rows["tokens"].append(tokens)
                    rows["lr"].append(np.exp(best[0] + off[0]))
                    rows["batch"].append(np.exp(best[1] + off[1]))
                    rows["loss"].append(2.0 * np.exp(0.01 * off[0] ** 2 + 0.005 * off[1] ** 2))
    law = run(tmp_path, rows, "form=lr")
    assert law["coefficients"] == pytest.approx({"c": 2.0, "a": 0.6, "b": -0.2}, rel=1e-6)
    assert len(law["residuals"]) == 8
    assert "best lr is at an edge" in law["excluded"][0]["reason"]
    assert run(tmp_path, rows, "form=batch")["coefficients"]["b"] == pytest.approx(-0.57)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """Return the law of the usual table, asked for all that it can say beside: fitted once."""
    folder = tmp_path_factory.mktemp("usual")
    other = write(folder / "other.csv", some(seed=1))
    return run(folder, some(), f"predict={other}", "flops=[1e20]", "sizes=[1e8,4e8,1e9]")


@pytest.mark.heavy
def test_rows_of_another_table_are_predicted_with_their_error(usual):
    found = usual["predictions"]
    assert len(found["rows"]) == 40
    assert found["mean_absolute_relative_error"] < 0.01
    assert found["r2"] > 0.98
    assert all(r["interval"][0] <= r["predicted"] <= r["interval"][1] for r in found["rows"])


@pytest.mark.heavy
def test_whole_curves_predict_another_schedule(tmp_path, capsys):
    step = np.arange(500.0, 8001, 250)

    def curve(name, rate):
        area = 0.5 * 500 * 3e-4 + np.concatenate([[0], np.cumsum(250 * (rate[1:] + rate[:-1]) / 2)])
        loss = 2.6 + 0.6 * area**-0.45 - 300 * (3e-4 - rate)
        return {"curve": [name] * len(step), "step": step, "lr": rate, "loss": loss}

    part = (step - 500) / 7500
    cosine = curve("cosine", 3e-5 + 1.35e-4 * (1 + np.cos(np.pi * part)))
    linear = curve("linear", 3e-4 - 2.7e-4 * part)
    unseen = curve("half", 3e-4 - 2.7e-4 * np.clip(2 * part - 1, 0, 1))
    both = {k: np.concatenate([cosine[k], linear[k]]) for k in cosine}
    write(tmp_path / "unseen.csv", unseen)
    law = run(tmp_path, both, "form=tissue", f"predict={tmp_path / 'unseen.csv'}")
    assert law["predictions"]["mae"] < 0.02
    assert law["predictions"]["r2"] > 0.98
    assert "unseen rows predicted" in capsys.readouterr().out


def test_a_curve_out_of_order_is_refused(tmp_path, capsys):
    rows = {"step": [100, 300, 200, 400, 500, 600, 700], "lr": [3e-4] * 7, "loss": [3.0] * 7}
    table = write(tmp_path / "t.csv", rows)
    assert main([f"table={table}", "form=tissue"]) == 2
    assert "step=: must rise within each curve" in capsys.readouterr().err


def test_minima_of_budgets_make_a_line_and_refuse_an_open_valley(tmp_path):
    rows = {"params": [], "flops": [], "loss": []}
    for i, flops in enumerate(1e17 * 4.0 ** np.arange(5)):
        middle = (
            1e7 * 4.0 ** (0.5 * i) * (100 if i == 4 else 1)
        )  # the last one's best is at its end
        for offset in np.linspace(-2, 2, 7):
            rows["params"].append(1e7 * 4.0 ** (0.5 * i) * np.exp(offset))
            rows["flops"].append(flops)
            shift = np.log(rows["params"][-1] / middle)
            rows["loss"].append(3 * np.exp(0.03 * shift**2 - 0.05 * i))
    law = run(tmp_path, rows, "form=minima", "noise=.002", "flops=[1e20]")
    assert set(law) >= KEYS
    assert law["coefficients"]["a"] == pytest.approx(0.5, abs=0.02)
    assert [m["interior"] for m in law["minima"]] == [True] * 4 + [False]
    assert any("refused: the best size is at an end" in w for w in law["warnings"])
    assert law["frontier"][0]["params"] == pytest.approx(1e7 * 1e3**0.5, rel=0.1)


@pytest.mark.heavy
def test_buildable_sizes_round_the_recommendation(usual):
    (point,) = usual["frontier"]
    assert point["feasible"]["params"] in (1e8, 4e8, 1e9)
    assert point["feasible"]["loss"] >= point["loss"]
    assert 6 * point["feasible"]["params"] * point["feasible"]["tokens"] == pytest.approx(1e20)


@pytest.mark.heavy
def test_three_approaches_stand_side_by_side_with_the_bias_of_the_second(tmp_path):
    rows = {"params": [], "tokens": [], "loss": [], "budget": []}
    for flops in 1e18 * 4.0 ** np.arange(5):
        for factor in np.geomspace(0.2, 5, 7):
            n = 0.6 * (flops / 6) ** 0.45 * factor
            d = flops / 6 / n
            rows["params"].append(n)
            rows["tokens"].append(d)
            rows["budget"].append(flops)
            rows["loss"].append(1.69 + 406.4 / n**0.34 + 410.7 / d**0.28)
    law = run(tmp_path, rows)
    found = law["exponents"]
    true = 0.28 / 0.62
    assert found["approach_3"]["params"] == pytest.approx(true, rel=1e-9)
    assert found["approach_1"]["params"] == pytest.approx(true, abs=0.1)
    bias = found["approach_2"]["params"] - found["approach_3"]["params"]
    assert found["approach_2_bias"]["exponent"] == pytest.approx(bias, abs=1e-6)


def test_what_nobody_can_justify_is_varied(usual):
    changes = [row["change"] for row in usual["sensitivity"]]
    assert changes[:3] == ["none", "delta=0.0001", "delta=0.01"]
    assert any("without the 4 largest runs" in c for c in changes)
    first = usual["sensitivity"][0]["quantity"]
    assert all(abs(row["quantity"] / first - 1) < 0.05 for row in usual["sensitivity"])


@pytest.mark.heavy
def test_profile_intervals_hold_the_optimum_and_the_truth(tmp_path):
    law = run(tmp_path, some(num=80), "level=.99")
    for name, true in (("E", 1.69), ("alpha", 0.34), ("beta", 0.28)):
        low, high = law["profile"][name]
        assert low < law["coefficients"][name] < high
        assert low < true < high


@pytest.mark.heavy
def test_flops_stand_in_for_tokens_and_the_highest_losses_can_be_dropped(tmp_path):
    columns = some()
    columns = {"N": columns["params"], "C": columns["flops"], "loss": columns["loss"]}
    law = run(tmp_path, columns, "params=N", "columns.flops=C", "drop_highest=2")
    assert len(law["excluded"]) == 2
    assert len(law["residuals"]) == 38
    assert any("taken as flops / (6 params)" in w for w in law["warnings"])


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ({"tokens": None}, [], "not a column of t.csv"),
        ({"params": "nan"}, [], "must be finite and above 0"),
        ({}, ["form=width_depth", "columns.depth=layers"], "depth=layers: not a column"),
        ({}, ["columns.params=loss", "columns.loss=params"], "look swapped"),
        ({}, ["fixed.gamma=1"], "fixed.gamma=: not a coefficient of chinchilla"),
        ({}, ["residual=square"], "residual=square: is not known"),
        ({}, ["delta=0"], "delta=0.0: must be above 0"),
        ({}, ["mean=perhaps"], "cannot be read"),
        ({}, ["form=minima"], "the runs do not group by compute"),
    ],
)
def test_bad_input_is_named(tmp_path, capsys, change, arguments, said):
    columns = {k: list(v) for k, v in some(num=12).items()}
    if change.get("tokens", "") is None:
        del columns["tokens"], columns["flops"]
    if "params" in change:
        columns["params"][3] = "nan"
    table = write(tmp_path / "t.csv", columns)
    assert main([f"table={table}", *FEW, *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c: c | {"loss": np.where(np.arange(40) == 3, np.nan, c["loss"])}, "loss is nan"),
        (lambda c: c | {"params": np.full(40, 1e8)}, "All runs have one size (params)"),
        (lambda c: c | {"params": c["tokens"], "tokens": c["params"]}, "params and tokens look"),
        (lambda c: c | {"loss": 0.1 * c["params"] ** 0.1}, "Loss rises with params"),
        (
            lambda c: {k: np.append(v, v[:1]) for k, v in c.items()},
            "Exact duplicates (params, tokens, loss), 1 run",
        ),
    ],
)
def test_doubtful_tables_are_fitted_with_a_warning_that_names_it(tmp_path, spoil, said):
    table = write(tmp_path / "t.csv", spoil(some()))
    law = fit_table(table, options=FitOptions(resamples=20))
    assert any(said in w for w in law["warnings"]), law["warnings"]


@pytest.mark.heavy
def test_lines_of_json_are_a_table_too(tmp_path):
    columns = {k: v for k, v in some().items() if k in ("params", "tokens", "loss")}
    path = tmp_path / "t.jsonl"
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    law = fit_table(path, options=FitOptions(resamples=20))
    same = fit_table(write(tmp_path / "t.csv", columns), options=FitOptions(resamples=20))
    assert law["coefficients"] == pytest.approx(same["coefficients"])
    path.write_text("{not json")
    with pytest.raises(ValueError, match="one JSON object a line"):
        fit_table(path)


def test_help_names_every_form_with_its_columns():
    text = main.help()
    for form in FORMS.values():
        assert form.name in text
        assert form.equation in text
