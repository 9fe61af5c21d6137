"""The compute multiplier of two frontiers or runs with known answers, and when it is refused."""

import csv
import importlib.util
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweeps.compare.__main__ import main
from sweeps.compare.command import compare
from sweeps.compare.multiplier import compare_sides
from sweeps.compare.sides import read_table_side
from sweeps.fit.options import FitOptions
from sweeps.study.validation import validated

DEMO = Path(__file__).parents[2] / "docs" / "studies" / "demo"


def loss_of(params, tokens):
    return 1.69 + 406.4 / params**0.34 + 410.7 / tokens**0.28


def table(path, factor=1.0, noise=0.003, seed=0, first=1e18, budgets=4, scale=1.0):
    """Write an isoFLOP table of runs that need `factor` times less compute for the same loss."""
    rng = np.random.default_rng(seed)
    rows = []
    for flops in first * 4.0 ** np.arange(budgets):
        for params in 0.6 * (flops / 6) ** 0.45 * np.geomspace(0.3, 3.3, 5):
            tokens = flops / 6 / params
            loss = scale * loss_of(params, factor * tokens) * np.exp(noise * rng.standard_normal())
            rows.append([f"r{len(rows)}", params, tokens, flops, loss])
    return write(path, ["name", "params", "tokens", "flops", "loss"], rows)


def write(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def run_folder(folder, factor=1.0, noise=0.002, last=2e12):
    flops = np.geomspace(1e11, last, 9)
    rows = [[i, 1.0, c, 0.5 * (factor * c / 1e11) ** -0.1, ""] for i, c in enumerate(flops)]
    write(folder / "curve.csv", ["step", "tokens", "flops", "loss", "train_loss"], rows)
    result = {"status": "finished", "loss": rows[-1][3], "loss_noise": noise * rows[-1][3]}
    (folder / "result.json").write_text(json.dumps(result))
    return str(folder)


@pytest.mark.heavy
def test_the_multiplier_of_a_recipe_that_needs_half_again_less_compute_is_in_its_interval(tmp_path):
    a = table(tmp_path / "a.csv")
    b = table(tmp_path / "b.csv", factor=1.5, seed=1)
    found, *_ = compare(a, b, FitOptions(resamples=150))
    low, high = found.interval
    assert low < 1.5 < high
    assert high / low < 1.3
    assert found.factor == pytest.approx(1.5, rel=0.1)
    assert found.verdict.startswith("b is worth 1.")
    swapped, *_ = compare(b, a, FitOptions(resamples=150))
    assert swapped.factor == pytest.approx(1 / found.factor, rel=0.05)
    assert swapped.verdict.startswith("b is worth 1.")


def test_without_noise_the_multiplier_is_right_at_every_loss(tmp_path):
    a = table(tmp_path / "a.csv", noise=0)
    b = table(tmp_path / "b.csv", noise=0, factor=1.5)
    found, *_ = compare(a, b, FitOptions(resamples=20))
    assert [p["factor"] for p in found.points] == pytest.approx([1.5] * len(found.points), rel=3e-3)
    assert found.trend == pytest.approx(1, abs=3e-3)


def test_two_tables_of_one_recipe_are_not_told_apart(tmp_path):
    found, *_ = compare(
        table(tmp_path / "a.csv"), table(tmp_path / "b.csv", seed=1), FitOptions(resamples=150)
    )
    assert found.factor is None
    assert "holds 1" in found.refusal or "below 2 times its noise" in found.refusal
    assert found.verdict.startswith("Refused: ")


def test_losses_that_do_not_overlap_are_refused_with_both_ranges(tmp_path, capsys):
    a = table(tmp_path / "a.csv")
    b = table(tmp_path / "b.csv", scale=0.4)
    assert main([a, b, "resamples=20"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Refused: the losses do not overlap: a goes from ")
    assert "b goes from" in text


def test_a_gain_that_grows_with_compute_is_said(tmp_path):
    a, b = [], []
    for c in np.geomspace(1e18, 1e21, 7):
        a.append([c, 3 * (c / 1e18) ** -0.05])
        b.append([c, 2.97 * (c / 1e18) ** -0.08])
    header = ["flops", "loss"]
    one, other = write(tmp_path / "a.csv", header, a), write(tmp_path / "b.csv", header, b)
    found, *_ = compare(one, other, FitOptions(resamples=100))
    assert found.method == "frontier"
    assert found.points[0]["factor"] > 5 * found.points[-1]["factor"]
    # A's compute at loss 2.5 over B's, from both powers.
    wanted = (3 / 2.5) ** (1 / 0.05) / (2.97 / 2.5) ** (1 / 0.08)
    at = np.interp(2.5, [p["loss"] for p in found.points], [p["factor"] for p in found.points])
    assert at == pytest.approx(wanted, rel=0.05)
    assert "grows with compute" in found.verdict


def test_two_runs_are_compared_along_their_curves(tmp_path):
    a, b = run_folder(tmp_path / "a"), run_folder(tmp_path / "b", factor=2.0)
    found, *_ = compare(a, b, FitOptions(resamples=400))
    assert found.method == "curve"
    assert found.factor == pytest.approx(2.0, rel=1e-6)
    low, high = found.interval
    assert low < 2 < high < 2.5
    near = run_folder(tmp_path / "c", factor=1.01)
    refused, *_ = compare(a, near, FitOptions(resamples=400))
    assert "holds 1" in refused.refusal


@pytest.mark.heavy
def test_a_study_against_itself_with_cheaper_runs_gives_the_factor(tmp_path, capsys):
    with (DEMO / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for key in ("tokens", "flops", "budget"):
            row[key] = float(row[key]) / 1.5
    cheap = write(tmp_path / "cheap" / "runs.csv", list(rows[0]), [r.values() for r in rows])
    out, svg = tmp_path / "c.json", tmp_path / "c.svg"
    words = [str(DEMO), str(Path(cheap).parent), "resamples=60", f"out={out}", f"svg={svg}"]
    words.append("form=chinchilla")  # the demo's, which a table of no study does not know
    assert main(words) == 0
    assert "cheap is worth 1.5x the compute of demo" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["factor"] == pytest.approx(1.5, rel=3e-3)
    assert found["noise"] > 0
    text = svg.read_text()
    assert text.startswith("<svg")
    assert "Compute at equal loss" in text


def test_a_reader_that_leaves_does_not_cost_the_files(tmp_path):
    a, out = run_folder(tmp_path / "a"), tmp_path / "c.json"
    b = run_folder(tmp_path / "b", factor=2.0)
    command = [sys.executable, "-m", "sweeps.compare", a, b, "resamples=20", f"out={out}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE
    assert json.loads(out.read_text())["factor"] == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{a}"] * 3, "must be two folders or tables, or one table with a column recipe"),
        (["{a}", "{a}", "reference=x"], "reference=x: is not for 2 of A and B"),
        (["{a}", "method=law"], "method=law: is not for 1 of A and B"),
        (["{a}"], "recipe=recipe: not a column of a.csv"),
        (["{a}", "columns.recipe=name"], "recipe=r0: runs=1: form=chinchilla has 5 coefficients"),
        (["{a}", "columns.recipe=budget"], "recipe=budget: not a column of a.csv"),
        (["nowhere", "else"], "nowhere: does not exist"),
        (["{a}", "{run}"], "one is a run, the other a table"),
        (["{a}", "{empty}"], "holds neither runs.csv"),
        (["{a}", "{a}", "level=2"], "level=2.0: must be between 0 and 1"),
        (["{a}", "{a}", "method=guess"], "method=guess: is not known"),
        (["{a}", "{a}", "lvel=.9"], "lvel=.9: is not an option"),
        (["{a}", "{three}"], "a frontier needs 3"),
        (["{a}", "{text}"], "loss='low' in line 2: must be a number"),
    ],
)
def test_a_bad_question_is_named(tmp_path, capsys, words, said):
    header = ["params", "tokens", "loss"]
    places = {
        "a": table(tmp_path / "a.csv"),
        "run": run_folder(tmp_path / "run"),
        "empty": str(tmp_path / "empty"),
        "three": write(tmp_path / "t.csv", header, [[1e6, 1e8, 3.0], [2e6, 1e8, 2.9]]),
        "text": write(tmp_path / "x.csv", header, [[1e6, 1e8, "low"]] * 8),
    }
    (tmp_path / "empty").mkdir()
    assert main([word.format(**places) for word in words]) == 2
    assert said in capsys.readouterr().err


def study(folder, about=None, **files):
    """Write a small study: a table, and what its folder says of it."""
    table(folder / "runs.csv", noise=0, factor=1.5 if folder.name == "b" else 1.0)
    if about is not None:
        (folder / "study.yaml").write_text(about)
    for name, value in files.items():
        path = folder / (name.replace("_", "/") + ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    return str(folder)


BASE = "base: [experiment=cpu_demo, 'data.root={root}', 'validation.samples={samples}']\n"


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ({"data": {"digest": "aa"}}, {"data": {"digest": "bb"}},
         "digest of the data set is aa and bb"),
        ({"about": BASE.format(root="x", samples=96)}, {"about": BASE.format(root="y", samples=96)},
         "data.root is x and y"),
        ({"about": BASE.format(root="x", samples=96)}, {"about": "base: [experiment=cpu_demo]"},
         "validation.samples is 96 and as the experiment has it"),
        ({"runs_r_result": {"validation": {"val": {"clips": 96, "tokens": 500}}}},
         {"runs_r_result": {"validation": {"val": {"clips": 48, "tokens": 250}}}},
         "what was counted of val is 96 clips of 500 tokens and 48 clips of 250 tokens"),
    ],
)  # fmt: skip
def test_other_validation_data_are_refused_unless_asked_for(tmp_path, capsys, a, b, said):
    words = [study(tmp_path / "a", **a), study(tmp_path / "b", **b), "resamples=5"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "validation=differs compares them nevertheless" in error
    assert main([*words, "validation=differs"]) == 0
    verdict = capsys.readouterr().out.splitlines()[0]
    assert verdict.startswith("b is worth 1.5x")
    assert "Their validation data differ: " in verdict
    assert said in verdict


def test_what_was_compared_is_said_and_one_data_set_may_lie_in_two_places(tmp_path, capsys):
    digest = {"digest": "aa"}
    a = study(tmp_path / "a", BASE.format(root="x", samples=96), data=digest)
    b = study(tmp_path / "b", BASE.format(root="y", samples=96), data=digest)
    assert main([a, b, "resamples=5"]) == 0
    said = "are the same by digest of the data set, experiment, validation.samples."
    assert said in capsys.readouterr().out
    assert main([a, study(tmp_path / "c" / "b"), "resamples=5"]) == 0
    assert "Nothing beside them says on which clips" in capsys.readouterr().out


def test_the_committed_studies_of_two_validation_sets_are_refused(capsys):
    assert main([str(DEMO), str(DEMO.parent / "cpu_isoflop")]) == 2
    assert "data.root is as the experiment has it and datasets/law/latents" in (
        capsys.readouterr().err
    )


def test_an_archive_says_by_its_runs_on_what_they_were_validated():
    found = validated(DEMO.parent / "cpu_isoflop" / "runs.csv")
    assert found.config["data.root"] == '"datasets/law/latents"'
    assert found.counted == {"val_worlds": "96 clips of 14510 tokens"}


@pytest.mark.heavy
def test_each_study_is_compared_by_its_own_form_unless_one_is_given(tmp_path, capsys):
    a = study(tmp_path / "a", "form: kaplan\nlevel: 0.8\nresamples: 6\n")
    b = study(tmp_path / "b", "form: chinchilla_tied\nlevel: 0.8\nresamples: 7\n")
    assert main([a, b]) == 0
    text = capsys.readouterr().out
    assert "a: its law is L = [(N_c" in text
    assert "b: its law is L = E + A / params^alpha + B / tokens^alpha" in text
    assert "80 % interval" in text
    assert main([a, b, "form=chinchilla", "level=.9", "resamples=5"]) == 0
    text = capsys.readouterr().out
    assert "its law is L = [(N_c" not in text
    assert "90 % interval" in text


def test_a_fit_that_leaves_the_losses_of_its_runs_is_refused_without_its_figures(tmp_path):
    paths = [Path(table(tmp_path / f"{name}.csv", noise=0)) for name in "ab"]
    a, b = (read_table_side(p, {}, "law", FitOptions(resamples=5), "chinchilla") for p in paths)
    away = replace(b, curve=b.curve + np.log(0.4))
    found = compare_sides(a, away, 0.9)
    least, most = b.loss.min(), b.loss.max()
    assert found.factor is None
    assert "the fit of b runs away: inside the compute of its runs" in found.refusal
    assert f"their losses, {least:.4g} to {most:.4g}, by" in found.refusal
    assert "goes from" not in found.verdict


@pytest.mark.skipif(not importlib.util.find_spec("polars"), reason="pip install kinescale[tables]")
def test_a_parquet_table_is_the_side_that_its_csv_is(tmp_path):
    import polars

    path = table(tmp_path / "a.csv", noise=0)
    polars.read_csv(path).write_parquet(tmp_path / "a.parquet")
    one, other = (
        read_table_side(p, {}, "law", FitOptions(resamples=5), "chinchilla")
        for p in (Path(path), tmp_path / "a.parquet")
    )
    assert np.array_equal(one.loss, other.loss)
    assert np.array_equal(one.curve, other.curve)


def test_parquet_without_its_reader_says_what_to_install(tmp_path, monkeypatch, capsys):
    for module in ("polars", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    assert main([table(tmp_path / "a.csv"), str(tmp_path / "b.parquet")]) == 2
    assert "Run pip install 'kinescale[tables]'" in capsys.readouterr().err


@pytest.mark.slow
def test_intervals_hold_the_true_multiplier_as_often_as_they_say(tmp_path):
    held = 0
    for seed in range(100):
        a = table(tmp_path / "a.csv", seed=2 * seed)
        b = table(tmp_path / "b.csv", factor=1.5, seed=2 * seed + 1)
        found, *_ = compare(a, b, FitOptions(resamples=200), form="chinchilla")
        low, high = found.interval
        held += low < 1.5 < high
    assert 82 <= held <= 97  # 90 % of 100, give or take 2.6 of its standard deviations
