"""What pages say in words: of seeds, residuals, compute, moments, uncommitted code, raw keys."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sweeps.report.figures.exponents import draw_exponents
from sweeps.report.figures.law import _isoflop_alt, _law_alt, draw_all
from sweeps.report.figures.panels import best_size, plot_held_out
from sweeps.report.figures.points import draw_points
from sweeps.report.inputs.isoflop import Inputs, read_inputs
from sweeps.report.inputs.points import read_points_inputs
from sweeps.report.pages.isoflop import render_page, study_tables
from sweeps.report.pages.points import _records
from sweeps.report.pages.shared import typeset
from sweeps.report.tables.exponents import own_exponents
from sweeps.report.wording import (
    code_warning,
    format_by_key,
    format_moment,
    heading,
    held_out_verdict,
    noise_text,
    seeds_text,
    warnings_of,
)

STUDIES = Path(__file__).parents[3] / "docs" / "studies"


@pytest.fixture(scope="module")
def inputs():
    return read_inputs(STUDIES / "cpu_isoflop")


@pytest.fixture(scope="module")
def page(inputs):
    return render_page(inputs, {}).replace("\u00a0", " ")


@pytest.mark.heavy
def test_a_spread_pooled_over_points_is_no_spread_of_one_run(page):
    said = (
        "Runs that differ in their seed alone spread by 1.13 % of their loss (standard deviation, "
        "pooled over 15 points of 3 seeds each)"
    )
    assert said in page
    assert "1.13 % of the loss over 15 points of 3 seeds each." in page
    assert "45 seeds" not in page


def test_a_spread_of_one_point_says_so():
    one = {"mean": 0.25, "std": 0.004, "n": 3, "points": [[0.25, 0.004, 3]]}
    assert seeds_text(one) == "3 seeds of one point"
    assert "spread by 1.60 % of their loss (standard deviation, over 3 seeds" in noise_text(one)
    uneven = {"points": [[1, 0.1, 2], [1, 0.1, 4]], "n": 6, "mean": 1, "std": 0.1}
    assert seeds_text(uneven) == "2 points of 2 to 4 seeds each"
    assert seeds_text({}) == noise_text({}) == ""


def test_an_error_is_held_against_the_noise_of_seeds_and_of_validation_draws(inputs):
    held = inputs.law["held_out"] | {"relative_error": -0.03, "noise_floor": 0.01}
    said = held_out_verdict(replace(inputs, law=inputs.law | {"held_out": held}))
    assert "The error is 3.0 times the noise floor (seeds and validation draws)." in said


def test_alternative_texts_count_one_run_as_one(inputs):
    one = replace(inputs, runs=inputs.grid_runs[:1])
    assert "compute for 1 run at 1 budget from" in _law_alt(one)
    assert "parameters at 1 budget, with" in _isoflop_alt(one)
    assert re.search(r"for \d+ runs at \d budgets from", _law_alt(inputs))


@pytest.mark.heavy
def test_a_log_residual_is_called_one(inputs):
    table = study_tables(inputs)["residuals"]
    assert table.columns[-1] == "log(measured / fitted)"
    assert table.rows[0][-1].text == "+0.0534"
    assert "100 log(measured / fitted)" in draw_all(inputs)["residuals"].svg


def test_a_refused_minimum_is_crossed_at_the_size_that_its_reason_is_about(inputs):
    runs = [run for run in inputs.grid_runs if run.budget == 1.25e12]
    least = min(runs, key=lambda run: run.loss)
    assert least.params == sorted({run.params for run in runs})[2]
    size, mean = best_size(runs)
    assert size == min(run.params for run in runs)
    of = [run.loss for run in runs if run.params == size]
    assert mean == pytest.approx(sum(of) / len(of))
    (point,) = [p for p in inputs.law["isoflop"] if p["budget"] == pytest.approx(1.25e12)]
    assert "by the mean over its seeds, is at the smallest end" in point["reason"]


def test_compute_has_powers_of_ten_on_the_axes_and_in_the_tables_of_points():
    inputs = read_points_inputs(STUDIES / "cpu_resolution")
    svg = draw_points(inputs)["answer"].svg
    assert "10¹¹" in svg
    assert "100 B" not in svg
    assert format_by_key("flops", 1e11) == "10¹¹"
    assert format_by_key("params", 16706) == "16.7 k"
    assert format_by_key("low", 1_020_000.0) == "1.02 M"
    assert format_by_key("seeds", 3) == format_by_key("inside", True) == ""


def test_code_that_was_not_committed_is_a_warning(inputs):
    (warning,) = code_warning({"env": {"git": "fc1ec62-dirty"}})
    assert warning.startswith("The runs' code is commit fc1ec62 with changes")
    assert warning in warnings_of(inputs)
    assert code_warning({"env": {"git": "fc1ec62"}}) == code_warning({}) == []


def test_raw_keys_are_no_headings():
    keys = ("flops", "std_percent", "best_lr", "clip_tokens")
    assert [heading(key) for key in keys] == [
        "FLOPs", "standard deviation (%)", "best learning rate", "clip tokens",
    ]  # fmt: skip
    table = _records("t", [{"std_of_seeds": 0.1, "flops": 1e11}])
    assert table.columns == ["standard deviation of seeds", "FLOPs"]
    assert [cell.text for cell in table.rows[0]] == ["0.1000", "10¹¹"]


@pytest.mark.heavy
def test_moments_and_powers_are_written_for_people(page):
    assert format_moment("2026-11-27T11:56:34+00:00") == "2026-11-27 11:56 UTC"
    assert format_moment("2026-11-23") == "2026-11-23"
    assert format_moment("at noon") == "at noon"
    assert "finished 2026-11-27 11:56 UTC" in page
    power = typeset("(N_c / params)^(alpha_N / alpha_D)")
    assert power == "(N_c / params)<sup>alpha_N / alpha_D</sup>"
    told = typeset("at 1.1e+11 FLOPs, a factor 5.1e-02, 1e13; grid-c1.2e12-w64d1 and w1e5x")
    assert told == (
        "at 1.1×10<sup>11</sup> FLOPs, a factor 5.1×10<sup>−2</sup>, 10<sup>13</sup>; "
        "grid-c1.2e12-w64d1 and w1e5x"
    )


def test_single_values_of_the_data_set_stand_in_one_table(page):
    captions = re.findall(r"<caption>(.*?)</caption>", page)
    assert "The data set" in captions
    assert not {"digest", "maker", "token cap"} & set(captions)
    assert "at most 512 tokens a clip, at most 17 frames" in page


def test_a_name_is_not_broken_letter_by_letter_and_a_sentence_keeps_its_width(page):
    css = page[page.index("<style>") : page.index("</style>")]
    assert "tbody th { max-width: 44ch; overflow-wrap: break-word; }" in css
    assert re.search(r'<td class="w[^"]*">the best size, by the mean', page)


def test_an_interval_beside_its_prediction_is_drawn_where_it_lies():
    held = {"budget": 1e20, "predicted": 2.5, "actual": 2.4, "interval": [2.55, 2.6]}
    axes = Figure().subplots()
    plot_held_out(axes, Inputs(Path("x"), law={"held_out": held}))
    ((low, high),) = (bar.get_segments()[0][:, 1] for bar in axes.collections)
    assert (low, high) == pytest.approx((2.55, 2.6))


def test_exponents_are_of_these_runs_whether_or_not_they_are_a_study():
    law = {"exponents": {"approach_3": {"params": 0.5, "interval": [0.4, 0.6]}}}
    inputs = Inputs(Path("x"), law=law)
    assert [item.label for item in own_exponents(inputs)] == ["these runs"]
    (drawing,) = draw_exponents(inputs)
    assert "1 of these runs with intervals" in drawing.alt
