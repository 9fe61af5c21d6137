"""Weightings of noise levels: their weights by other means, what they refuse, laws on them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sweeps.fit.__main__ import main, parse
from sweeps.fit.law import fit_table, law_of_table
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.y_axis import MIDDLE, PLAIN, YAxis, YWeighting, axis_of, loss_on, weights
from sweeps.fit.weightings import by_weighting

STUDY = Path(__file__).parents[3] / "docs/studies/cpu_isoflop"
ELBO = YAxis(YWeighting.elbo)
QUICK = FitOptions(resamples=5)


def test_weights_are_the_integrals_of_the_weighting_and_sum_to_one() -> None:
    assert weights(PLAIN, 4) == pytest.approx([0.25] * 4)
    assert weights(MIDDLE, 8) == pytest.approx([0, 0, 0.25, 0.25, 0.25, 0.25, 0, 0])
    t = (np.arange(800_000) + 0.5) / 800_000
    density = np.where(t < 0.99, t / (1 - t), 0.0)
    expected = density.reshape(8, -1).sum(1) / density.sum()
    assert weights(ELBO, 8) == pytest.approx(expected.tolist(), rel=1e-3)
    late = YAxis(YWeighting.elbo, (0.5, 1.0))
    assert weights(late, 8)[4:] == pytest.approx((expected[4:] / expected[4:].sum()).tolist(), 1e-3)


ROW = {"loss": "0.9", "loss_uniform": "0.3"} | {f"loss_t{i}": str(i) for i in range(1, 9)}


def test_a_loss_is_the_weighted_mean_of_its_strata() -> None:
    assert loss_on(PLAIN, ROW) == 0.3  # the exact mean, where it stands beside another
    assert loss_on(PLAIN, {"loss": "0.9"}) == 0.9
    assert loss_on(MIDDLE, ROW) == pytest.approx(4.5)
    assert loss_on(YAxis(window=(0.875, 1.0)), ROW) == pytest.approx(8)
    assert loss_on(YAxis(YWeighting.trained), ROW | {"loss_trained": 2.5}) == 2.5


QUARTERS = {f"loss_t{i}": i for i in range(1, 5)}
REFUSED = [
    (ELBO, QUARTERS, r"^y_axis.weighting=elbo: needs at least 8 strata of t, .* keep 4\. Use"),
    (YAxis(window=(0.3, 0.7)), QUARTERS, r"^y_axis.window=\[0.3, 0.7\]: needs strata .* of 0.25"),
    (YAxis(YWeighting.trained), QUARTERS, r"^y_axis.weighting=trained: x has no loss_trained"),
    (MIDDLE, {"loss": 1.0}, r"^y_axis=uniform, t from 0.25 to 0.75: x keeps no loss by stratum"),
]


@pytest.mark.parametrize(("axis", "row", "message"), REFUSED)
def test_an_axis_that_needs_more_than_old_results_keep_says_so_in_a_line(
    axis: YAxis, row: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        loss_on(axis, row, "x")
    assert "\n" not in str(caught.value)


BAD = {
    "y_axis.weighting=even": r"y_axis.weighting=even: must be one of uniform, trained, elbo",
    "y_axis.window=[0.7,0.2]": r"y_axis.window=\[0.7, 0.2\]: must rise within \[0, 1\]",
    "y_axis.window=0.7": r"y_axis.window=\['0.7'\]: must be two numbers",
    "y_axis.middle=1": r"y_axis.middle: unknown key. Known are y_axis.weighting",
}


@pytest.mark.parametrize("word", BAD)
def test_a_wrong_axis_is_refused_with_what_is_known(word: str) -> None:
    with pytest.raises(ValueError, match=BAD[word]):
        parse([f"table={STUDY / 'runs.csv'}", word])


def test_all_trained_times_count() -> None:
    with pytest.raises(ValueError, match=r"y_axis.weighting=trained is of all times"):
        YAxis(YWeighting.trained, (0.0, 0.5))


def test_an_axis_is_what_its_values_say() -> None:
    for axis in (PLAIN, MIDDLE, ELBO):
        assert axis_of(axis.values) == axis == axis_of(json.loads(json.dumps(axis.values)))
    assert axis_of(None) == PLAIN
    assert axis_of({"window": "[.25,.75]"}) == MIDDLE


@pytest.mark.heavy
def test_the_committed_law_on_the_middle_foresees_its_largest_budget_better() -> None:
    found, middle = (
        law_of_table(STUDY / "runs.csv", "chinchilla", QUICK, y_axis=axis)
        for axis in (None, MIDDLE)
    )
    assert found.held_out is not None
    assert middle.held_out is not None
    assert abs(middle.held_out.relative_error) < abs(found.held_out.relative_error)
    run, moved = found.runs[0], middle.runs[0]
    assert (run.name, run.params) == (moved.name, moved.params)
    assert moved.loss < run.loss
    assert moved.loss_noise is None  # what was stated is of another loss


@pytest.mark.heavy
def test_the_plain_axis_is_the_law_as_it_stands() -> None:
    plain, asked = (
        fit_table(STUDY / "runs.csv", "kaplan", QUICK, y_axis=axis) for axis in (None, PLAIN)
    )
    assert asked.pop("asked") == {"y_axis": PLAIN.values}
    assert asked == plain


def table(path: Path) -> Path:
    """Write a table of two strata that follow laws of two exponents; seeds move the second."""
    rows = ["name,params,tokens,flops,loss,loss_trained,cluster,budget,loss_t1,loss_t2"]
    for budget in (1e12, 1e13, 1e14):
        for size in (0.5, 1.0, 2.0):
            params = size * 1e3 * (budget / 1e12) ** 0.5
            tokens = budget / 6 / params
            for seed in (0, 1):
                noise = 1 + 0.002 * (-1) ** seed
                early = 1 + 20 / params**0.5 + 100 / tokens**0.4
                late = (1 + 20 / params**0.3 + 100 / tokens**0.4) * noise
                mean = (early + late) / 2
                cells = [f"r{budget:g}-{size}-{seed}", params, tokens, budget, mean, late,
                         f"{budget:g}-{size}", budget, early, late]  # fmt: skip
                rows.append(",".join(map(str, cells)))
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.heavy
def test_the_table_of_weightings_has_a_law_for_each_and_says_what_is_lacking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = table(tmp_path / "t.csv"), tmp_path / "w.json"
    assert main([f"table={path}", "form=kaplan", "resamples=2", f"weightings={out}"]) == 0
    rows = {row["name"]: row for row in json.loads(out.read_text())}
    late, early = rows["uniform, t from 0.5 to 1"], rows["uniform, t from 0 to 0.5"]
    assert late["exponent"] == pytest.approx(rows["trained"]["exponent"], rel=1e-6)
    assert late["exponent"] != pytest.approx(early["exponent"], rel=1e-2)
    assert late["seed_spread"] == pytest.approx(0.004 / math.sqrt(2), rel=1e-2)
    assert early["seed_spread"] is None  # seeds agree
    lacking = {name for name, row in rows.items() if row["reason"]}
    assert lacking == {"elbo", "uniform, t from 0.25 to 0.75"}
    assert "uniform, t from 0.5 to 1" in capsys.readouterr().out


def test_a_table_without_strata_has_one_weighting(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("params,tokens,loss\n1e4,1e6,0.5\n")
    assert by_weighting(path, "kaplan", QUICK) == []
