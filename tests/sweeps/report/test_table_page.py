"""The page of anybody's table: its law, what was left out, how it is made again, and its weight."""

import base64
import csv
import json
import re

import numpy as np
import pytest

from sweeps.fit.law import fit_table
from sweeps.fit.options import FitOptions
from sweeps.report import wording
from sweeps.report.__main__ import main
from sweeps.report.inputs import table as inputs_of_table
from sweeps.report.inputs.table import read_table_inputs
from sweeps.report.pages.table import build_table_page, render_table

from ..study_files import ESCAPED_LINK, HOSTILE
from .test_page import FRAME, browse

NAMES = {"name": "run", "params": "N", "loss": "val"}
WORDS = [f"columns.{ours}={theirs}" for ours, theirs in NAMES.items()]


def rows_of(budgets=5, sizes=7, **more):
    """Return an isoFLOP table of runs of one name, and one row of a run that has not ended."""
    rng = np.random.default_rng(0)
    rows = []
    for flops in 1e18 * 4.0 ** np.arange(budgets):
        for params in (flops / 6) ** 0.45 * np.geomspace(0.3, 4, sizes):
            tokens = flops / 6 / params
            loss = 1.7 + 400 / params**0.34 + 410 / tokens**0.28
            loss *= np.exp(0.003 * rng.standard_normal())
            rows.append({"run": "same", "N": params, "tokens": tokens, "val": loss, **more})
    rows.append({"run": HOSTILE, "N": 1e9, "tokens": 1e10, "val": "", **more})
    return [row | {"lr": 0.1 / (1 + i)} for i, row in enumerate(rows)]


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a page as a command line asks for it; return table and page."""
    table = write(tmp_path_factory.mktemp("table") / "their ladder.csv", rows_of())
    assert main([str(table), *WORDS, "resamples=30"]) == 0
    return table, table.with_suffix(".html")


@pytest.mark.heavy
def test_a_page_of_a_table_has_its_law_and_every_number_of_it(made):
    table, path = made
    page = path.read_text(encoding="utf-8")
    law = fit_table(table, options=FitOptions(resamples=30), columns=NAMES)
    assert f"Chosen: {law['choice']['reason']}." in re.sub("\u00a0%", " %", page)
    for record in law["rolling_origin"]:
        assert f'<td class="s n" data-value="{record["bias"]:.10g}">' in page
    low, high = law["frontier"][-1]["intervals"]["loss"]
    shown = f"({wording.format_value(low)} to {wording.format_value(high)})"
    assert shown in page[page.index("<h1>") : page.index("</h1>")]
    assert len(re.findall(r"<figure data-name=", page)) == 6
    assert page.count("<tr data-run=") == 36
    assert page.count("<li>", page.index("Read this before"), page.index("</aside>")) == len(
        law["warnings"]
    )


@pytest.mark.heavy
def test_rows_of_one_name_are_told_apart_and_what_was_left_out_says_why(made):
    page = made[1].read_text(encoding="utf-8")
    assert page.count('<a href="#run-') == 36
    assert all(f"same (line {line})" in page for line in range(2, 37))
    left_out = page[page.index('id="excluded"') : page.index('id="runs"')]
    assert "loss is nan: the run diverged or has not ended" in left_out
    assert left_out.count("<tr>") == 2
    assert "36 rows · 35 fitted · 1 left out · 5 budgets" in page
    assert HOSTILE not in page
    assert page.count(ESCAPED_LINK) == page.count(f"&lt;img {ESCAPED_LINK}") + page.count(
        f"u003cimg {ESCAPED_LINK}"
    )


@pytest.mark.heavy
def test_the_page_says_how_it_is_made_again(made, tmp_path):
    table, path = made
    page = path.read_text(encoding="utf-8")
    command = "table=&#39;their ladder.csv&#39; resamples=30 columns.name=run columns.params=N"
    assert command in page
    again = build_table_page(
        table, tmp_path / "deep" / "again.html", options=FitOptions(resamples=30), columns=NAMES
    )
    assert again.read_text(encoding="utf-8") == page
    assert len(page.encode()) < 3_000_000
    (uri,) = re.findall(r'href="data:text/csv;base64,([^"]+)"', page)
    rows = list(csv.DictReader(base64.b64decode(uri).decode().splitlines()))
    assert len(rows) == 36
    assert {row["excluded"] for row in rows} == {"0", "1"}
    assert fit_table(rows[:35], options=FitOptions(resamples=5))["excluded"] == []


@pytest.mark.heavy
def test_a_grid_without_budgets_and_a_named_form_have_a_page_too():
    rows = [
        {"params": n, "tokens": d, "loss": 1.7 + 400 / n**0.34 + 410 / d**0.28}
        for n in np.geomspace(1e7, 1e9, 4)
        for d in np.geomspace(1e9, 3e10, 5)
    ]
    found = read_table_inputs(rows, "chinchilla", FitOptions(resamples=10))
    page = render_table(found, rows, chosen=False)
    assert "(Hoffmann et al. 2022, approach 3), as asked for." in page
    assert 'id="isoflop"' not in page
    assert "no budget was foreseen from smaller ones" in page
    assert "kinescale report list form=chinchilla resamples=10" in page


@pytest.mark.heavy
def test_a_large_table_is_thinned_on_its_page_and_fitted_whole(monkeypatch):
    rows = rows_of(sizes=9, **{f"setting{i}": 1.0 for i in range(3)})[:-1]
    rows = [row | {f"extra{i}": i + row["lr"] for i in range(40)} for row in rows]
    monkeypatch.setattr(inputs_of_table, "MOST_ROWS", 20)
    found = read_table_inputs(rows, "chinchilla", FitOptions(resamples=5), columns=NAMES)
    assert (found.rows, found.fitted, len(found.inputs.runs)) == (45, 45, 20)
    assert len(found.inputs.law["residuals"]) == 45
    kept = set(found.inputs.runs[0].values)
    assert "extra5" in kept
    assert "extra39" not in kept
    assert "setting0" not in kept
    page = render_table(found, rows, chosen=False)
    assert "20 of 45 rows, evenly taken, are drawn and listed here" in page


def test_a_form_without_a_frontier_and_options_that_draw_nothing_are_named(tmp_path, capsys):
    table = write(tmp_path / "t.csv", rows_of())
    for words, said in (
        (["form=frontier"], "form=frontier: has no frontier over params and tokens"),
        (["predict=x.csv"], "predict=x.csv: is no part of a page"),
        (["lvel=1"], "lvel=1: must be key=value"),
        ([], "params=params: not a column of t.csv"),
    ):
        assert main([str(table), *words]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "t.html").exists()
    assert main(["wandb:lab/ladder"]) == 2
    assert "Say where its page goes: out=FILE.html" in capsys.readouterr().err


PROBE = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement;
  parent.postMessage(JSON.stringify({
    errors, overflow: root.scrollWidth - root.clientWidth, width: root.clientWidth,
    drawn: document.querySelectorAll(".explorer [data-figure] svg").length,
    figures: document.querySelectorAll("figure[data-name] svg[role=img]").length,
    links: [...document.querySelectorAll("nav a")].filter(
      (a) => !document.querySelector(a.getAttribute("href"))).length,
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name)
      .filter((name) => !name.startsWith("data:")),
  }), "*");
}, 2500));
</script>"""


@pytest.mark.page
@pytest.mark.parametrize("width", [1400, 390])
def test_chromium_draws_the_page_of_a_table_at_any_width(made, tmp_path, width):
    page = made[1].read_text(encoding="utf-8").replace("<head>", "<head>" + PROBE, 1)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.replace("{width}", str(width)), encoding="utf-8")
    result = browse(tmp_path / "frame.html", tmp_path, "--window-size=1500,900", "--dump-dom")
    found = re.search(r"<title>PROBE(.*?)</title>", result.stdout)
    assert found, result.stderr[-2000:]
    probe = json.loads(base64.b64decode(found[1]))
    assert probe["width"] == width
    assert probe["overflow"] <= 0
    assert (probe["errors"], probe["loaded"], probe["links"]) == ([], [], 0)
    assert (probe["drawn"], probe["figures"]) == (2, 6)
