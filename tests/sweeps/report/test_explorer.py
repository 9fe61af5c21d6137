"""The explorer of a page: what it draws from, and what it does under the pointer in Chromium."""

import base64
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweeps.report.explorer.curves import thinned
from sweeps.report.explorer.document import Start, as_script, document, law_of
from sweeps.report.inputs.histories import History, read_histories, series_of
from sweeps.report.inputs.isoflop import read_inputs
from sweeps.report.pages.by_kind import build_page
from sweeps.report.pages.isoflop import build_report, render_page
from sweeps.report.pages.runs import explorer_parts

from ..study_files import BUDGETS, HOSTILE, make_law, write_runs, write_study
from .test_page import browse

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("studies") / "demo")
    build_report(study)
    return study


@pytest.fixture(scope="module")
def found(study):
    inputs = read_inputs(study)
    histories = read_histories(study, [run.values for run in inputs.runs])
    return document(histories, Start(), law_of(inputs.law))


@pytest.mark.heavy
def test_every_column_that_varies_is_an_axis_and_the_law_has_its_floor(found):
    columns = {column["key"]: column for column in found["columns"]}
    assert list(columns)[:6] == [
        "params", "tokens", "flops", "tokens_per_param", "loss", "reducible_loss",
    ]  # fmt: skip
    assert "width" not in columns  # one value in all runs
    assert "reason" not in columns
    assert columns["params"]["log"]
    assert columns["loss_t1"]["label"] == "loss at noise level 1"
    row = 7
    params, tokens, loss = (columns[key]["values"][row] for key in ("params", "tokens", "loss"))
    assert columns["tokens_per_param"]["values"][row] == pytest.approx(tokens / params, rel=1e-5)
    assert columns["reducible_loss"]["values"][row] == pytest.approx(loss - 0.22, rel=1e-4)
    assert columns["budget"]["colours"]
    assert not columns["params"]["colours"]
    assert found["start"] == {
        "figures": [["params", "loss"], ["flops", "loss"]], "colour": "budget",
    }  # fmt: skip
    assert found["out"].count(1) == 1
    assert [p["flops"] for p in found["frontier"]] == [*BUDGETS, 1.6e14]


def test_a_start_that_a_study_does_not_have_is_replaced():
    rows = [{"name": f"r{i}", "params": str(i + 1), "loss": str(0.3 + i)} for i in range(3)]
    histories = [History(row["name"], row) for row in rows]
    start = document(histories, Start(("optim.lr", "loss"), ("flops", "loss"), "arm"))["start"]
    assert start == {"figures": [["params", "loss"], ["params", "loss"]], "colour": ""}


def test_curves_are_thinned_to_means_and_keep_their_ends():
    records = [
        {"step": i, "tokens": 10 * i, "flops": 100 * i, "train_loss": 1 / i, "grad_norm": i,
         "lr": 0.1, "seconds": 2 * i}
        for i in range(1, 101)
    ]  # fmt: skip
    records.append({"step": 100, "tokens": 1000, "flops": 10_000, "loss": 0.25})
    training, checks = thinned(History("a", {}, {}, series_of(records)), 10)
    assert training["step"] == [10 * i for i in range(1, 11)]
    assert training["grad_norm"] == pytest.approx([10 * i + 5.5 for i in range(10)])
    assert training["train_loss"][0] == pytest.approx(sum(1 / i for i in range(1, 11)) / 10)
    assert training["tokens_per_second"] == pytest.approx([5.0] * 10)
    assert checks == {"step": [100], "tokens": [1000], "flops": [10_000], "loss": [0.25]}


def test_no_text_of_a_document_ends_its_element():
    text = as_script({"a": HOSTILE + "\u2028<!--", "b": math.pi})
    assert json.loads(text) == {"a": HOSTILE + "\u2028<!--", "b": math.pi}
    assert not set("<>&\u2028") & set(text)
    with pytest.raises(ValueError, match="JSON compliant"):
        as_script(math.nan)


@pytest.mark.heavy
def test_a_page_without_the_library_is_whole_and_says_in_one_line_how_to_get_it(study, monkeypatch):
    monkeypatch.setattr("sweeps.report.pages.runs.bundle", lambda: None)
    page = render_page(read_inputs(study), {})
    assert page.count("<script") == 1
    assert "a package: pip install &#39;kinescale[report]&#39;." in page
    assert 'id="run-3"' in page
    assert explorer_parts(None)["explorer_missing"] == ""


@pytest.mark.heavy
def test_a_run_s_details_have_its_cost_and_with_a_machine_its_mfu(tmp_path):
    study = tmp_path / "demo"
    study.mkdir()
    rows = write_runs(study, np.random.default_rng(1))
    lines = [
        {"step": i, "tokens": 100 * i, "flops": 1e9 * i, "train_loss": 1 / i, "grad_norm": 1.0,
         "lr": 0.1, "seconds": 2.0 * i, "loss": 1 / i}
        for i in range(1, 9)
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (study / "runs" / rows[1]["name"] / "metrics.jsonl").write_text(text)
    build_page(study)
    page = (study / "report" / "index.html").read_text(encoding="utf-8")
    run = page[page.index('id="run-0"') : page.index('id="run-1"')]
    seconds = rows[0]["seconds"]
    assert f"<dd>{seconds / 3600:.3g} device hours</dd>" in run
    assert "<dd>2×10¹⁰ FLOPs a second</dd>" in run
    assert "MFU" not in run
    assert "Not kept: learning rate, gradient norm, throughput." in run
    run = page[page.index('id="run-1"') : page.index('id="run-2"')]
    assert run.count("<svg") == 5
    assert "throughput, tokens a second: <b>50.0</b>" in run
    assert "Not kept" not in run
    page = build_page(study, "cpu2").read_text(encoding="utf-8")
    # 2e10 of 94e9 FLOP/s, the fp32 peak of launch/conf/machine/cpu2.yaml.
    assert "<dt>MFU</dt><dd>21.3 %</dd>" in page
    with pytest.raises(ValueError, match="machine=toaster: unknown choice"):
        build_page(study, "toaster")


@pytest.mark.heavy
def test_the_page_of_500_runs_stays_below_three_megabytes(tmp_path):
    budgets = [3e11 * 2.2**i for i in range(6)]
    rows = write_runs(tmp_path, np.random.default_rng(1), budgets, 83)
    (tmp_path / "law.json").write_text(json.dumps(make_law(rows, budgets)))
    for row in rows[:-1]:  # a thousand logged steps each
        lines = [
            json.dumps({"step": i, "tokens": 2048.123 * i, "flops": row["flops"] * i / 1000,
                        "train_loss": 0.5 + 1 / i, "grad_norm": 1.23456789 / i, "lr": 0.0123 / i,
                        "seconds": 0.1234567 * i})
            for i in range(1, 1001)
        ]  # fmt: skip
        (tmp_path / "runs" / row["name"] / "metrics.jsonl").write_text("\n".join(lines))
    page = build_report(tmp_path)
    assert 1_000_000 < page.stat().st_size < 3_000_000


# Put into a copy of a page: acts on it as a person does, and reports to the page that frames it.
ACT = """<script>
const errors = [], noted = {};
addEventListener("error", (event) => errors.push(event.message));
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => errors.push(event.violatedDirective));
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const all = (text) => [...document.querySelectorAll(text)];
const count = () => document.querySelector(".count").textContent;
const points = (n) => all(`[data-figure="${n}"] .mark-symbol path`);
const faint = (n) => points(n).filter((p) => Number(p.getAttribute("opacity")) < 0.5).length;
const lines = (name, fits) => all('[data-figure="c"] .mark-line path')
  .filter((p) => fits(Number(p.getAttribute(name)))).length;
const titles = (n) => all(`[data-figure="${n}"] .role-axis-title text`).map((t) => t.textContent);
const change = (name, value) => {
  const select = document.querySelector(`[data-pick="${name}"]`);
  if (select.type === "checkbox") select.checked = value; else select.value = value;
  select.dispatchEvent(new Event(select.type === "search" ? "input" : "change"));
};
const send = (target, kind, x, y) => target.dispatchEvent(new PointerEvent(kind, {
  bubbles: true, cancelable: true, clientX: x, clientY: y, view: window, button: 0, buttons: 1,
}));
addEventListener("load", async () => {
  try {
    await wait(1500);
    noted.hidden = document.querySelector(".explorer").hidden;
    noted.before = [count(), titles("0"), titles("c"), points("0").length];
    const point = points("0").find((p) => p.__data__.datum.id === 3);
    const box = point.getBoundingClientRect();
    for (const kind of ["pointerover", "pointermove", "mousemove"]) {
      send(point, kind, box.x + box.width / 2, box.y + box.height / 2);
    }
    await wait(300);
    noted.tooltip = document.querySelector("#vg-tooltip-element")?.textContent ?? "";
    noted.markup = all("#vg-tooltip-element script, #vg-tooltip-element img").length;
    noted.focused = all("tr.focus").map((row) => row.dataset.run);
    noted.thick = lines("stroke-width", (width) => width > 3);
    document.querySelector(".legend button").click();
    await wait(200);
    noted.legend = [count(), faint("0"), faint("1"), all("tr.faint").length];
    document.querySelector(".legend button").click();
    change("words", "4e13");
    await wait(200);
    noted.filter = [count(), faint("0"), faint("1"), lines("opacity", (value) => value < 0.5)];
    change("words", "");
    const plot = document.querySelector('[data-figure="1"] .background');
    const at = plot.getBoundingClientRect();
    const left = Math.min(...points("1").map((p) => p.getBoundingClientRect().x)) - 2;
    send(plot, "pointerdown", left, at.top + 1);
    for (const y of [at.top + 20, at.bottom - 1]) send(window, "pointermove", left + 30, y);
    send(window, "pointerup", left + 30, at.bottom - 1);
    await wait(300);
    noted.brushed = [count(), faint("0")];
    document.querySelector(".clear").click();
    await wait(500);
    change("x0", "tokens_per_param");
    change("y0", "reducible_loss");
    change("ylog0", true);
    change("yc", "train_loss");
    await wait(700);
    noted.after = [count(), titles("0"), titles("c"), points("0").length];
    change("zoom", true);
    await wait(700);
    const link = document.querySelector("#runs tbody a");
    link.click();
    await wait(100);
    const dialog = document.querySelector("dialog");
    noted.opened = [dialog.open, dialog.querySelector("h3").textContent,
      dialog.querySelectorAll("svg path").length];
    dialog.querySelector(".close").click();
    await wait(100);
    noted.closed = [all("dialog").length, all("#runs .run").length, location.hash];
    points("1").at(-1).dispatchEvent(new MouseEvent("click", { bubbles: true, view: window }));
    await wait(100);
    noted.clicked = all("dialog[open]").length;
  } catch (error) { errors.push(String(error.stack)); }
  const root = document.documentElement;
  noted.overflow = root.scrollWidth - root.clientWidth;
  noted.loaded = performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !name.startsWith("data:"));
  parent.postMessage(JSON.stringify({ ...noted, errors }), "*");
});
</script>"""
FRAME = """<!DOCTYPE html><title></title><script>
addEventListener("message", (event) => {
  document.title = "PROBE" + btoa(unescape(encodeURIComponent(event.data)));
});
</script><iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe>"""


def acted_on(page: str, folder: Path, width: int) -> dict:
    """Return what a page noted while it was used."""
    (folder / "page.html").write_text(page.replace("<head>", "<head>" + ACT, 1), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.replace("{width}", str(width)), encoding="utf-8")
    result = browse(
        folder / "frame.html", folder, "--window-size=1300,900", "--dump-dom",
        "--virtual-time-budget=20000",
    )  # fmt: skip
    found = re.search(r"<title>PROBE(.*?)</title>", result.stdout)
    assert found, result.stderr[-2000:]
    assert "CONSOLE" not in result.stderr
    return json.loads(base64.b64decode(found[1]))


@pytest.mark.page
@pytest.mark.parametrize("width", [1200, 390])
def test_pointing_filtering_selecting_and_other_axes_change_all_figures(study, tmp_path, width):
    page = (study / "report" / "index.html").read_text(encoding="utf-8")
    seen = acted_on(page, tmp_path, width)
    assert seen["errors"] == []
    assert seen["loaded"] == []
    assert seen["overflow"] <= 0
    assert seen["hidden"] is False
    runs = 5 * len(BUDGETS)
    assert seen["before"] == [
        f"{runs + 1} runs", ["parameters N", "validation loss"],
        ["compute C (FLOPs)", "validation loss"], runs + 4,
    ]  # fmt: skip
    names = [run.name for run in read_inputs(study).runs]
    assert names[3] in seen["tooltip"]
    assert "parameters N" in seen["tooltip"]
    assert (seen["focused"], seen["thick"], seen["markup"]) == (["3"], 1, 0)
    # Five runs of the smallest budget, and the one that diverged, which no figure shows.
    assert seen["legend"] == [f"{runs - 5} of {runs + 1} runs stand out", 5, 5, 6]
    assert seen["filter"] == [f"5 of {runs + 1} runs stand out", runs - 5, runs - 5, runs - 5]
    assert seen["brushed"] == [f"5 of {runs + 1} runs stand out", runs - 5]
    assert seen["after"] == [
        f"{runs + 1} runs", ["tokens per parameter D/N", "reducible loss L − E"],
        ["compute C (FLOPs)", "training loss"], runs + 4,
    ]  # fmt: skip
    assert seen["opened"] == [True, names[0], 2]
    assert seen["closed"] == [0, runs + 1, ""]
    assert seen["clicked"] == 1


@pytest.mark.page
def test_hostile_names_stay_text_under_the_pointer(study, tmp_path):
    name = f"{HOSTILE} '\"é🎞"
    inputs = read_inputs(study)
    run = inputs.runs[3]
    inputs.runs[3] = replace(run, name=name, values={**run.values, "name": name})
    page = render_page(inputs, {})
    assert "<script>alert" not in page
    seen = acted_on(page, tmp_path, 1200)
    assert seen["errors"] == []
    assert seen["markup"] == 0
    assert "<img src=https://evil.example/x" in seen["tooltip"]
    assert seen["loaded"] == []


NO_SCRIPT = """<!DOCTYPE html><title></title>
<iframe sandbox="allow-same-origin" src="page.html#run-3" style="width: 1200px"></iframe>
<script>addEventListener("load", () => setTimeout(() => {
  const page = document.querySelector("iframe").contentDocument;
  const seen = (text) => [...page.querySelectorAll(text)]
    .filter((element) => element.getClientRects().length).length;
  document.title = "PROBE" + btoa(JSON.stringify({
    explorer: seen(".explorer"), figures: seen("figure[data-name] svg"), runs: seen(".run"),
    shown: page.querySelector(".run:target h3")?.textContent ?? "", sparks: seen(".run svg"),
  }));
}, 500));</script>"""


@pytest.mark.page
def test_without_script_the_figures_stand_and_a_row_leads_to_its_run(study, tmp_path):
    page = (study / "report" / "index.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "frame.html").write_text(NO_SCRIPT, encoding="utf-8")
    flags = ("--allow-file-access-from-files", "--dump-dom")
    result = browse(tmp_path / "frame.html", tmp_path, *flags)
    found = re.search(r"<title>PROBE(.*?)</title>", result.stdout)
    assert found, result.stderr[-2000:]
    seen = json.loads(base64.b64decode(found[1]))
    name = read_inputs(study).runs[3].name
    assert seen == {"explorer": 0, "figures": 7, "runs": 1, "shown": name, "sparks": 2}
    assert re.search(rf'<a href="#run-3">{re.escape(name)}</a>', page)


@pytest.mark.page
@pytest.mark.parametrize("name", ["cpu_lr_transfer", "framing"])
def test_pages_of_points_and_arms_have_the_same_explorer(tmp_path, name):
    study = tmp_path / name
    shutil.copytree(ROOT / "docs" / "studies" / name, study)
    page = build_page(study).read_text(encoding="utf-8")
    page = page.replace("<head>", "<head>" + ACT.replace('change("yc"', '// change("yc"'), 1)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.replace("{width}", "1200"), encoding="utf-8")
    result = browse(tmp_path / "frame.html", tmp_path, "--dump-dom", "--virtual-time-budget=20000")
    found = re.search(r"<title>PROBE(.*?)</title>", result.stdout)
    seen = json.loads(base64.b64decode(found[1]))
    first = {"cpu_lr_transfer": "learning rate", "framing": "arm"}[name]
    assert seen["before"][1] == [first, "validation loss"]
    assert seen["tooltip"]
