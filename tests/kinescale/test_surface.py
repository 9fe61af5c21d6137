"""What a script imports from outside: every name is there, lazily, and docs/python.md tells it."""

import subprocess
import sys
from pathlib import Path

import pytest

import kinescale
from kinescale import Law, compose_run, fit_table, law_of_table, load_study
from sweeps.fit.options import FitOptions
from trainer.config import RunConfig

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "docs/studies"
MOST_MODULES = 90  # that the door may import beyond the interpreter's own; it takes 45


@pytest.mark.parametrize("name", kinescale.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    assert getattr(kinescale, name).__doc__
    assert name in dir(kinescale)
    assert f"`{name}`" in (ROOT / "docs/python.md").read_text(encoding="utf-8")


def test_a_name_that_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'fit_tables'"):
        kinescale.fit_tables  # noqa: B018


def modules_after(code: str) -> set[str]:
    """Return what a fresh interpreter has imported once it has run a line of code."""
    told = "\nfinally: import sys; print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", f"try: {code}{told}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import kinescale",
        "import sys; sys.argv = ['kinescale', '--help']; import kinescale.__main__ as k; k.main()",
    ],
)
def test_the_door_opens_at_once(code: str) -> None:
    """Seconds would measure the machine: what takes them is imports, of which there are few."""
    found = modules_after(code) - modules_after("pass")
    assert "kinescale" in found
    assert len(found) < MOST_MODULES
    strangers = {name.split(".")[0] for name in found} - sys.stdlib_module_names
    assert strangers <= {"kinescale", "data", "trainer", "launch", "sweeps"}


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, kinescale\n"
        "print(*{'torch', 'numpy', 'omegaconf', 'sweeps', 'trainer'} & set(sys.modules))\n"
        "kinescale.fit_table; kinescale.load_study\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\nFalse\n", "")


@pytest.mark.heavy
def test_a_table_becomes_a_law_that_says_what_its_json_says() -> None:
    table, options = STUDIES / "demo/runs.csv", FitOptions(resamples=20)
    law = law_of_table(table, "kaplan", options)
    assert isinstance(law, Law)
    assert fit_table(table, "kaplan", options) == law.to_dict()
    assert law.at(1e12).loss == pytest.approx(
        law.predict([law.at(1e12).params], [law.at(1e12).tokens])[0], rel=1e-6
    )
    with pytest.raises(ValueError, match="form=frontier"):
        law_of_table(table, "frontier", options)


@pytest.mark.parametrize("name", ["cpu_isoflop", "cpu_seeds", "demo", "framing"])
def test_a_committed_study_loads(name: str) -> None:
    study = load_study(STUDIES / name)
    assert study.name == name
    assert len(study.runs) > 3
    assert all(isinstance(run["loss"], float) for run in study.runs)
    assert all(run["reason"] for run in study.excluded)
    assert (study.law is not None) == (STUDIES / name / "law.json").exists()


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no runs\.csv\. Give the folder"):
        load_study(tmp_path)
    (tmp_path / "runs.csv").write_text("name,loss,excluded\na,1.5,0\nb,,1\n", encoding="utf-8")
    study = load_study(tmp_path)
    assert study.runs == [{"name": "a", "loss": 1.5, "excluded": 0.0}]
    assert study.excluded == [{"name": "b", "loss": None, "excluded": 1.0}]
    assert (study.name, study.question, study.law) == (tmp_path.name, "", None)
    (tmp_path / "law.json").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match=r"law\.json: cannot be read .* Restore it"):
        load_study(tmp_path)


def test_a_run_is_composed() -> None:
    assert isinstance(compose_run(["experiment=cpu_smoke"]), RunConfig)
