"""A study is watched from its plan, its metrics' tails and its results; nothing is read twice."""

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from sweeps.watch import show
from sweeps.watch.__main__ import main
from sweeps.watch.state import State, Watcher

NOW = 1_000_000.0


def spec(name, budget=1e12, phase="grid", overrides=()):
    return {
        "name": name, "folder": f"{name}-hash", "phase": phase, "budget": budget,
        "overrides": list(overrides),
    }  # fmt: skip


def study(folder, specs):
    folder.mkdir(exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(specs))
    return folder


def metrics(folder, name, steps, age=5.0, rate=1e9, loss=None, tail=""):
    """Write a run's records, one each ten steps and seconds, last touched `age` seconds ago."""
    path = folder / "runs" / f"{name}-hash" / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "attempts" / "000001").mkdir(parents=True, exist_ok=True)
    lines = [
        {"step": step, "flops": rate * step, "tokens": 100 * step, "train_loss": 1.0 / step,
         "seconds": float(step), "tokens_per_second": 100.0}
        for step in range(10, steps + 1, 10)
    ]  # fmt: skip
    if loss is not None:
        lines.append({"step": steps, "flops": rate * steps, "tokens": 100 * steps, "loss": loss})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    os.utime(path, (NOW - age, NOW - age))
    return path


def finish(folder, name, loss, status="finished", **more):
    path = folder / "runs" / f"{name}-hash" / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"status": status, "loss": loss, "steps": 100, "tokens": 1e4, "seconds": 50.0}
    path.write_text(json.dumps(result | {"attempts": 2, "params": 12345} | more))


def watcher(folder):
    return Watcher(folder, now=lambda: NOW)


def look(folder):
    state = watcher(folder).look()
    return state, {run.name: run for run in state.runs}


def test_each_run_is_in_the_state_that_its_files_show(tmp_path):
    names = ("new", "born", "busy", "still", "done", "bad")
    folder = study(tmp_path / "s", [spec(name) for name in names])
    (folder / "runs" / "born-hash" / "attempts" / "000001").mkdir(parents=True)
    metrics(folder, "busy", 200, loss=0.4, tail='{"step": 210, "flo')
    metrics(folder, "still", 200, age=600.0)
    finish(folder, "done", 0.31)
    finish(folder, "bad", None, status="diverged", reason="loss is nan")
    state, runs = look(folder)
    assert [runs[n].state.value for n in names] == [
        "waiting", "starting", "running", "quiet", "finished", "ended",
    ]  # fmt: skip
    busy = runs["busy"]
    assert (busy.step, busy.loss, busy.train_loss, busy.attempts) == (200, 0.4, 1 / 200, 1)
    assert busy.fraction == pytest.approx(0.2)
    assert busy.flops_per_second == pytest.approx(1e9)
    assert busy.eta_seconds == pytest.approx(800 - 5)
    assert runs["still"].eta_seconds is None
    assert runs["bad"].reason == "diverged: loss is nan"
    assert runs["done"].attempts == 2
    assert state.fraction == pytest.approx((0.2 + 0.2 + 2) / 6)
    # What is left of all runs at the speed of the only one that runs.
    assert state.eta_seconds == pytest.approx((1 + 1 + 0.8 + 0.8) * 1e12 / 1e9)
    assert not state.over


def test_the_best_loss_of_each_budget_counts_finished_points_alone(tmp_path):
    specs = [spec("a"), spec("b"), spec("c", 4e12), spec("p", 1e12, "pilot")]
    folder = study(tmp_path / "s", specs)
    finish(folder, "a", 0.5)
    finish(folder, "b", 0.4)
    finish(folder, "p", 0.1)
    metrics(folder, "c", 100, loss=0.2)
    best = watcher(folder).look().best
    assert [(b.budget, b.finished, b.runs, b.loss, b.name) for b in best] == [
        (1e12, 2, 2, 0.4, "b"), (4e12, 0, 1, None, ""),
    ]  # fmt: skip


def test_a_run_without_budget_is_measured_by_its_horizon(tmp_path):
    specs = [
        spec("twin", 0.0, "twin", ["horizon.steps=400"]),
        spec("long", 0.0, "grid", ["horizon.tokens=4e4"]),
        spec("none", 0.0),
    ]
    folder = study(tmp_path / "s", specs)
    for name in ("twin", "long", "none"):
        metrics(folder, name, 100)
    _, runs = look(folder)
    assert runs["twin"].fraction == runs["long"].fraction == 0.25
    assert runs["none"].fraction is None


def test_unchanged_files_are_not_opened_again(tmp_path, monkeypatch):
    folder = study(tmp_path / "s", [spec("a"), spec("b")])
    path = metrics(folder, "a", 100)
    finish(folder, "b", 0.4)
    seen = watcher(folder)
    first = seen.look()
    opened = []
    real = os.open  # that of data/reading.py
    monkeypatch.setattr(
        os, "open", lambda path, *args: opened.append(Path(path).name) or real(path, *args)
    )
    assert seen.look() == first
    assert "metrics.jsonl" not in opened
    metrics(folder, "a", 120)
    assert seen.look().runs[0].step == 120
    assert opened.count("metrics.jsonl") == 1
    assert path.exists()


def test_only_the_tail_of_long_metrics_is_read(tmp_path):
    folder = study(tmp_path / "s", [spec("a", 1e14)])
    path = metrics(folder, "a", 20_000, loss=0.3)
    assert path.stat().st_size > 100_000
    run = watcher(folder).look().runs[0]
    assert (run.step, run.loss, run.flops_per_second) == (20_000, 0.3, pytest.approx(1e9))


def test_once_prints_every_run_and_a_small_terminal_the_busiest(tmp_path, capsys):
    folder = study(tmp_path / "s", [spec(f"run{i}") for i in range(40)])
    finish(folder, "run7", 0.4)
    assert main([str(folder), "--once"]) == 0
    text = capsys.readouterr().out
    assert all(f"run{i} " in text for i in range(40))
    assert "40 runs: 39 waiting, 1 finished" in text
    console = Console(width=120, height=30, file=io.StringIO())
    console.print(show.terminal(watcher(folder).look(), 30))
    short = console.file.getvalue()
    assert "run7 " in short
    assert "more runs (--once shows all)" in short
    assert len(short.splitlines()) <= 30


def test_json_and_plain_lines_tell_the_same(tmp_path, capsys):
    folder = study(tmp_path / "s", [spec("a"), spec("b")])
    finish(folder, "a", 0.4)
    finish(folder, "b", 0.5)
    assert main([f"study={folder}", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in state["runs"]] == ["finished", "finished"]
    os.utime(folder / "plan.json", (0, 0))  # long ago: the study is over, watching ends
    assert main([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a: finished at step 100, loss 0.4"
    assert lines[-1] == "100 % of the FLOPs, 2 runs: 2 finished"


def test_changes_are_told_once(tmp_path):
    folder = study(tmp_path / "s", [spec("a")])
    state = watcher(folder).look()
    assert show.changes({}, state) == []
    metrics(folder, "a", 10)
    after = watcher(folder).look()
    before = {run.folder: run.state for run in state.runs}
    assert show.changes(before, after) == ["a: running at step 10"]
    assert show.changes({"a-hash": State.running}, after) == []


def test_the_page_escapes_names_and_loads_again_until_the_end(tmp_path):
    folder = study(tmp_path / "s", [spec("a<script>")])
    page = tmp_path / "watch.html"
    assert main([str(folder), "--json", f"--page={page}", "--every=7"]) == 0
    text = page.read_text()
    assert "a&lt;script&gt;" in text
    assert "<script" not in text
    assert 'http-equiv="refresh" content="7"' in text
    finish(folder, "a<script>", 0.4)
    assert main([str(folder), "--json", f"--page={page}"]) == 0
    assert "http-equiv" not in page.read_text()


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (None, "has no plan.json"),
        ("{", "cannot be read"),
        ("{}", "entry 0 is no run"),
        ('[{"name": "a"}]', "entry 0 is no run (folder, phase, budget)"),
        (json.dumps([spec("a") | {"folder": "../../elsewhere"}]), "entry 0 is no run (folder)"),
    ],
)
def test_a_folder_that_is_no_study_is_refused_by_name(tmp_path, capsys, plan, said):
    if plan is not None:
        (tmp_path / "plan.json").write_text(plan)
    assert main([str(tmp_path), "--once"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--often"], "--often"), (["--every=0"], "--every=0"), (["a", "b"], "must be one folder")],
)
def test_a_bad_option_is_named(tmp_path, capsys, arguments, said):
    assert main([str(tmp_path), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_plan_tells_the_arm_apart_from_what_the_run_is_for(tmp_path):
    new = spec("native-s0", phase="arm") | {"arm": "native"}
    old = spec("square-s0", phase="square")  # as plans of arms were written until 2026-11-30
    folder = study(tmp_path / "s", [new, old, spec("plain")])
    _, runs = look(folder)
    assert [(run.phase, run.arm) for run in runs.values()] == [
        ("arm", "native"), ("arm", "square"), ("grid", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json"])
@pytest.mark.parametrize("content", [None, "[" * 100_000, '{"step": 1' + "0" * 400 + "}", "\x00"])
def test_what_lies_in_a_run_folder_neither_holds_up_nor_ends_the_view(tmp_path, name, content):
    folder = study(tmp_path / "s", [spec("odd"), spec("done")])
    finish(folder, "done", 0.31)
    path = folder / "runs" / "odd-hash" / name
    path.parent.mkdir(parents=True)
    if content is None:
        os.mkfifo(path)
    else:
        path.write_text(content)
    assert look(folder)[1]["done"].state is State.finished
