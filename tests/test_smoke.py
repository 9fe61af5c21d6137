"""The whole line on tiny data: clips, two processes, a stop, a study, its law file, its report."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from .conftest import child_seconds

pytestmark = pytest.mark.dist
REPO = Path(__file__).parents[1]
TEXT = ["text.kind=bytes", "text.width=32", "model.text_width=32"]
COLUMNS = "name params tokens flops flops_6nd loss loss_noise lr batch_tokens excluded reason"


def start(root: Path, name: str, module: str, *arguments: str) -> subprocess.Popen:
    """Start a module as a person would, in a session of its own, its output in a file."""
    with (root / f"{name}.out").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=REPO,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )


def finish(root: Path, name: str, module: str, *arguments: str) -> str:
    """Run a module to a good end; return what it printed."""
    process = start(root, name, module, *arguments)
    try:
        code = process.wait(timeout=900)
    finally:
        end(process)
    text = (root / f"{name}.out").read_text()
    assert code == 0, text[-3000:]
    return text


def end(process: subprocess.Popen) -> None:
    """Kill what is left of a started module and of its children."""
    if process.poll() is not None:
        return
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def wait_for(process: subprocess.Popen, happened: Callable[[], object], out: Path) -> None:
    """Wait until something happened while a process runs."""
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, out.read_text()[-3000:]
        assert time.monotonic() < deadline, out.read_text()[-3000:]
        time.sleep(0.05)


def alive(root: Path) -> list[list[str]]:
    """Return the command lines of living processes that name a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            line = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if any(str(root) in word for word in line):
            found.append(line)
    return found


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with the tiny demo data, ingested and encoded by the real commands."""
    root = tmp_path_factory.mktemp("smoke")
    finish(root, "data", "data.demo", f"root={root}/demo", "tiny=true")
    latents = [f"data.root={root}/demo/video", f"out={root}/demo/latents"]
    finish(root, "encode", "trainer.encode", *latents, *TEXT)
    yield root
    assert alive(root) == []


@pytest.fixture(scope="module")
def study(work: Path) -> Path:
    """Return the folder of a smoke study that was interrupted once and then finished."""
    process = start(work, "interrupted", "sweeps.run", *study_arguments(work))
    try:
        runs = work / "runs/smoke/runs"
        wait_for(process, lambda: list(runs.glob("*/env.json")), work / "interrupted.out")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 130, (work / "interrupted.out").read_text()
    finally:
        end(process)
    assert "the same command continues" in (work / "interrupted.out").read_text()
    assert alive(work) == []
    finish(work, "study", "sweeps.run", *study_arguments(work))
    return work / "runs/smoke"


def study_arguments(work: Path) -> list[str]:
    base = ["experiment=cpu_smoke", f"data.root={work}/demo/latents", "log.wandb=disabled", *TEXT]
    return ["study=smoke", f"root={work}/runs", f"base={json.dumps(base, separators=(',', ':'))}"]


def test_the_clips_are_split_by_source_and_none_is_lost(work: Path) -> None:
    manifest = read_json(work / "demo/latents/manifest.json")
    assert manifest["reading"]["dropped"] == []
    sources = {}
    for split in ("train", "val_worlds", "val_real"):
        lines = (work / f"demo/latents/{split}/index.jsonl").read_text().splitlines()
        sources[split] = {json.loads(line)["source"] for line in lines}
        assert (
            len(lines)
            == len((work / f"demo/video/{split}/index.jsonl").read_text().split("\n")) - 1
        )
    assert not sources["train"] & (sources["val_worlds"] | sources["val_real"])


def test_two_processes_stop_at_a_signal_and_resume_to_the_result(work: Path) -> None:
    arguments = ["experiment=cpu_smoke", f"data.root={work}/demo/latents", "name=two", *TEXT]
    arguments += [
        "horizon.steps=16",
        "checkpoint.steps=3",
        f"run_root={work}/two",
        "log.wandb=disabled",
    ]
    arguments += ["parallel.processes=2", "parallel.zero_stage=1"]
    process = start(work, "stopped", "trainer.train", *arguments)
    try:
        pattern = "two-*/checkpoints/latest"
        out = work / "stopped.out"
        wait_for(process, lambda: list((work / "two").glob(pattern)), out)
        os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does
        assert process.wait(timeout=300) != 0
        deadline = time.monotonic() + 30
        while alive(work / "two") and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        end(process)
    assert alive(work / "two") == []
    (folder,) = (work / "two").iterdir()
    assert not (folder / "result.json").exists()
    assert list((folder / "checkpoints").glob("step-*"))
    finish(work, "resumed", "trainer.train", *arguments)
    result = read_json(folder / "result.json")
    assert (result["status"], result["steps"], result["attempts"]) == ("finished", 16, 2)
    assert (result["world_size"], result["zero_stage"]) == (2, 1)
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in steps if "train_loss" in r] == list(range(1, 17))


def test_the_table_lists_four_runs_and_the_pilot(study: Path) -> None:
    with (study / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(COLUMNS.split()) <= set(rows[0])
    assert [row["phase"] for row in rows] == ["pilot"] + ["grid"] * 4
    assert [row["excluded"] for row in rows] == ["1", "0", "0", "0", "0"]
    assert rows[0]["reason"] == "pilot: chose the grids"
    assert [float(row["budget"]) for row in rows[1:]] == [4e8, 4e8, 1.2e9, 1.2e9]
    assert len({row["params"] for row in rows[1:3]}) == 2
    for row in rows:
        flops, params, tokens = (float(row[key]) for key in ("flops", "params", "tokens"))
        assert float(row["flops_6nd"]) == pytest.approx(6 * params * tokens)
        assert 0 < float(row["loss"]) < 2
        assert float(row["loss_noise"]) > 0
        assert flops == pytest.approx(float(row["budget"]), rel=0.3)


def test_a_study_too_small_to_fit_says_so_in_its_law(study: Path) -> None:
    law = read_json(study / "law.json")
    keys = {"form", "coefficients", "intervals", "frontier", "held_out", "warnings", "excluded"}
    assert keys <= set(law)
    assert law["coefficients"] is None
    assert "needs at least 6 runs" in law["warnings"][0]
    assert [item["reason"] for item in law["excluded"]] == ["pilot: chose the grids"]


def test_the_accounting_stands_with_little_padding_and_nothing_dropped(study: Path) -> None:
    accounting = read_json(study / "data.json")["accounting"]
    assert accounting["padding_share"] < 0.1
    assert accounting["dropped"] == []
    assert accounting["tokens"] > 0
    assert 0 < accounting["rendered_tokens"] < accounting["tokens"]


def test_the_page_is_whole_and_loads_nothing(study: Path) -> None:
    page = (study / "report/index.html").read_text()
    assert not re.findall(r"""(?:src|href|poster|srcset)=["']?(?:https?:)?//""", page)
    assert not re.findall(r"url\(\s*[\"']?(?:https?:)?//|@import", page)
    assert "needs at least 6 runs" in page
    assert page.count("<video") == 3  # the best of two budgets and the clip itself
    assert "rendered tokens" in page


def test_the_same_command_again_trains_nothing(study: Path, work: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.glob("runs/*/result.json")}
    clips = {path: path.stat().st_mtime_ns for path in study.glob("samples/*/*.mp4")}
    assert (len(before), len(clips)) == (5, 3)
    spent = child_seconds()
    finish(work, "again", "sweeps.run", *study_arguments(work))
    assert child_seconds() - spent < 30
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in clips} == clips


@pytest.mark.page
def test_chromium_opens_the_page_without_errors(study: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("headless Chromium is not installed (make setup-system)")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--enable-logging=stderr"]
    flags += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=2000", "--dump-dom"]
    page = (study / "report/index.html").as_uri()
    result = subprocess.run([browser, *flags, page], capture_output=True, text=True, timeout=300)
    assert "<h1>No law was fitted" in result.stdout
    assert "CONSOLE" not in result.stderr
