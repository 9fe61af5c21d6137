"""When a law is believed: edges of every rule, and refits that stand beside its own."""

from dataclasses import replace

import numpy as np
import pytest

from sweeps.fit.forms.catalogue import CHINCHILLA
from sweeps.fit.law import fit_table
from sweeps.fit.optimum.profile import Profile
from sweeps.fit.optimum.solve import condition_number, fit_form
from sweeps.fit.options import FitOptions
from sweeps.fit.trust.bootstrap import (
    Bootstrap,
    bootstrap_fit,
    coefficient_intervals,
    least_values,
    resample_counts,
)
from sweeps.fit.trust.identified import identified, warn_fit
from sweeps.fit.trust.odd_rows import listed, repeats, warn_rows
from sweeps.fit.trust.sensitivity import sensitivity

TRUE = {"E": 0.25, "A": 30.0, "alpha": 0.42, "B": 900.0, "beta": 0.55}


def table(noise=0.003):
    params = (np.geomspace(6e3, 6e5, 5)[:, None] * np.geomspace(0.3, 3.0, 5)).ravel()
    tokens = np.repeat(np.geomspace(3e11, 6e13, 5), 5) / 6 / params
    loss = 0.25 + 30 / params**0.42 + 900 / tokens**0.55
    draw = np.random.default_rng(4).standard_normal(25)
    return {"params": params, "tokens": tokens}, loss * np.exp(noise * draw)


@pytest.fixture(scope="module")
def fit():
    """Return the law, fitted to rows with a little noise."""
    return fit_form(CHINCHILLA, *table())


def boot_of(fit, **factors):
    """Return two draws of every coefficient: its value, and a factor times it."""
    values = fit.coefficients
    theta = np.stack(
        [fit.form.theta(**values), fit.form.theta(**{n: v * factors.get(n, 1.0) for n, v in
                                                     values.items()})]
    )  # fmt: skip
    return Bootstrap(theta, np.ones((2, 25)), 2, 0.0, 1 - 1e-12)


@pytest.mark.parametrize(
    ("name", "most"), [("E", 1.5), ("A", 30.0), ("alpha", 2.0), ("B", 30.0), ("beta", 2.0)]
)
def test_an_interval_may_span_so_large_a_factor_and_no_more(fit, name, most):
    for factor, ok in ((0.99 * most, True), (1.01 * most, False), (1 / (1.01 * most), False)):
        boot = boot_of(fit, **{name: factor})
        low, high = coefficient_intervals(fit, boot)[name]
        assert high / low == pytest.approx(max(factor, 1 / factor), rel=1e-6)
        verdicts = identified(fit, boot, {})
        assert verdicts[name]["ok"] == ok
        assert all(verdicts[other]["ok"] for other in TRUE if other != name)
        if not ok:
            assert f"more than {most:g}" in verdicts[name]["reason"]


def test_an_interval_that_reaches_zero_or_holds_nothing_identifies_nothing(fit):
    boot = boot_of(fit, alpha=-0.5)
    assert "reaches 0" in identified(fit, boot, {})["alpha"]["reason"]
    none = replace(boot, theta=boot.theta[:0])
    assert identified(fit, none, {})["beta"]["reason"] == "no bootstrap resample could be fitted"


def test_a_profile_counts_where_there_is_one(fit):
    boot, value = boot_of(fit), fit.coefficients["alpha"]
    narrow, wide = ((value, value * factor) for factor in (1.9, 2.1))
    for profile, said in (
        (Profile(narrow, True), None),
        (Profile(wide, True), "its likelihood profile ["),
        (Profile((float("nan"), value), False), "its likelihood profile stays open below"),
        (Profile((value, float("nan")), False), "its likelihood profile stays open above"),
    ):
        reason = identified(fit, boot, {"alpha": profile})["alpha"]["reason"]
        assert (reason is None) if said is None else reason.startswith(said)


def test_a_floor_must_lie_between_a_hundredth_of_the_least_loss_and_that_loss(fit):
    least = float(fit.target.min())
    for floor, said in (
        (0.0099 * least, "E is near 0"),
        (0.0101 * least, None),
        (0.999 * least, None),
        (1.001 * least, "E is not below the least loss"),
    ):
        moved = replace(fit, theta=fit.form.theta(**(fit.coefficients | {"E": floor})))
        reason = identified(moved, boot_of(moved), {})["E"]["reason"]
        assert (reason is None) if said is None else reason.startswith(said), floor


def test_a_power_needs_three_values_over_a_doubling(fit):
    assert least_values(fit) == {"params": 3, "tokens": 3}
    two = replace(fit, columns=fit.columns | {"params": np.repeat([1e4, 4e4], [12, 13])})
    said = identified(two, boot_of(fit), {})
    for name in ("A", "alpha"):
        assert said[name]["reason"] == "only 2 distinct values of params: 3 are needed"
    assert said["B"]["ok"]
    for span, ok in ((1.99, False), (2.0, True)):
        near = replace(fit, columns=fit.columns | {"tokens": np.geomspace(1e6, span * 1e6, 25)})
        assert identified(near, boot_of(fit), {})["beta"]["ok"] == ok
    walled = replace(fit, at_bound=("beta",), fixed=("alpha",))
    verdicts = identified(walled, boot_of(fit), {})
    assert verdicts["beta"]["reason"] == "the fit ends on the wall of the search box"
    assert verdicts["alpha"] == {"ok": True, "reason": "fixed, not fitted"}


@pytest.mark.heavy
@pytest.mark.parametrize(("fixed", "said"), [({"E": 0.25}, ["E is held at 0.25"]), ({}, [])])
def test_a_held_floor_is_said_to_hide_its_doubt(fixed, said):
    columns, loss = table()
    rows = [
        {"params": n, "tokens": d, "loss": y}
        for n, d, y in zip(columns["params"], columns["tokens"], loss, strict=True)
    ]
    law = fit_table(rows, "chinchilla", FitOptions(resamples=2, fixed=fixed))
    found = [w.partition(":")[0] for w in law["warnings"] if "is held at" in w]
    assert found == said


def test_what_is_wrong_with_an_optimum_is_said_at_its_edge(fit):
    boot = boot_of(fit)
    good = replace(fit, converged=True, starts_tried=10, starts_agreeing=5, condition=1e6)
    assert list(warn_fit(good, replace(boot, failed=0.05))) == []
    for change, said in (
        ({"converged": False}, "The fit has not converged"),
        ({"starts_agreeing": 4}, "Only 4 of 10 starts"),
        ({"condition": 1.01e6}, "The design is degenerate"),
    ):
        (warning,) = warn_fit(replace(good, **change), boot)
        assert warning.startswith(said)
    (warning,) = warn_fit(good, replace(boot, failed=0.0501))
    assert warning.startswith("5 % of the bootstrap resamples")


def test_a_condition_number_is_that_of_columns_of_unit_length():
    rng = np.random.default_rng(0)
    design = rng.standard_normal((9, 3)) * [1e3, 1.0, 1e-3]
    gram = design.T @ design
    unit = gram / np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    assert condition_number(design) == pytest.approx(np.linalg.cond(unit), rel=1e-6)
    assert condition_number(np.array([[1.0, 0.0], [1.0, 0.0]])) == float("inf")


@pytest.mark.parametrize("fixed", [{}, {"E": 0.25, "alpha": 0.42}])
def test_resamples_are_fitted_that_hold_enough_distinct_rows_and_values(fixed):
    """Five rows of them for five coefficients and three values of each column, or three rows."""
    columns, loss = table(0.0)
    rows = [0, 2, 4, 5, 7, 9, 10, 12]
    columns, loss = {c: v[rows] for c, v in columns.items()}, loss[rows]
    fit = fit_form(CHINCHILLA, columns, loss, FitOptions(fixed=fixed))
    counts = resample_counts(range(8), 300, seed=1)
    enough = []
    for there in counts > 0:
        distinct = [len(np.unique(columns[c][there])) for c in ("params", "tokens")]
        enough.append(there.sum() >= 5 - len(fixed) and (bool(fixed) or min(distinct) >= 3))
    boot = bootstrap_fit(fit, range(8), 300, seed=1)
    assert boot.failed == pytest.approx(1 - len(boot.theta) / 300)
    kept = {row.tobytes() for row in boot.weights}
    assert kept <= {row.tobytes() for row in counts[enough]}
    assert len(boot.theta) >= 0.98 * sum(enough)  # exact rows: hardly one does not converge
    assert 0.5 < np.mean(enough) < (1.01 if fixed else 1)


def test_only_what_is_fitted_needs_distinct_values_of_its_column():
    """Of three sizes a resample may lack one where the size's exponent and the floor are given."""
    params = np.repeat([1e4, 4e4, 16e4], [3, 3, 2])
    tokens = np.geomspace(1e6, 1e9, 8)
    columns, loss = {"params": params, "tokens": tokens}, 0.25 + 30 / params**0.42
    loss = loss + 900 / tokens**0.55
    lacking = {}
    for fixed in ({}, {"E": 0.25, "alpha": 0.42}):
        fit = fit_form(CHINCHILLA, columns, loss, FitOptions(fixed=fixed))
        weights = bootstrap_fit(fit, range(8), 300, seed=1).weights
        lacking[len(fixed)] = sum(len(np.unique(params[row > 0])) < 3 for row in weights)
    assert lacking[0] == 0
    assert lacking[2] > 10


# --- rows -----------------------------------------------------------------------------------------


def test_repeats_name_the_first_row_that_is_equal():
    rows = np.array([[1, 2], [3, 4], [1, 2], [1, 3], [3, 4], [1, 2]], dtype=float)
    assert repeats(rows) == [(0, 2), (1, 4), (0, 5)]
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_odd_rows_are_named(fit):
    names = [f"r{i}" for i in range(25)]
    assert list(warn_rows(fit, [], names)) == []
    said = list(warn_rows(fit, [{"name": "x", "reason": "it diverged"}], names))
    assert said == ["Run x is excluded: it diverged."]
    columns, loss = {c: v.copy() for c, v in fit.columns.items()}, fit.target.copy()
    for column in (*columns.values(), loss):
        column[7] = column[3]
    (said,) = warn_rows(replace(fit, columns=columns, target=loss), [], names)
    assert said == "Exact duplicates (params, tokens, loss), 1 run: r7 of r3. Drop them."
    swapped = {"params": fit.columns["tokens"], "tokens": fit.columns["params"]}
    assert any("look swapped" in s for s in warn_rows(replace(fit, columns=swapped), [], names))
    even = fit.columns | {"tokens": 1.01 * fit.columns["params"]}
    assert not any("look swapped" in s for s in warn_rows(replace(fit, columns=even), [], names))
    one = replace(fit, columns=fit.columns | {"tokens": np.full(25, 1e9)})
    assert any(s.startswith("All runs have one size (tokens)") for s in warn_rows(one, [], names))
    flat = replace(fit, target=np.full(25, 0.5))
    assert any(s.startswith("All runs have one loss (0.5)") for s in warn_rows(flat, [], names))
    rising = replace(fit, target=1 / fit.target)
    (said,) = (s for s in warn_rows(rising, [], names) if "rises" in s)
    assert said.startswith("Loss rises with params and with tokens where")


# --- sensitivity ----------------------------------------------------------------------------------


def test_choices_made_otherwise_are_refits_of_the_rows_that_are_left(fit):
    columns, loss = fit.columns, fit.target
    size = np.log(columns["params"]) + np.log(columns["tokens"])
    order, worst = np.argsort(size, kind="stable"), np.argsort(np.abs(fit.residuals))
    wanted = {"none": (range(25), 1e-3), "delta=0.0001": (range(25), 1e-4),
              "delta=0.01": (range(25), 1e-2), "without the 2 smallest runs": (order[2:], 1e-3),
              "without the 2 largest runs": (order[:-2], 1e-3),
              "without the 2 largest residuals": (worst[:-2], 1e-3)}  # fmt: skip
    found = sensitivity(fit, lambda f: f.coefficients["alpha"])
    assert [entry["change"] for entry in found] == list(wanted)
    for entry in found:
        rows, delta = wanted[entry["change"]]
        kept = np.sort(list(rows))
        again = fit_form(
            CHINCHILLA, {c: v[kept] for c, v in columns.items()}, loss[kept],
            FitOptions(delta=delta),
        )  # fmt: skip
        assert entry["coefficients"] == pytest.approx(again.coefficients, rel=1e-3), entry
        assert entry["quantity"] == entry["coefficients"]["alpha"]


def test_rows_are_left_out_only_where_enough_remain_and_least_squares_has_no_delta():
    columns, loss = table()
    for count, changes in ((6, 3), (7, 6)):
        rows = np.linspace(0, 24, count).astype(int)
        fit = fit_form(CHINCHILLA, {c: v[rows] for c, v in columns.items()}, loss[rows])
        assert len(sensitivity(fit, lambda f: None)) == changes
    plain = fit_form(CHINCHILLA, columns, loss, FitOptions(delta=float("inf")))
    assert len(sensitivity(plain, lambda f: None)) == 4


def test_rows_of_one_target_identify_nothing_and_the_warning_agrees(tmp_path):
    lines = [f"{n},{d},0.005" for n in (1e4, 3e4, 1e5) for d in (1e6, 3e6, 1e7)]
    table = tmp_path / "rates.csv"
    table.write_text("params,tokens,lr\n" + "\n".join(lines))
    law = fit_table(table, "lr", FitOptions(resamples=50))
    assert law["coefficients"]["a"] == pytest.approx(0, abs=1e-9)
    assert {v["ok"] for v in law["identified"].values()} == {False}
    assert {v["reason"] for v in law["identified"].values()} == {"all runs have one lr"}
    said = [w for w in law["warnings"] if "one lr (0.005)" in w]
    assert said == ["All runs have one lr (0.005): what it falls with cannot be known."]
