"""A law as a picture, as rows of its frontier, in a notebook; published coefficients against it."""

import csv
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from sweeps.fit.__main__ import main
from sweeps.fit.against import against
from sweeps.fit.bands import BEYOND, COLUMNS, ROWS
from sweeps.fit.law import fit_both, fit_law
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.runs import Run

TRUE = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 410.0, "beta": 0.28}
FEW = FitOptions(resamples=40)


def loss_of(params, tokens):
    return TRUE["E"] + TRUE["A"] / params ** TRUE["alpha"] + TRUE["B"] / tokens ** TRUE["beta"]


def some_runs(noise=0.002):
    rng = np.random.default_rng(0)
    runs = []
    for flops in (1e18, 4e18, 1.6e19, 6.4e19):
        for params in np.sqrt(flops / 120) * np.geomspace(0.3, 3, 6):
            tokens = flops / 6 / params
            loss = loss_of(params, tokens) * np.exp(noise * rng.standard_normal())
            runs.append(Run("", float(params), float(tokens), flops, float(loss)))
    return runs


@pytest.fixture(scope="module")
def law():
    return fit_law(some_runs(), "chinchilla", FEW)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "runs.csv"
    lines = [f"{r.params},{r.tokens},{r.flops},{r.loss}" for r in some_runs()]
    path.write_text("\n".join(["params,tokens,flops,loss", *lines]), encoding="utf-8")
    return path


@pytest.mark.heavy
def test_bands_go_from_the_least_run_to_beyond_the_largest(law):
    rows = law.bands()
    assert len(rows) == ROWS
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["flops"] == pytest.approx(1e18)
    assert rows[-1]["flops"] == pytest.approx(BEYOND * 6.4e19)
    for row in rows:
        assert row["loss_low"] <= row["loss"] <= row["loss_high"]
        assert row["tokens_per_param"] == pytest.approx(row["tokens"] / row["params"])
        assert row["loss"] == pytest.approx(law.at(row["flops"]).loss)


def test_a_law_draws_itself_with_every_run_and_budget(law, tmp_path):
    picture = law.plot(tmp_path / "law.svg")
    assert (tmp_path / "law.svg").read_text(encoding="utf-8") == picture
    root = ElementTree.fromstring(picture)
    assert root.tag.endswith("svg")
    uses = [e for e in root.iter() if e.tag.endswith("use")]
    assert len(uses) >= 2 * len(law.runs) + sum(m.loss is not None for m in law.isoflop)


def test_a_notebook_shows_the_picture_and_the_words_safely(law):
    page = law._repr_html_()
    assert page.count("<svg") == 1
    assert "Exponent of N* in compute" in page
    assert "<pre>" in page
    assert "&lt;" in page or "<1" not in page


def test_published_coefficients_are_contradicted_only_when_they_are_wrong(law):
    right, wrong = against(law.fit, TRUE), against(law.fit, TRUE | {"E": 1.75})
    assert right["p"] > 0.05 > wrong["p"]
    assert right["objective"] >= law.fit.objective
    assert abs(right["mean_relative_error"]) < 0.002 < wrong["mean_relative_error"]
    with pytest.raises(ValueError, match=r"against\.beta=: form=chinchilla has the coefficients"):
        against(law.fit, {k: v for k, v in TRUE.items() if k != "beta"})
    with pytest.raises(ValueError, match=r"against\.E=-1"):
        against(law.fit, TRUE | {"E": -1.0})


@pytest.mark.heavy
def test_a_single_run_is_less_certain_than_the_law(table):
    found, _ = fit_both(table, "chinchilla", FEW, predict=table)
    widths = [
        (np.ptp(row["interval"]), np.ptp(row["run_interval"]))
        for row in found["predictions"]["rows"]
    ]
    assert np.mean([run > law for law, run in widths]) == 1
    inside = [
        row["run_interval"][0] <= row["loss"] <= row["run_interval"][1]
        for row in found["predictions"]["rows"]
    ]
    assert np.mean(inside) > 0.7


@pytest.mark.heavy
def test_the_command_writes_picture_bands_and_verdict(table, tmp_path, capsys):
    out = tmp_path / "new folder"
    words = [f"table={table}", "form=chinchilla", "resamples=40", f"plot={out}/l.svg"]
    words += [f"bands={out}/b.csv", f"out={out}/law.json"]
    words += [f"against.{name}={value}" for name, value in TRUE.items()]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "do not contradict them" in said
    assert f"Written to {out}/law.json, {out}/l.svg, {out}/b.csv" in said
    with (out / "b.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == ROWS
    assert json.loads((out / "law.json").read_text())["against"]["degrees"] == 5
    assert (out / "l.svg").read_text().startswith("<?xml")


def test_a_picture_of_a_form_without_a_frontier_is_refused_in_words(table, tmp_path, capsys):
    words = [f"table={table}", "form=frontier", "resamples=20", f"plot={tmp_path}/l.svg"]
    assert main(words) == 2
    assert "plot=, bands=: form=frontier has no frontier over params" in capsys.readouterr().err
    assert not (tmp_path / "l.svg").exists()
