"""A budget becomes size, tokens, loss, recipe, layout and money; its reach is told in words."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from launch.planner.machine import load_machine
from sweeps.fit.options import FitOptions
from sweeps.predict.__main__ import main
from sweeps.predict.answer import Budget, answer, reach_of
from sweeps.predict.command import describe, fit_source
from sweeps.predict.source import find_source

DEMO = Path(__file__).parents[3] / "docs" / "studies" / "demo"


@pytest.fixture(scope="module")
def source():
    return find_source(str(DEMO))


@pytest.fixture(scope="module")
def law(source):
    return fit_source(source, options=FitOptions(flops=[4e12], resamples=60))


@pytest.fixture(scope="module")
def cpu(source, law):
    """Return the answer for twice the demo's largest budget on two cores for an hour."""
    budget = Budget(4e12, 2, 1 / 24, "cpu2", "fp32", 0.01)
    return answer(source, law, budget, load_machine("cpu2"), ["data.root=nowhere"])


@pytest.mark.heavy
def test_the_parts_of_an_answer_go_together(cpu, law):
    best, shape, recipe = (cpu.parts[key] for key in ("optimum", "shape", "recipe"))
    for key in ("params", "tokens", "loss"):
        low, high = best["intervals"][key]
        assert low <= best[key] <= high
    assert shape["loss"] == pytest.approx(
        float(law.predict([shape["params"]], [shape["tokens"]])[0])
    )
    # A shape beside the optimum costs a little, and nothing is gained by rounding.
    assert -1e-4 < shape["loss_cost"] < 0.02
    assert 0.5 < shape["params"] / best["params"] < 2
    assert 3 < 4e12 / (shape["params"] * shape["tokens"]) < 9  # FLOPs a parameter and token
    assert recipe["batch_tokens"] == 768
    assert recipe["steps"] == round(shape["tokens"] / 768)
    assert recipe["warmup_steps"] == round(0.05 * recipe["steps"])
    assert cpu.parts["cost"]["device_hours"] == pytest.approx(2)
    assert cpu.parts["cost"]["money"] == pytest.approx(0.1)


@pytest.mark.heavy
def test_the_layout_uses_all_devices_and_says_where_the_batch_does_not_feed_them(cpu):
    layout = cpu.parts["layout"]
    assert "parallel.processes=2" in layout["overrides"]
    steps = cpu.parts["shape"]["tokens"] / layout["batch_tokens"]
    assert layout["days"] * 86400 == pytest.approx(steps * layout["step_seconds"])
    assert any("cannot feed 2 devices" in warning for warning in cpu.warnings)
    assert any("The planner expects" in warning for warning in cpu.warnings)


def test_the_text_holds_the_answer_and_its_doubts(cpu):
    text = describe(cpu)
    for word in (
        "N*",
        "D*",
        "loss",
        "Build",
        "Train",
        "Layout",
        "Costs",
        "Warnings",
        "2.01x beyond",
    ):
        assert word in text
    assert "no data set at nowhere/train" in text
    bare = replace(cpu, parts=cpu.parts | {"layout": None})
    assert "Layout none fits" in describe(bare)


def test_a_cost_below_one_is_not_printed_as_none(cpu):
    cheap = cpu.parts["cost"] | {"money": 0.24, "kilowatt_hours": 0.058, "device_hours": 4.8}
    text = describe(replace(cpu, parts=cpu.parts | {"cost": cheap}))
    assert "4.8 device-hours, 0.24 " in text
    assert "0.058 kWh" in text


def test_how_far_a_budget_lies_beyond_the_runs_is_told_in_words(law):
    largest = max(run.flops for run in law.runs)
    tested = law.held_out.extrapolation_factor
    assert reach_of(law, largest)[2] == "Within the compute of the study's runs."
    assert "its held-out test reached as far" in reach_of(law, 0.9 * tested * largest)[2]
    assert f"reached {tested:.3g}x" in reach_of(law, 5 * tested * largest)[2]
    assert "FAR: an order of magnitude" in reach_of(law, 50 * tested * largest)[2]
    factor, _, words = reach_of(law, 1e6 * largest)
    assert factor == pytest.approx(1e6)
    assert "TOO FAR" in words
    untested = replace(law, held_out=None)
    assert "there is no held-out test" in reach_of(untested, 2 * largest)[2]


def test_a_study_is_found_by_folder_table_and_its_own_settings(tmp_path):
    table = (DEMO / "runs.csv").read_text()
    (tmp_path / "runs.csv").write_text(table)
    assert "this project's defaults" in find_source(str(tmp_path / "runs.csv")).notes[0]
    (tmp_path / "study.yaml").write_text("base: [experiment=cpu_demo]\nrecipe: {lr: 7e-3}\n")
    found = find_source(str(tmp_path))
    assert (found.base, found.recipe.lr, found.notes) == (["experiment=cpu_demo"], 7e-3, [])
    assert found.form == "chinchilla"
    assert find_source(str(DEMO)).base == ["experiment=cpu_demo"]


@pytest.mark.heavy
def test_a_study_is_predicted_by_the_form_it_names(tmp_path):
    (tmp_path / "runs.csv").write_text((DEMO / "runs.csv").read_text())
    (tmp_path / "study.yaml").write_text("base: []\nrecipe: {}\nform: kaplan\n")
    source = find_source(str(tmp_path))
    few = FitOptions(resamples=10)
    assert fit_source(source, options=few).fit.form.name == "kaplan"
    asked = fit_source(source, "chinchilla_tied", few)
    assert asked.fit.form.name == "chinchilla_tied"


@pytest.mark.heavy
def test_a_prediction_takes_the_fit_of_its_study_and_says_so(tmp_path, capsys):
    (tmp_path / "runs.csv").write_text((DEMO / "runs.csv").read_text())
    about = "base: []\nrecipe: {}\nform: kaplan\nlevel: 0.8\nresamples: 12\n"
    (tmp_path / "study.yaml").write_text(about)
    words = [f"study={tmp_path}", "gpus=1", "days=.1", "machine=cpu2", "flops=1e12", "--json"]
    assert main([*words, "level=.7"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["notes"][0] == f"form=kaplan resamples=12: from {tmp_path / 'study.yaml'}"
    assert (found["law"]["form"], found["law"]["level"]) == ("kaplan", 0.7)


@pytest.mark.heavy
def test_a_budget_that_is_too_far_is_refused_unless_asked_for(capsys):
    words = [f"study={DEMO}", "gpus=512", "days=14", "resamples=20"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: gpus=512 days=14: are 2.45e+23 FLOPs, 1.2e+11 times the ")
    assert main([*words, "far=true"]) == 0
    assert "TOO FAR" in capsys.readouterr().out


@pytest.mark.heavy
def test_the_command_writes_json(tmp_path, capsys):
    out = tmp_path / "answer.json"
    words = ["gpus=1", "days=.1", "machine=cpu2", "flops=1e12", "resamples=20", "price=3"]
    assert main([f"study={DEMO}", *words, f"out={out}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(out.read_text())
    assert found["budget"]["flops"] == pytest.approx(1e12)
    assert found["law"]["reach"].startswith("Within")
    assert found["cost"]["money"] == pytest.approx(3 * 2.4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gpus=8", "days=1"], "study=: is required"),
        (["study=demo", "days=1"], "gpus=: is required"),
        (["study={demo}", "gpus=0", "days=1"], "gpus=0, days=1: must be positive"),
        (["study={demo}", "gpus=8", "days=1", "mfu=40"], "mfu=40: must be a share"),
        (["study={demo}", "gpus=8", "days=1", "flops=1e30"], "do at most"),
        (["study={demo}", "gpus=8", "days=1", "mfu=.4", "flops=1e12"], "Give one of them"),
        (["study={demo}", "gpus=8", "days=many"], "days=many: must be a number"),
        (["study={demo}", "gpus=8", "days=1", "days=2"], "days is given twice"),
        (["study={demo}", "gpus=8", "days=1", "machine=abacus"], "machine=abacus"),
        (["study={demo}", "gpus=8", "days=1", "precision=fp7"], "fp7"),
        (["study={demo}", "gpus=8", "days=1", "form=frontier"], "is no law of params and tokens"),
        (["study=nowhere", "gpus=8", "days=1"], "is no study's name, folder or csv"),
        (["study={arms}", "gpus=8", "days=1"], "compares arms"),
        (["study={empty}", "gpus=8", "days=1"], "has no runs.csv"),
    ],
)
def test_a_bad_question_is_named(tmp_path, capsys, words, said):
    places = {
        "demo": DEMO, "arms": DEMO.parent / "framing", "empty": tmp_path,
    }  # fmt: skip
    assert main([word.format(**places) for word in words]) == 2
    found = capsys.readouterr().err
    assert found.startswith("error: ")
    assert said in found
