"""The checklist is answered from a study's files, and says "not known" where they do not say."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sweeps.report.checklist.answers import Answer, Status
from sweeps.report.checklist.checklist import checklist, summary
from sweeps.report.inputs.isoflop import Inputs, read_inputs

from ..study_files import make_law, write_runs

DEMO = Path(__file__).parents[3] / "docs/studies/demo"
ITEMS = 17


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 26 runs without videos."""
    study = tmp_path_factory.mktemp("checklist")
    rows = write_runs(study, np.random.default_rng(1))
    (study / "law.json").write_text(json.dumps(make_law(rows)))
    about = {
        "recipe": "lr = 4e-3 (Li et al. 2025)", "seeds_noise": {"mean": 0.4, "std": 0.002, "n": 3},
        "env": {"cpu": "Xeon", "cores": 2, "python": "3.11", "packages": {"torch": "2.13"}},
    }  # fmt: skip
    (study / "study.json").write_text(json.dumps(about))
    (study / "data.json").write_text(json.dumps({"accounting": {"epochs": 5.5}}))
    return study


@pytest.fixture
def inputs(folder: Path) -> Inputs:
    return read_inputs(folder)


def answer(inputs: Inputs, question: str) -> Answer:
    (found,) = [item for item in checklist(inputs) if question in item.question]
    return found


def test_a_whole_study_answers_everything(inputs: Inputs) -> None:
    answers = checklist(inputs)
    assert len(answers) == ITEMS
    assert summary(answers) == "15 answered, 2 caution"
    caution = [item.question for item in answers if item.status is Status.caution]
    assert caution == ["Coefficients identified", "Extrapolation of each prediction"]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Form", "Least sum of Huber(δ = 0.001) of log residuals over 20 runs = 1.7e-05, by damped "
                 "Newton steps from 24 starts"),
        ("Convergence", "22 of 24 starts reach the best optimum; gradient norm 3e-15; condition"),
        ("identified", "yes: E; no: A."),
        ("as parameters", "without embeddings, conditioning and output layer"),
        ("as FLOPs", "6ND is 0.93 times that"),
        ("as tokens", "it fills 0.40 % of the packs"),
        ("Repetition", "fitted runs: 1.7."),
        ("excluded", "1 of 26: 1 × “loss is nan: the run diverged <b>&”"),
        ("schedule", "warm-up 5 %, decay 30 %. All 25 decay to under 5 % of their peak rate"),
        ("Hyper-parameters", "lr = 4e-3 (Li et al. 2025)"),
        ("over seeds", "0.50 % of the loss over 3 seeds."),
        ("validation draws", "0.10 % of the loss (median of 25 runs)"),
        ("Residuals", "log residuals scatter by 0.0041, 0.8 times the noise of seeds; measured "
                     "over fitted, the worst: demo-"),
        ("Held-out", "−1.28 % at 4×10¹³ FLOPs"),
        ("Held-out", "noise of seeds and of validation draws together 0.50 %."),
        ("Extrapolation", "1.6×10¹⁴ FLOPs: 16×. Tested: 4×."),
        ("Hardware", "Xeon, 2 cores, Python 3.11, torch 2.13."),
    ],
)  # fmt: skip
def test_an_answer_states_its_figures(inputs: Inputs, question: str, text: str) -> None:
    assert text in answer(inputs, question).text


def test_an_empty_folder_knows_nothing(tmp_path: Path) -> None:
    answers = checklist(read_inputs(tmp_path))
    assert summary(answers) == f"{ITEMS} not known"
    assert {item.text for item in answers} == {"not known"}


@pytest.mark.parametrize(
    ("change", "question"),
    [
        (lambda i: i.results.clear(), "schedule"),
        (lambda i: i.results.clear(), "as parameters"),
        (lambda i: i.results.clear(), "validation draws"),
        (lambda i: (i.study.pop("seeds_noise"), i.law.pop("noise_floor")), "over seeds"),
        (lambda i: i.study.pop("env"), "Hardware"),
        (lambda i: i.study.pop("recipe"), "Hyper-parameters"),
        (lambda i: i.law.pop("residuals"), "Residuals"),
        (lambda i: i.law.pop("starts"), "Convergence"),
        (lambda i: i.law.pop("frontier"), "Extrapolation"),
        (lambda i: i.law.pop("held_out"), "Held-out"),
        (lambda i: i.law.update(identified=None), "identified"),
    ],
)  # fmt: skip
def test_what_a_file_does_not_say_is_not_known(inputs: Inputs, change, question: str) -> None:
    assert answer(inputs, question).status is not Status.unknown
    change(inputs)
    assert answer(inputs, question).status is Status.unknown


def test_reasons_for_care_are_named(inputs: Inputs) -> None:
    first, second, *_ = inputs.results
    inputs.results[first]["schedule"]["last_lr"] = 1.0
    del inputs.results[second]["schedule"]
    schedule = answer(inputs, "schedule")
    assert f"1 of 24 end above 5 % of their peak rate, e.g. {first}; 1 do not say." in schedule.text
    inputs.results[first]["accounting"]["epochs"] = 6.0
    repetition = answer(inputs, "Repetition")
    assert repetition.text.startswith("Passes over the training data, fitted runs: 1.7 to 6.")
    inputs.law["starts"]["agreeing"] = 3
    inputs.law["scatter"] = 0.02
    inputs.law["held_out"]["inside"] = False
    questions = ("schedule", "Repetition", "Convergence", "Residuals", "Held-out")
    assert {answer(inputs, q).status for q in questions} == {Status.caution}


def test_the_largest_run_stands_in_for_runs_without_a_result(inputs: Inputs) -> None:
    inputs.results.clear()
    found = answer(inputs, "Repetition")
    assert "largest run: 5.5. Beyond 4 repeats are worth less" in found.text
    assert found.status is Status.caution


def test_the_committed_demo_is_read_from_its_two_files(tmp_path: Path) -> None:
    for file in DEMO.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    inputs = read_inputs(tmp_path)
    assert "17 of 24 starts" in answer(inputs, "Convergence").text
    assert "5 of 21 runs saw every clip more than 4 times" in answer(inputs, "Repetition").text
    assert answer(inputs, "Held-out").text.startswith("+3.86 % at 2×10¹² FLOPs")
