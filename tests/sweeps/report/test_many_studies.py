"""Two studies side by side, and the index of a folder."""

import base64
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from sweeps.report.__main__ import main
from sweeps.report.pages.index import build_index
from sweeps.report.pages.pair import build_pair

from ..study_files import BUDGETS, HOSTILE, make_law, write_runs
from .test_page import browse

COMMITTED = Path(__file__).parents[3] / "docs" / "studies"


def write_small(folder: Path, seed: int, budgets: list[float], **about: object) -> Path:
    folder.mkdir(parents=True)
    rows = write_runs(folder, np.random.default_rng(seed), budgets, 3)
    (folder / "law.json").write_text(json.dumps(make_law(rows, budgets)))
    (folder / "study.json").write_text(json.dumps(about))
    return folder


@pytest.fixture
def studies(tmp_path):
    return [
        write_small(tmp_path / "all" / "a", 1, BUDGETS[:3], name="first"),
        write_small(tmp_path / "all" / "deeper" / "b", 2, BUDGETS[1:5], name=HOSTILE),
    ]


@pytest.mark.heavy
def test_other_validation_data_are_refused_unless_asked_for(studies, tmp_path, capsys):
    for study, digest in zip(studies, ("1234", "5678"), strict=True):
        (study / "data.json").write_text(json.dumps({"digest": digest}))
    assert main([*map(str, studies)]) == 2
    said = capsys.readouterr().err
    assert "were validated on other data: digest of the data set is 1234 and 5678" in said
    assert not (studies[0] / "report").exists()
    out = tmp_path / "both.html"
    assert main([*map(str, studies), "validation=differs", f"out={out}"]) == 0
    assert "<h1>Their validation data differ" in out.read_text(encoding="utf-8")
    (studies[1] / "data.json").write_text(json.dumps({"digest": "1234"}))
    assert main([*map(str, studies)]) == 0
    assert (studies[0] / "report" / "beside-b.html").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "b", "c"], "must be one study's folder, or two"),
        (["a", "b", "colour=red"], "colour=red: is not known here"),
        (["a", "out=x"], "out=x: is not known here"),
        (["--index", "a", "b"], "must be one folder of studies"),
        (["--index", "nowhere"], "FOLDER=nowhere: must be a folder"),
    ],
)
def test_a_line_that_fits_no_use_is_refused(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err


PROBE = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
addEventListener("load", () => setTimeout(() => {
  const texts = (n, part) => [...document.querySelectorAll(`[data-figure="${n}"] ${part}`)]
    .map((text) => text.textContent);
  const runs = (n) => [...document.querySelectorAll(`[data-figure="${n}"] .mark-symbol path`)]
    .filter((p) => Number.isInteger(p.__data__.datum.id)).length;
  document.title = "PROBE" + btoa(unescape(encodeURIComponent(JSON.stringify({
    errors, labels: [0, 1].map((n) => texts(n, ".role-axis-label text")), runs: [runs(0), runs(1)],
    choices: document.querySelectorAll("[data-pick^=x]").length, images: document.images.length,
    legend: [...document.querySelectorAll(".legend button")].map((b) => b.textContent),
  }))));
}, 2500));
</script>"""


@pytest.mark.page
def test_two_studies_share_their_scales_and_one_choice_of_axes(studies, tmp_path):
    page = build_pair(studies, out=tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    page.write_text(text.replace("<head>", "<head>" + PROBE, 1), encoding="utf-8")
    result = browse(page, tmp_path, "--dump-dom", "--virtual-time-budget=20000")
    seen = json.loads(base64.b64decode(re.search(r"<title>PROBE(.*?)</title>", result.stdout)[1]))
    assert seen["errors"] == []
    assert seen["labels"][0] == seen["labels"][1] != []
    assert seen["runs"] == [3 * 3, 3 * 4]
    assert seen["choices"] == 2 * 2  # an axis and its scale: once for both studies, once for curves
    assert seen["legend"] == sorted(["first", HOSTILE], key=str.casefold)
    assert seen["images"] == 0


@pytest.mark.heavy
def test_an_index_lists_every_study_with_its_finding_and_page(studies, capsys):
    folder = studies[0].parent
    shutil.copytree(COMMITTED / "cpu_seeds", folder / "seeds ü#1")
    broken = write_small(folder / "broken", 3, BUDGETS[:2], name="broken")
    (broken / "law.json").write_text("{")
    assert main(["--index", str(folder)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == folder / "index.html"
    text = page.read_text(encoding="utf-8")
    assert "<h1>3 studies</h1>" in text
    assert "law.json: is no JSON" in text
    links = re.findall(r'<h3><a href="([^"]+)"', text)
    assert [(folder / unquote(link)).is_file() for link in links] == [True] * 3
    assert "Two seeds of one setting differ by 0.42" in text
    assert "<script>alert" not in text
    assert text.count("data:image/webp") == 3
    assert "<script" not in text.partition("</main>")[0]


def test_a_folder_without_a_study_has_no_index(tmp_path):
    with pytest.raises(ValueError, match=r"holds no study with runs\. Name a folder of studies"):
        build_index(tmp_path)
    assert not (tmp_path / "index.html").exists()
