"""sweeps.report on a synthetic study whose values come from a planted law."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from sweeps.report.figures import draw_all
from sweeps.report.inputs import read_inputs
from sweeps.report.page import build_report
from sweeps.report.svg import file_svg
from sweeps.report.tables import tabulate
from sweeps.report.video import video_data_uri, write_mp4
from sweeps.report.wording import format_count, format_flops, format_signed_percent, law_caption

E, A, B, ALPHA, BETA = 0.22, 38.0, 320.0, 0.42, 0.44
BUDGETS = [3e11, 1e12, 3e12, 1e13, 4e13]
HELD_OUT = BUDGETS[-1]
HOSTILE = "</script><script>alert('x')</script><img src=https://evil.example/x onerror=alert(1)>"
LEVEL = 0.9
ESCAPED_LINK = "src=https://evil.example"


def loss_of(params, tokens):
    return E + A / params**ALPHA + B / tokens**BETA


def best_params(flops):
    sizes = np.geomspace(1e4, 1e8, 4001)
    return float(sizes[np.argmin(loss_of(sizes, flops / (6 * sizes)))])


def around(value, width):
    return [value * (1 - width), value * (1 + width)]


def write_runs(study: Path, rng: np.random.Generator) -> list[dict]:
    rows = []
    for budget in BUDGETS:
        for factor in (0.25, 0.5, 1.0, 2.0, 4.0):
            params = round(best_params(budget) * factor)
            tokens = budget / (6 * params)
            loss = loss_of(params, tokens) * math.exp(rng.normal(0, 0.004))
            rows.append(
                {
                    "name": f"demo-{budget:.0e}-{params}".replace("+", ""), "params": params,
                    "tokens": round(tokens), "flops": budget, "flops_6nd": 0.93 * budget,
                    "loss": loss, "loss_noise": 0.002, "lr": 4e-3 * (tokens / 1e6) ** -0.2,
                    "batch_tokens": 2048, "excluded": 0, "reason": "", "budget": budget,
                    "phase": "grid", "width": 64, "depth": 4, "steps": round(tokens / 2048),
                    "seed": 0, "loss_real": loss * 1.18, "real_token_share": 0.24,
                    "seconds": budget / 2e10, "world_size": 1, "zero_stage": 0,
                    "padding_share": 0.004,
                }
            )  # fmt: skip
    diverged = {**rows[3], "name": "demo-diverged", "loss": float("nan"), "excluded": 1}
    rows.append({**diverged, "reason": "loss is nan: the run diverged <b>&"})
    with (study / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows[:-1]:
        write_curve(study / "runs" / row["name"], row)
    return rows


def write_curve(run_dir: Path, row: dict) -> None:
    run_dir.mkdir(parents=True)
    lines = ["step,tokens,flops,loss,train_loss"]
    for share in np.geomspace(0.02, 1.0, 14):
        loss = loss_of(row["params"], share * row["tokens"]) * row["loss"]
        loss /= loss_of(row["params"], row["tokens"])
        lines.append(f"{share * row['steps']:.0f},0,{share * row['flops']},{loss},{loss}")
    (run_dir / "curve.csv").write_text("\n".join(lines) + "\n")
    (run_dir / "result.json").write_text(json.dumps({"loss": row["loss"]}))


def make_law(rows: list[dict]) -> dict:
    def frontier(flops):
        params = best_params(flops)
        tokens = flops / (6 * params)
        spread = 0.01 + 0.012 * max(0.0, math.log10(flops / 1e13))
        values = {"params": params, "tokens": tokens, "loss": loss_of(params, tokens)}
        widths = {"params": 0.16, "tokens": 0.14, "loss": spread}
        return {
            "flops": flops, **values, "interior": True, "extrapolation_factor": flops / 1e13,
            "intervals": {key: around(values[key], widths[key]) for key in values},
        }  # fmt: skip

    fitted = [row for row in rows if not row["excluded"] and row["budget"] != HELD_OUT]
    minima = [
        {**frontier(c), "budget": c * (1 + 1e-12), "interval": around(best_params(c), 0.2),
         "loss_interval": None, "reason": None, "sizes": 5, "intervals": {}}
        for c in BUDGETS[:-1]
    ]  # fmt: skip
    end = frontier(HELD_OUT)["loss"]
    actual = end * 1.013
    return {
        "form": "chinchilla", "objective": 1.7e-5, "level": LEVEL,
        "coefficients": {"E": E, "A": A, "B": B, "alpha": ALPHA, "beta": BETA},
        "intervals": {"E": [0.15, 0.27], "A": [9.0, 150.0], "alpha": [0.36, 0.47],
                      "B": [60.0, 1700.0], "beta": [0.37, 0.5]},
        "identified": {"E": {"ok": True, "reason": None},
                       "A": {"ok": False, "reason": "its interval spans more than a factor 10"}},
        "exponents": {"approach_3": {"params": BETA / (ALPHA + BETA), "interval": [0.46, 0.56]},
                      "approach_2": {"params": None, "reason": "1 interior minima"}},
        "frontier": [frontier(c) for c in [*BUDGETS, 1.6e14]], "isoflop": minima,
        "held_out": {"budget": HELD_OUT, "predicted": end, "actual": actual,
                     "relative_error": end / actual - 1, "interval": around(end, 0.02),
                     "inside": True, "noise_floor": 0.005, "skill": 0.86, "skill_reason": None,
                     "extrapolation_factor": 4.0,
                     "runs": [{"name": "demo-4e13", "predicted": end, "actual": actual}]},
        "residuals": [{"name": row["name"], "params": row["params"], "log_residual":
                       math.log(loss_of(row["params"], row["tokens"]) / row["loss"])}
                      for row in fitted],
        "warnings": ["The frontier at 1.6e+14 FLOPs lies 16x beyond the largest fitted run, 4 "
                     "times further than the held-out test reached (4x).",
                     "A is not identified: its interval spans more than a factor 10."],
        "excluded": [{"name": "demo-diverged", "reason": "loss is nan"}],
    }  # fmt: skip


def make_frames(height: int, width: int, clarity: float, seed: int) -> np.ndarray:
    """A ball over stripes, in noise that falls with compute."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    frames = []
    for step in range(9):
        place = 0.2 + 0.6 * step / 8
        ball = np.hypot(x - place * width, y - 0.55 * height) < 0.2 * height
        image = np.stack([90 + 60 * y / height, 120 + 40 * x / width, 150 + 0 * x], -1)
        image[ball] = (235, 190 - 30 * seed, 70 + 50 * seed)
        frames.append(image + rng.normal(0, 90 * (1 - clarity), image.shape))
    return np.clip(frames, 0, 255).astype(np.uint8)


def write_ladder(study: Path) -> None:
    prompts = [("corridor", "a corridor of green bricks", (48, 80)),
               ("ball", "an orange ball rolls over a grey floor", (48, 48)),
               ("tower", HOSTILE, (80, 44))]  # fmt: skip
    files = {}
    for number, (key, _, (height, width)) in enumerate(prompts):
        files[key] = []
        for column in range(len(BUDGETS)):
            frames = make_frames(height, width, (column + 1) / len(BUDGETS), number)
            write_mp4(study / "samples" / key / f"{column}.mp4", frames)
            files[key].append(f"samples/{key}/{column}.mp4")
    write_mp4(study / "samples" / "real.mp4", make_frames(48, 80, 1.0, 0))
    files["tower"][1] = "../../../etc/passwd"
    ladder = {
        "prompts": [{"id": k, "text": t, "shape": [9, *s]} for k, t, s in prompts],
        "columns": [{"budget": c, "run": f"demo-{c:.0e}", "params": best_params(c),
                     "loss": loss_of(best_params(c), c / 6 / best_params(c)), "flops": c}
                    for c in BUDGETS],
        "files": files, "reference": {"corridor": "samples/real.mp4"},
    }  # fmt: skip
    (study / "samples" / "ladder.json").write_text(json.dumps(ladder))


def make_data() -> dict:
    return {
        "splits": {
            "train": {"sources": 31, "clips": 5120, "tokens": 1_310_720},
            "val_rendered": {"sources": 8, "clips": 96, "tokens": 24_576},
            "val_real": {"sources": 3, "clips": 41, "tokens": 11_890},
        },
        "licences": {"MIT": 4100, "CC-BY-3.0": 700, "unknown": 320},
        "rejects": [{"file": HOSTILE, "reason": "not a video"},
                    {"file": "tiny.mp4", "reason": "1x1 pixels: under one patch"}],
        "downscale": {"clips": 1290, "pixels_before": 9.1e9, "pixels_after": 1.2e9},
        "loader": {"tokens_packed": 1_305_411, "padding_share": 0.0041, "edge_padding": 5309,
                   "dropped": {"too long": 0, "unreadable": 2},
                   "decoders": {"decord": 5009, "pyav": 109}, "rendered_share": 0.76},
    }  # fmt: skip


def write_study(study: Path) -> Path:
    study.mkdir(parents=True)
    rows = write_runs(study, np.random.default_rng(1))
    (study / "law.json").write_text(json.dumps(make_law(rows)))
    (study / "data.json").write_text(json.dumps(make_data()))
    write_ladder(study)
    about = {
        "name": "demo", "question": "How does video loss fall with compute on two CPU cores?",
        "command": "python -m sweeps.run study=demo",
        "config": {"note": HOSTILE, "budgets": BUDGETS},
        "started": "2026-01-02 10:00", "finished": "2026-01-02 10:19", "seconds": 1140.0,
        "env": {"python": "3.11", "torch": "2.13.0+cpu", "cores": 2, "memory": "16 GB",
                "packages": {"deepspeed": "0.19.8", "av": "18.1.0"}},
        "seeds_noise": {"mean": 0.412, "std": 0.0021, "n": 3},
        "twin": {"names": ["one", "two"], "max_relative_difference": 2.1e-7, "ok": True},
        "recipe": "lr = 4e-3 (tokens / 1e6)^-0.2; batch 2,048 tokens.", "pilot": "Five sizes.",
    }  # fmt: skip
    (study / "study.json").write_text(json.dumps(about))
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("studies") / "demo")
    build_report(study)
    return study


@pytest.fixture(scope="module")
def page(study):
    return (study / "report" / "index.html").read_text(encoding="utf-8")


def test_the_page_states_the_finding_the_test_and_the_warnings(page):
    heading = re.search(r"<h1>(.*?)</h1>", page)[1]
    heading = heading.replace("\u00a0", " ")
    assert "N* ∝ C<sup>0.51</sup> (90 % interval 0.46 to 0.56)" in heading
    assert "4×10¹³ FLOPs was predicted from the smaller budgets" in heading
    assert "−1.28 %, skill 0.86" in heading
    law = page[page.index('id="law"') : page.index('id="isoflop"')]
    assert "lies 16x beyond the largest fitted run" in law
    assert law.index("Warnings of the law") < law.index("<svg")


def test_sections_come_in_reading_order(page):
    names = ["law", "isoflop", "frontier", "held-out", "coefficients", "ladder", "real", "data",
             "excluded", "noise", "runs", "environment", "reproduce"]  # fmt: skip
    places = [page.index(f'<section id="{name}">') for name in names]
    assert places == sorted(places)


def test_hostile_text_is_escaped_everywhere(page):
    assert "alert(" in page  # shown, as text
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "the run diverged &lt;b&gt;&amp;" in page
    assert page.count("<script") == 1


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
    figures = re.findall(r"<svg [^>]*>", page)
    assert len(figures) == 8
    assert all('role="img"' in svg and "aria-label=" in svg for svg in figures)
    assert "var(--ink)" in page
    assert "var(--budget-4)" in page
    files = sorted(path.name for path in (study / "report" / "figures").iterdir())
    assert files == ["frontier.svg", "isoflop.svg", "law.png", "law.svg", "residuals.svg"]
    assert "var(" not in (study / "report" / "figures" / "law.svg").read_text()


def test_all_runs_are_listed_with_sortable_values_and_a_download(page):
    table = page[page.index('<section id="runs">') : page.index('<section id="environment">')]
    assert table.count("<tr>") == 5 * len(BUDGETS) + 2
    assert table.count("data-value=") > 200
    assert 'href="data:text/csv;base64,' in table


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


def write_small(study: Path) -> Path:
    study.mkdir()
    rows = write_runs(study, np.random.default_rng(2))
    (study / "law.json").write_text(json.dumps(make_law(rows)))
    for name in ("study.json", "data.json"):
        (study / name).write_text("{}")
    (study / "samples").mkdir()
    (study / "samples" / "ladder.json").write_text('{"prompts": [{"id": "a"}]}')
    return study


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


def test_the_command_line_prints_the_page_or_the_error(tmp_path):
    def call(*arguments):
        command = [sys.executable, "-m", "sweeps.report", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert "STUDY_DIR" in call("--help").stdout
    failed = call(str(tmp_path / "nowhere"))
    assert failed.returncode == 2
    assert "must be a folder" in failed.stderr


def test_figures_are_deterministic(study):
    for name, drawing in draw_all(read_inputs(study)).items():
        path = study / "report" / "figures" / f"{name}.svg"
        assert path.read_text(encoding="utf-8") == file_svg(drawing.wide)


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


def test_numbers_read_as_people_write_them():
    assert [format_flops(x) for x in (1e12, 2.5e13, 9.99e12, math.nan)] == [
        "10¹²", "2.5×10¹³", "10¹³", "–",
    ]  # fmt: skip
    assert [format_count(x) for x in (136_000, 999_999, 4.1e6, 12)] == [
        "136 k", "1 M", "4.1 M", "12.0",
    ]  # fmt: skip
    assert format_signed_percent(-0.0128) == "−1.28 %"
    titles = [table.caption for table in tabulate("data", make_data())]
    assert titles[:2] == ["data · splits", "data · licences"]


def browse(page: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Open a page in headless Chromium with a fresh profile."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("headless Chromium is not installed (make setup-system)")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=4000",
             f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
    return subprocess.run(
        [browser, *flags, *arguments, page.as_uri()], capture_output=True, text=True, timeout=60
    )


# Put into a copy of the page: reports what the browser made of it to the page that frames it.
PROBE = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("load", () => setTimeout(() => {
  document.querySelector("table.sortable th:nth-child(8) button").click();
  const cells = [...document.querySelectorAll("table.sortable tbody tr")]
    .map((row) => row.cells[7].dataset.value).filter((value) => value !== undefined).map(Number);
  const root = document.documentElement;
  const shown = (selector) => [...document.querySelectorAll(selector)]
    .filter((element) => element.getBoundingClientRect().width > 0).length;
  parent.postMessage(JSON.stringify({
    ready: [...document.querySelectorAll("video")].map((video) => video.readyState),
    overflow: root.scrollWidth - root.clientWidth, width: root.clientWidth, errors,
    sorted: cells.every((value, index) => !index || cells[index - 1] <= value),
    wide: shown(".wide svg"), narrow: shown(".narrow svg"),
  }), "*");
}, 1500));
</script>"""
# A frame, because Chromium's window is never narrower than 500 pixels.
FRAME = """<!DOCTYPE html><title></title><script>
addEventListener("message", (event) => { document.title = "PROBE" + event.data; });
</script><iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe>"""


@pytest.mark.page
@pytest.mark.parametrize(("width", "drawing"), [(1200, "wide"), (400, "narrow")])
def test_chromium_shows_the_page_without_errors_or_overflow(page, tmp_path, width, drawing):
    copy = page.replace("<head>", "<head>" + PROBE, 1)
    (tmp_path / "page.html").write_text(copy, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.replace("{width}", str(width)), encoding="utf-8")
    result = browse(tmp_path / "frame.html", tmp_path, "--window-size=1300,900", "--dump-dom")
    found = re.search(r"<title>PROBE(.*?)</title>", result.stdout)
    assert found, result.stderr[-2000:]
    probe = json.loads(found[1])
    assert len(probe["ready"]) == 3 * len(BUDGETS)
    assert min(probe["ready"]) >= 1
    assert probe["errors"] == []
    assert probe["width"] == width
    assert probe["overflow"] <= 0
    assert probe["sorted"]
    assert (probe["wide"], probe["narrow"]) == ((4, 0) if drawing == "wide" else (0, 4))
    assert "CONSOLE" not in result.stderr


@pytest.mark.page
def test_a_screenshot_is_not_blank(study, tmp_path):
    picture = tmp_path / "page.png"
    arguments = ["--window-size=1200,1600", f"--screenshot={picture}"]
    browse(study / "report" / "index.html", tmp_path, *arguments)
    with av.open(str(picture)) as container:
        image = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert image.shape == (1600, 1200, 3)
    assert 0.02 < (image != image[0, 0]).any(-1).mean() < 0.6
    # Ink in each quarter: neither text nor figure is missing.
    assert all((quarter != image[0, 0]).any() for quarter in np.array_split(image, 4))
