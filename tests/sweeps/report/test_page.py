"""What headless Chromium makes of a study's page."""

import base64
import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sweeps.report.pages.isoflop import build_report

from ..study_files import DIVERGED, write_study


def browse(page: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Open a page in headless Chromium with a fresh profile."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("headless Chromium is not installed (make setup-system)")
    # One process: starting six of them takes longer than reading the page.
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--single-process", "--no-zygote", "--disable-extensions",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=4000",
             f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
    return subprocess.run(
        [browser, *flags, *arguments, page.as_uri()], capture_output=True, text=True, timeout=300
    )


# Put into a copy of the page: reports what the browser made of it to the page that frames it.
PROBE = """<script>
const errors = [], files = {};
addEventListener("error", (event) => errors.push(event.message));
addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement, runs = document.querySelector("#runs table");
  // What is saved, without the wait of a real Blob, during which virtual time would run out.
  let made = null;
  window.Blob = function (parts) { this.content = parts.join(""); };
  URL.createObjectURL = (blob) => { made = blob.content; return "data:,"; };
  HTMLAnchorElement.prototype.click = function () { files[this.download] = made; };
  document.querySelectorAll("button.tool").forEach((button) => button.click());
  const drawn = Object.entries(files).filter(([name]) => name.endsWith(".svg"));
  const parse = (text) => new DOMParser().parseFromString(text, "image/svg+xml");
  const loss = () => [...runs.tBodies[0].rows].map((row) => row.cells[7].dataset.value)
    .filter((value) => value !== undefined).map(Number);
  const button = runs.querySelector("th:nth-child(8) button");
  button.focus();
  const focused = document.activeElement === button;
  button.click();
  const rising = loss();
  button.click();
  const falling = loss();
  const filter = document.querySelector("#runs input[type=search]");
  filter.value = "3e11 demo";
  filter.dispatchEvent(new Event("input"));
  const named = "button, video, svg[role=img], [role=region]";
  const names = [...document.querySelectorAll(named)];
  parent.postMessage(JSON.stringify({
    ready: [...document.querySelectorAll("video")].map((video) => video.readyState),
    overflow: root.scrollWidth - root.clientWidth, width: root.clientWidth, errors, focused,
    rising: rising.every((value, index) => !index || rising[index - 1] <= value),
    falling: falling.every((value, index) => !index || falling[index - 1] >= value),
    sort: button.parentElement.getAttribute("aria-sort"),
    shown: [...runs.tBodies[0].rows].filter((row) => !row.hidden).length,
    status: document.querySelector("#runs [role=status]").textContent,
    beyond: [...document.querySelectorAll("figure[data-name=law] .scroll")].map((box) =>
      box.querySelector("svg").getBoundingClientRect().right - box.getBoundingClientRect().right),
    hint: getComputedStyle(document.querySelector("figure[data-name=law] .scroll"), "::before")
      .direction,
    heads: [...document.querySelectorAll("table:not(.pairs) thead th:first-child")].filter((head) =>
      getComputedStyle(head).textAlign !== "left").length,
    nameless: names.filter((item) => !item.getAttribute("aria-label") && !item.textContent).length,
    files: Object.keys(files), csv: files["all-runs.csv"], checked: drawn.length,
    broken: drawn.filter(([, text]) => /var\\(/.test(text) ||
      parse(text).querySelector("parsererror") || !parse(text).querySelector("path")).length,
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name)
      .filter((name) => !name.startsWith("data:")),
  }), "*");
}, 1500));
</script>"""
# A frame, because Chromium's window is never narrower than 500 pixels.
FRAME = """<!DOCTYPE html><title></title><script>
addEventListener("message", (event) => {
  document.title = "PROBE" + btoa(unescape(encodeURIComponent(event.data)));
});
</script><iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe>"""
SIX_BUDGETS = [3e11 * 2.2**i for i in range(6)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 499 runs at six budgets."""
    study = write_study(tmp_path_factory.mktemp("studies") / "large", SIX_BUDGETS, 83)
    build_report(study)
    return study


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    return (study / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.heavy
def test_the_page_of_500_runs_is_light_and_draws_nothing_twice(page: str) -> None:
    assert page.count("<tr data-run=") == 499
    assert len(page.encode()) < 3_000_000
    assert len(re.findall(r"<figure data-name=", page)) == 7
    ladder = page[page.index('id="ladder"') : page.index('id="real"')]
    assert ladder.count('class="budget"') == 6 + 1
    assert ladder.count("<video") == 3 * 6 - 1 + 1


@pytest.mark.page
@pytest.mark.parametrize("width", [1200, 400])
def test_chromium_sorts_filters_and_saves_without_a_request(
    page: str, tmp_path: Path, width: int
) -> None:
    copy = page.replace("<head>", "<head>" + PROBE, 1)
    (tmp_path / "page.html").write_text(copy, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.replace("{width}", str(width)), encoding="utf-8")
    result = browse(tmp_path / "frame.html", tmp_path, "--window-size=1300,900", "--dump-dom")
    found = re.search(r"<title>PROBE(.*?)</title>", result.stdout)
    assert found, result.stderr[-2000:]
    probe = json.loads(base64.b64decode(found[1]))
    assert probe["errors"] == []
    assert probe["width"] == width
    assert probe["overflow"] <= 0
    assert probe["beyond"][0] <= 1  # the largest budgets, and the one held out, are in sight
    assert probe["hint"] == "ltr"  # its full stop is at its end
    assert probe["heads"] == 0  # as the rows' own names are
    assert len(probe["ready"]) == 3 * 6
    assert min(probe["ready"]) >= 1
    assert (probe["focused"], probe["rising"], probe["falling"]) == (True, True, True)
    assert probe["sort"] == "descending"
    assert probe["shown"] == 83
    assert probe["status"] == "83 of 499 rows"
    assert probe["nameless"] == 0
    assert (probe["checked"], probe["broken"]) == (7, 0)
    assert {"law.svg", "groups.svg", "all-runs.csv", "the-frontier-with-90-intervals.csv"} <= set(
        probe["files"]
    )
    assert probe["loaded"] == []
    rows = list(csv.DictReader(probe["csv"].splitlines()))
    assert len(rows) == 499
    assert "'" + DIVERGED in {row["run"] for row in rows}
    assert {float(row["budget"]) for row in rows} == {float(f"{b:.10g}") for b in SIX_BUDGETS}
    assert "CONSOLE" not in result.stderr
