"""A study's own table is fitted as the study fits it, which is said; what is given wins."""

import json
import shutil
from pathlib import Path

import pytest

from sweeps.fit.__main__ import main, parse
from sweeps.fit.beside import asked_of, beside, fit_words
from sweeps.fit.law import fit_table
from sweeps.fit.options import FitOptions

STUDY = Path(__file__).parents[3] / "docs" / "studies" / "cpu_isoflop"
FEW = FitOptions(resamples=5)


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "my study"
    folder.mkdir()
    shutil.copy(STUDY / "runs.csv", folder)
    return folder


def table(folder):
    return f"table={folder / 'runs.csv'}"


@pytest.mark.heavy
def test_the_command_that_names_no_form_gives_the_law_of_the_study(study, capsys):
    shutil.copy(STUDY / "study.yaml", study)
    out = study / "other.json"
    assert main([table(study), "resamples=5", f"out={out}"]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said == f"form=kaplan level=0.9: from {study / 'study.yaml'}"
    stated = json.loads((STUDY / "law.json").read_text())
    found = json.loads(out.read_text())["exponents"]["approach_3"]["params"]
    assert found == pytest.approx(stated["exponents"]["approach_3"]["params"], rel=1e-6)


def test_what_is_given_wins_and_nothing_is_said_where_nothing_was_taken(study):
    (study / "study.yaml").write_text("form: kaplan\nlevel: 0.8\nresamples: 50\n")
    asked = parse([table(study), "form=chinchilla", "level=0.95", "resamples=10"])
    assert (asked.form, asked.options.level, asked.options.resamples) == ("chinchilla", 0.95, 10)
    assert asked.said == ""
    asked = parse([table(study), "level=0.95"])
    assert (asked.form, asked.options.level, asked.options.resamples) == ("kaplan", 0.95, 50)
    assert asked.said.startswith("form=kaplan resamples=50: from ")


def test_study_yaml_comes_before_study_json_and_that_before_law_json(study):
    assert beside(study / "runs.csv").form == "chinchilla"
    shutil.copy(STUDY / "law.json", study)
    assert beside(study / "runs.csv").source == study / "law.json"
    (study / "study.json").write_text(json.dumps({"config": {"form": "overtraining"}}))
    assert beside(study / "runs.csv").form == "overtraining"
    (study / "study.yaml").write_text("form: chinchilla_tied\n")
    assert beside(study / "runs.csv").form == "chinchilla_tied"


def test_another_table_in_a_study_is_fitted_as_asked(study):
    shutil.copy(STUDY / "study.yaml", study)
    shutil.copy(STUDY / "runs.csv", study / "mine.csv")
    assert parse([f"table={study / 'mine.csv'}"]).form == "auto"


def test_budgets_are_held_out_as_the_study_says_once_they_have_run(study):
    text = "form: kaplan\nbudgets: [1.0e11, 2.0e11, 4.0e11]\nheld_out: 2\n"
    (study / "study.yaml").write_text(text)
    assert parse([table(study)]).options.held_out == 2
    (study / "study.yaml").write_text(f"{text}up_to: 2.0e11\n")
    assert parse([table(study)]).options.held_out == 1


def test_a_law_says_what_it_was_asked_for_and_its_words_give_it_again(study):
    options = FitOptions(level=0.8, resamples=7, seed=3, delta=1e-2, fixed={"alpha": 0.3})
    columns = {"loss": "loss_t1"}
    law = fit_table(study / "runs.csv", "chinchilla", options, columns=columns, drop_highest=1)
    words = fit_words(law)
    assert words == (
        "form=chinchilla level=0.8 resamples=7 seed=3 delta=0.01 columns.loss=loss_t1 "
        "fixed.alpha=0.3 drop_highest=1"
    )
    asked = parse([table(study), *words.split()])
    again = fit_table(
        asked.table,
        asked.form,
        asked.options,
        columns=asked.columns,
        drop_highest=asked.drop_highest,
    )
    assert again == law


@pytest.mark.heavy
def test_a_law_on_another_axis_is_refitted_on_it(study):
    law = fit_table(study / "runs.csv", "kaplan", FEW, columns={"loss": "loss_t4"})
    (study / "law.json").write_text(json.dumps(law))
    asked = parse([table(study)])
    assert (asked.form, asked.columns) == ("kaplan", {"loss": "loss_t4"})
    assert "columns.loss=loss_t4: from" in asked.said
    assert parse([table(study), "loss=loss"]).columns == {"loss": "loss"}


def test_coefficients_fixed_for_one_form_are_not_taken_by_another(study):
    law = fit_table(study / "runs.csv", "chinchilla", FitOptions(resamples=5, fixed={"alpha": 0.3}))
    (study / "law.json").write_text(json.dumps(law))
    assert parse([table(study)]).options.fixed == {"alpha": 0.3}
    assert parse([table(study), "form=kaplan"]).options.fixed == {}


@pytest.mark.heavy
def test_a_law_without_anything_unusual_asks_for_form_level_and_resamples(study):
    law = fit_table(study / "runs.csv", "kaplan", FEW)
    assert asked_of(law) == {"form": "kaplan", "level": 0.9, "resamples": 5}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("study.yaml", "form: [", "cannot be read"),
        ("study.yaml", "- form", "holds no settings"),
        ("study.yaml", "level: high", "does not say how to fit"),
        ("study.json", "{", "cannot be read"),
        ("law.json", "{", "cannot be read"),
    ],
)
def test_a_file_that_should_say_it_and_does_not_is_an_error(study, name, text, said, capsys):
    (study / name).write_text(text)
    assert main([table(study), "resamples=5"]) == 2
    error = capsys.readouterr().err
    assert f"{study / name}: " in error
    assert said in error
