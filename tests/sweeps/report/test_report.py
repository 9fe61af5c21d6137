"""sweeps.report on a synthetic study whose values come from a planted law."""

import base64
import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from markupsafe import escape

from sweeps.report.__main__ import main
from sweeps.report.figures.law import draw_all
from sweeps.report.figures.svg import file_svg
from sweeps.report.inputs.isoflop import read_inputs
from sweeps.report.pages.isoflop import build_report
from sweeps.report.pages.shared import typeset
from sweeps.report.tables.any_json import tabulate
from sweeps.report.tables.exponents import PUBLISHED, exponent_table, own_exponents
from sweeps.report.tables.isoflop import frontier_table, residual_table
from sweeps.report.tables.safe_csv import csv_data_uri, neutralise
from sweeps.report.video import video_data_uri, write_mp4
from sweeps.report.wording import format_count, format_flops, format_signed_percent, law_caption

from ..study_files import (
    ALPHA,
    BETA,
    BUDGETS,
    DIVERGED,
    ESCAPED_LINK,
    HELD_OUT,
    make_data,
    make_frames,
    make_law,
    write_runs,
    write_study,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("studies") / "demo")
    build_report(study)
    return study


@pytest.fixture(scope="module")
def page(study):
    return (study / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.heavy
def test_the_page_states_the_finding_the_test_and_the_warnings(page):
    heading = re.search(r"<h1>(.*?)</h1>", page)[1]
    heading = heading.replace("\u00a0", " ")
    assert "N* ∝ C<sup>0.51</sup> (90 % interval 0.46 to 0.56)" in heading
    assert "4×10¹³ FLOPs was predicted from the smaller budgets" in heading
    assert "−1.28 %, skill 0.86" in heading
    law = page[page.index('id="law"') : page.index('id="isoflop"')]
    assert "lies 16x beyond the largest fitted run" in law
    assert law.index("Warnings of the law") < law.index("<svg")


@pytest.mark.heavy
def test_sections_come_in_reading_order(page):
    names = ["checklist", "law", "isoflop", "frontier", "exponents", "held-out", "coefficients",
             "residuals", "levels", "groups", "ladder", "real", "data", "excluded", "noise", "runs",
             "environment", "reproduce"]  # fmt: skip
    places = [page.index(f'<section id="{name}">') for name in names]
    assert places == sorted(places)


def test_hostile_text_is_escaped_everywhere(page):
    assert "alert(" in page  # shown, as text
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "the run diverged &lt;b&gt;&amp;" in page
    # The page's own, the explorer's, its data and its packed library.
    assert page.count("<script") == 4


def test_nothing_is_loaded_from_elsewhere(page):
    # The hostile text names an address, as text; no element may.
    links = re.findall(r'<[^>]*?\b(?:src|href|srcset|poster)="([^"]*)"', page)
    assert links
    assert {link.split(":")[0][:1] for link in links} <= {"#", "d"}
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "http" not in page.replace("http-equiv", "").replace(ESCAPED_LINK, "")
    assert not re.findall(r"url\((?!#)|@import", page)


def test_every_video_is_embedded_and_a_path_outside_the_study_is_refused(page):
    videos = re.findall(r'<video src="(data:video/mp4;base64,[^"]+)"', page)
    assert len(videos) == 3 * len(BUDGETS) - 1 + 1
    assert "&#39;../../../etc/passwd&#39; is missing or outside" in page


def test_figures_have_names_theme_colours_and_files(study, page):
    figures = re.findall(r"<figure data-name=.*?(<svg [^>]*>)", page, re.DOTALL)
    assert len(figures) == 7  # each is drawn once: a phone scrolls it
    assert all('role="img"' in svg and "aria-label=" in svg for svg in figures)
    assert "var(--ink)" in page
    assert "var(--budget-4)" in page
    files = sorted(path.name for path in (study / "report" / "figures").iterdir())
    drawn = ["exponents", "frontier", "groups", "isoflop", "law", "noise", "residuals"]
    assert files == sorted([f"{name}.svg" for name in drawn] + ["law.png"])
    assert "var(" not in (study / "report" / "figures" / "law.svg").read_text()


def test_all_runs_are_listed_with_sortable_values_and_a_download(page):
    table = page[page.index('<section id="runs">') : page.index('<section id="environment">')]
    assert table.count("<tr data-run=") == 5 * len(BUDGETS) + 1
    assert table.count("data-value=") > 200
    assert f">{escape(DIVERGED)}</a></th>" in table
    (encoded,) = re.findall(r'href="data:text/csv;base64,([^"]+)"', table)
    rows = list(csv.DictReader(base64.b64decode(encoded).decode().splitlines()))
    assert len(rows) == 5 * len(BUDGETS) + 1
    assert rows[-1]["name"] == "'" + DIVERGED  # a spreadsheet shows it, and runs nothing
    assert float(rows[0]["flops"]) == BUDGETS[0]


def test_a_csv_without_formulas_keeps_its_bytes():
    content = b'name,loss\r\n"a, b",-1.5e-3\nc,+2\n'
    assert base64.b64decode(csv_data_uri(content).split(",", 1)[1]) == content
    for text in ("=1+1", "+a", "-2-3", "@x", "\tx"):
        assert neutralise(text) == "'" + text
    for text in ("-1.5", "+2e3", "a=b", ""):
        assert neutralise(text) == text


@pytest.mark.heavy
def test_a_refused_minimum_is_marked_and_an_exponent_without_one_says_why(tmp_path):
    study = write_small(tmp_path / "study")
    law = make_law(write_runs_again(study))
    law["isoflop"][1].update(params=None, loss=None, interior=False, reason="at the smallest end")
    (study / "law.json").write_text(json.dumps(law))
    inputs = read_inputs(study)
    assert "refused" in draw_all(inputs)["isoflop"].svg
    del law["isoflop"][1]
    inputs.law = law
    assert "refused" not in draw_all(inputs)["isoflop"].svg
    own = own_exponents(inputs)
    assert [item.value for item in own][::2] == [0.49, BETA / (ALPHA + BETA)]
    assert own[1].note == "1 interior minima"
    table = exponent_table(inputs)
    assert len(table.rows) == 3 + len(PUBLISHED)
    assert all(row[4].text != "–" for row in table.rows[3:])  # every published one has a source


def test_the_frontier_says_how_far_each_point_lies_and_the_worst_residuals_come_first(study):
    inputs = read_inputs(study)
    frontier = frontier_table(inputs)
    assert [row[-1].text for row in frontier.rows][-2:] == ["4× beyond", "16× beyond"]
    assert frontier.rows[0][-1].text == "inside"
    residuals = [abs(row[-1].value) for row in residual_table(inputs).rows]
    assert residuals == sorted(residuals, reverse=True)
    assert len(residuals) == 8


@pytest.mark.heavy
@pytest.mark.parametrize(
    "name", ["runs.csv", "law.json", "study.json", "data.json", "samples/ladder.json"]
)
def test_a_missing_or_broken_part_is_a_note_not_a_crash(tmp_path, name):
    study = write_small(tmp_path / "study")
    (study / name).unlink()
    assert any(f"{name} is missing" in note for note in read_inputs(study).notes)
    (study / name).write_text('{"frontier": [{"flo')
    page = build_report(study).read_text()
    assert name == "runs.csv" or f"{name} is not valid JSON" in page


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("law.json", '{"frontier": [{"flo', "law.json: is no JSON"),
        ("law.json", "[]", "law.json: holds no object"),
        ("runs.csv", "", "runs.csv: lists no run"),
        ("runs.csv", "name,params,tokens,loss\n", "runs.csv: lists no run"),
        ("runs.csv", None, "runs.csv: lists no run"),
    ],
)
def test_a_folder_without_a_run_or_with_a_broken_law_is_an_error(
    tmp_path, capsys, name, content, said
):
    study = write_small(tmp_path / "study")
    (study / name).unlink()
    if content is not None:
        (study / name).write_text(content)
    assert main([str(study)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (study / "report").exists()


def test_a_folder_of_studies_is_told_from_a_study(tmp_path, capsys):
    write_small(tmp_path / "study")
    assert main([str(tmp_path)]) == 2
    assert f"is a folder of studies. Name one, or give --index {tmp_path}." in (
        capsys.readouterr().err
    )


@pytest.mark.heavy
def test_a_folder_without_law_or_study_still_gives_a_page(tmp_path, capsys):
    study = write_small(tmp_path / "study")
    for name in ("law.json", "study.json", "data.json"):
        (study / name).unlink()
    assert main([str(study)]) == 0
    assert "law.json is missing" in Path(capsys.readouterr().out.strip()).read_text()


def write_small(study: Path) -> Path:
    study.mkdir()
    rows = write_runs(study, np.random.default_rng(2))
    (study / "law.json").write_text(json.dumps(make_law(rows)))
    for name in ("study.json", "data.json"):
        (study / name).write_text("{}")
    (study / "samples").mkdir()
    (study / "samples" / "ladder.json").write_text('{"prompts": [{"id": "a"}]}')
    return study


@pytest.mark.heavy
def test_a_law_of_nulls_still_makes_a_page(tmp_path):
    study = write_small(tmp_path / "study")
    law = make_law(write_runs_again(study))
    law.update(held_out=None, warnings=[], exponents={}, identified=None, residuals=None)
    for point in law["isoflop"]:
        point.update(params=None, tokens=None, loss=None, interval=None, interior=False)
        point["reason"] = "the best size is at the smallest end"
    law["frontier"] = [{**point, "intervals": {}} for point in law["frontier"]]
    (study / "law.json").write_text(json.dumps(law))
    page = build_report(study).read_text()
    assert "The law holds no held-out test." in page
    assert "the best size is at the smallest end" in page


def write_runs_again(study: Path) -> list[dict]:
    with (study / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    numbers = ("params", "tokens", "loss", "budget")
    return [
        {**row, **{key: float(row[key]) for key in numbers}, "excluded": row["excluded"] == "1"}
        for row in rows
    ]


def test_an_empty_folder_gives_a_page_and_no_folder_an_error(tmp_path):
    page = build_report(tmp_path).read_text()
    assert page.count("<li>") == 5
    assert "No law was fitted" in page
    with pytest.raises(ValueError, match="must be a folder"):
        build_report(tmp_path / "nowhere")


@pytest.mark.heavy
def test_the_command_line_prints_the_page_or_the_error(tmp_path):
    def call(*arguments):
        command = [sys.executable, "-m", "sweeps.report", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    assert "STUDY_DIR" in call("--help").stdout
    failed = call(str(tmp_path / "nowhere"))
    assert failed.returncode == 2
    assert "must be a folder" in failed.stderr


@pytest.mark.heavy
def test_figures_are_deterministic(study):
    for name, drawing in draw_all(read_inputs(study)).items():
        path = study / "report" / "figures" / f"{name}.svg"
        assert path.read_text(encoding="utf-8") == file_svg(drawing.svg)


def test_the_caption_says_whether_the_law_has_seen_the_held_out_budget(study, page):
    assert "The held-out budget took no part in the fit" in page
    inputs = read_inputs(study)
    names = [run.name for run in inputs.grid_runs if run.budget == HELD_OUT]
    inputs.law["residuals"] += [{"name": name, "log_residual": 0.0} for name in names]
    assert "It uses all runs; the diamond is the prediction of a second fit" in law_caption(inputs)


def test_written_video_plays_everywhere(tmp_path):
    frames = make_frames(47, 63, 1.0, 0)
    write_mp4(tmp_path / "a" / "clip.mp4", frames, fps=7.5)
    with av.open(str(tmp_path / "a" / "clip.mp4")) as container:
        stream = container.streams.video[0]
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 7.5
    assert np.array(decoded).shape == (9, 48, 64, 3)
    assert np.abs(np.array(decoded)[:, :47, :63].astype(int) - frames).mean() < 6
    data = (tmp_path / "a" / "clip.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert video_data_uri(tmp_path / "a" / "clip.mp4").startswith("data:video/mp4;base64,AAAA")
    with pytest.raises(ValueError, match="must be uint8"):
        write_mp4(tmp_path / "bad.mp4", frames.astype(float))


def test_exponents_are_raised_as_a_whole():
    assert typeset("N^alpha + D^-.5") == "N<sup>alpha</sup> + D<sup>-.5</sup>"
    assert typeset("(D_c / tokens)^alpha_D (C^0.38)") == (
        "(D_c / tokens)<sup>alpha_D</sup> (C<sup>0.38</sup>)"
    )
    assert typeset("<b>^2") == "&lt;b&gt;<sup>2</sup>"


def test_numbers_read_as_people_write_them():
    assert [format_flops(x) for x in (1e12, 2.5e13, 1.25e12, 9.996e12, math.nan)] == [
        "10¹²", "2.5×10¹³", "1.25×10¹²", "10¹³", "–",
    ]  # fmt: skip
    assert [format_count(x) for x in (136_000, 999_999, 4.1e6, 12)] == [
        "136 k", "1 M", "4.1 M", "12.0",
    ]  # fmt: skip
    assert format_signed_percent(-0.0128) == "−1.28 %"
    titles = [table.caption for table in tabulate("data", make_data())]
    assert titles[:2] == ["data · splits", "data · licences"]
