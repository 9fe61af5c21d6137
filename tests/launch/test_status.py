"""launch.status, logs and cancel: what they say of folders, without a queue."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.files import write_json
from launch import logs, status
from launch.planner.machine import load_machine
from launch.run_folder.goodput import measure
from launch.run_folder.records import append_launch
from launch.run_folder.runs import RunFolder, find_runs
from launch.slurm.commands import QueueEntry
from launch.state import RunState, state_of
from launch.status import format_table, printable
from launch.submit import main as submit_main
from trainer.run.attempt import (
    Timeline,
    clear_stopped,
    ended_attempts,
    mark_stopped,
    read_timelines,
)

ROOT = Path(__file__).parents[2]
CONFIG = "name: run\nhorizon: {steps: 100}\nparallel: {processes: 4}\n"


def make_run(root: Path, name: str = "run", step: int = 50) -> Path:
    """Write the folder of a run that has logged a step."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    record = {"step": step, "train_loss": 0.5, "tokens_per_second": 900.0, "seconds": 10.0}
    (folder / "metrics.jsonl").write_text(json.dumps(record | {"flops": 1e13}) + "\n{half")
    return folder


def beat(folder: Path, rank: int, step: int, host: str = "n1", phase: str = "update") -> None:
    """Write a sign of life of now."""
    (folder / "heartbeats").mkdir(exist_ok=True)
    sign = {"rank": rank, "host": host, "pid": 1, "step": step, "phase": phase, "beat": 1,
            "time": "", "noticed": False}  # fmt: skip
    (folder / "heartbeats" / f"rank-{rank:05d}.json").write_text(json.dumps(sign))


def look(folder: Path, entries: list[QueueEntry] | None = None) -> RunState:
    return state_of(RunFolder(folder.name, folder), entries, price=3.0)


def entry(state: str, reason: str = "", index: int = 2) -> QueueEntry:
    return QueueEntry("12_2", index, state, "ks-x", "n[1-2]", reason)


def submit(folder: Path) -> None:
    write_json(folder / "submission.json", {"job_name": "ks-x", "index": 2, "folder": "x"})


def test_the_end_of_a_small_network_is_seen_too(tmp_path: Path) -> None:
    folder = make_run(tmp_path, step=50)
    (folder / "config.yaml").write_text("kind: codec\nname: run\nsteps: 200\n")
    record = {"step": 50, "train_loss": 0.5, "seconds": 10.0}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    found = look(folder)
    assert (found.step, found.steps) == (50, 200)
    assert found.eta_seconds == pytest.approx(30.0)
    assert found.teraflops_per_second is None


def test_a_running_run_shows_its_step_speed_time_left_and_job(tmp_path):
    folder = make_run(tmp_path)
    submit(folder)
    append_launch(folder, "start", processes=4, submitted=time.time() - 1)
    beat(folder, 0, 50)
    found = look(folder, [entry("RUNNING")])
    assert (found.state, found.step, found.steps, found.loss) == ("running", 50, 100, 0.5)
    assert found.eta_seconds == pytest.approx(10.0)
    assert found.teraflops_per_second == pytest.approx(1.0)
    assert (found.job, found.nodes) == ("12_2", "n[1-2]")
    assert found.cost is not None
    assert json.loads(json.dumps(found.to_dict()))["name"] == "run"


def test_mfu_is_the_share_of_the_peak_of_all_devices(tmp_path, capsys):
    folder = make_run(tmp_path)
    append_launch(folder, "start", processes=4, submitted=time.time() - 1)
    assert look(folder).mfu is None
    machine = load_machine("h100", ["peak_flops.fp32=1e12"])
    found = state_of(RunFolder(folder.name, folder), None, machine=machine)
    assert found.mfu == pytest.approx(1e12 / (4 * 1e12))
    assert status.main([str(folder), "machine=h100", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)[0]
    assert shown["mfu"] == pytest.approx(1e12 / (4 * load_machine("h100").peak("fp32")))
    assert shown["cost"] is not None  # at the machine's price, as none is given
    assert status.main([str(folder), "machine=abacus"]) == 2
    assert "Allowed: a100" in capsys.readouterr().err


def test_a_slow_down_shows_in_the_last_window(tmp_path, capsys):
    folder = make_run(tmp_path)
    rows = [(10 * n, float(n)) for n in range(1, 41)] + [(410, 45.0)]  # 0.1 s a step, then 0.5 s
    lines = [
        {"step": step, "train_loss": 0.5, "seconds": at, "tokens": 100 * step, "flops": 1e12 * step}
        for step, at in rows
    ]
    # What an older trainer said of its speed, since the start, is not taken.
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line | {"tokens_per_second": 999.0}) + "\n" for line in lines)
    )
    config = (
        "name: run\nhorizon: {steps: 510}\nlog: {device_teraflops: 8}\nparallel: {processes: 1}\n"
    )
    (folder / "config.yaml").write_text(config)
    beat(folder, 0, 410)
    found = look(folder)
    assert found.step_seconds == pytest.approx(0.5)
    assert found.times_slower == pytest.approx(5.0)
    assert found.tokens_per_second == pytest.approx(200.0)
    assert found.teraflops_per_second == pytest.approx(2.0)
    assert found.mfu == pytest.approx(0.25)  # no machine is given: the run's own word
    assert found.eta_seconds == pytest.approx(10.0)  # at its usual speed
    assert status.main([str(folder)]) == 0
    assert "0.5 (5.0x usual)" in capsys.readouterr().out
    write_json(folder / "result.json", {"status": "finished", "loss": 0.25, "steps": 510})
    assert look(folder).times_slower is None


def test_states_follow_from_marks_queue_and_signs_of_life(tmp_path):
    folder = make_run(tmp_path)
    assert look(folder).state == "new"
    submit(folder)
    for reason, state, words in [
        ("Resources", "waiting", "Resources: no free nodes"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "waiting", "UnavailableNodes:n1: nodes that it"),
        ("QOSMaxJobsPerUserLimit", "waiting", "QOSMaxJobsPerUserLimit: a limit of yours"),
        ("AnythingElse", "waiting", "AnythingElse"),
        ("JobHeldUser", "held", "JobHeldUser: held; scontrol release JOB"),
        ("DependencyNeverSatisfied", "held", "DependencyNeverSatisfied: the job before it failed"),
        ("launch failed requeued held", "held", "its node could not start it"),
        ("job requeued in held state", "held", "scontrol release JOB"),
    ]:
        found = look(folder, [entry("PENDING", reason)])
        assert (found.state, words in found.reason) == (state, True), found
    assert look(folder, [entry("RUNNING", index=3)]).state == "new"  # another run of the array
    append_launch(folder, "start", processes=1)
    assert look(folder, []).state == "failed"
    assert "without a word" in look(folder, []).reason
    append_launch(folder, "end", outcome="failed", reason="srun ended with 3")
    assert look(folder, []).reason == "srun ended with 3"
    mark_stopped(folder, 1, 50)
    assert look(folder, []).state == "stopped"
    clear_stopped(folder)
    write_json(folder / "cancelled.json", {})
    assert look(folder, []).state == "cancelled"
    write_json(folder / "result.json", {"status": "diverged", "reason": "nan"})
    assert (look(folder).state, look(folder).reason) == ("diverged", "nan")
    write_json(folder / "result.json", {"status": "finished", "loss": 0.25, "steps": 100})
    done = look(folder)
    assert (done.state, done.loss, done.step, done.eta_seconds) == ("done", 0.25, 100, None)


def test_stragglers_and_stalls_are_reported_by_name(tmp_path):
    folder = make_run(tmp_path)
    for rank, step in enumerate((50, 50, 47, 50)):
        beat(folder, rank, step, host=f"n{rank // 2 + 1}")
    assert look(folder).reason == "rank 2 on n2: at step 47, others at 50"
    write_json(folder / "stalled.json", {"summary": "rank 2 (n2, 9) gives no sign of life"})
    assert look(folder).state == "stalled"
    assert "n2" in look(folder).reason


def test_a_table_counts_the_runs_and_json_holds_the_same(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no squeue
    for name in ("a", "b"):
        make_run(tmp_path / "study" / "runs", name)
    assert status.main([str(tmp_path / "study"), "lost=true"]) == 0
    assert "repeat s" in capsys.readouterr().out
    assert status.main([str(tmp_path / "study"), "--json"]) == 0
    assert [run["name"] for run in json.loads(capsys.readouterr().out)] == ["a", "b"]


def test_names_and_logs_cannot_move_the_terminal(tmp_path, capsys):
    hostile = "\x1b[2J\x1b]0;pwned\x07\nrow"
    assert "\x1b" not in format_table([RunState(hostile, reason=hostile)])
    assert "\n" not in printable(hostile)
    folder = make_run(tmp_path)
    (folder / "log.txt").write_text("step 1\r" + hostile)
    assert logs.main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "step 1" in printed


@pytest.mark.heavy
def test_a_followed_log_ends_with_the_run(tmp_path):
    folder = make_run(tmp_path)
    (folder / "log.txt").write_text("first\n")
    words = [sys.executable, "-m", "launch.logs", str(folder), "--follow"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        with (folder / "log.txt").open("a") as file:
            file.write("second\n")
        assert process.stdout.readline() == "second\n"
        write_json(folder / "result.json", {})
        assert process.stdout.read() == ""
        assert process.wait(60) == 0


def test_a_run_that_was_started_by_hand_is_not_said_to_wait_for_its_start(tmp_path, capsys):
    folder = make_run(tmp_path)
    assert logs.main([str(folder)]) == 2
    assert "wrote to the terminal" in capsys.readouterr().err
    (folder / "metrics.jsonl").unlink()
    assert logs.main([str(folder)]) == 2
    assert "has not started" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["submit", "status", "logs", "cancel", "doctor"])
def test_help_teaches_by_example_and_needs_no_torch(module):
    script = (
        f"import sys, launch.{module} as m; code = m.main(['--help']);"
        "assert code == 0; assert not {'torch', 'hydra'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"kinescale {module}" in done.stdout
    assert "examples:" in done.stdout


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        (status, ["nowhere"], "folder=nowhere: holds no runs"),
        (status, ["watsh=true"], "watsh: unknown key. Allowed: json, watch, machine, price, lost"),
        (status, ["--jsn"], "--jsn: unknown key"),
        (status, [".", "price=cheap"], "price=cheap: must be a number"),
        (logs, ["nowhere"], "folder=nowhere: holds no runs"),
        (logs, ["lines=3"], "folder: must name one run"),
    ],
)
def test_bad_input_is_refused_by_name(module, words, message, capsys):
    code = module.main(words)
    captured = capsys.readouterr()
    assert code == 2
    assert f"error: {message}" in captured.err


def test_runs_are_found_in_runs_studies_and_roots(tmp_path):
    make_run(tmp_path / "study" / "runs", "a")
    make_run(tmp_path, "b")
    assert [run.name for run in find_runs(tmp_path / "study")] == ["a"]
    assert [run.name for run in find_runs(tmp_path / "b")] == ["b"]
    assert [run.name for run in find_runs(tmp_path)] == ["b"]
    with pytest.raises(ValueError, match="holds no runs"):
        find_runs(tmp_path / "study" / "runs" / "a" / "checkpoints")


def test_a_timeline_sums_phases_and_knows_where_it_began(tmp_path):
    line = Timeline(tmp_path, 3)
    line.advance(7, "data")
    line.advance(7, "update")
    line.advance(8, "data")
    line.write()
    (found,) = read_timelines(tmp_path)
    assert (found["attempt"], found["first_step"], found["step"]) == (3, 7, 8)
    assert set(found["seconds"]) == {"start", "data", "update"}
    (tmp_path / "timeline" / "attempt-000004.json").write_text("{half")
    assert len(read_timelines(tmp_path)) == 1


def test_goodput_of_a_run_is_that_of_its_status(tmp_path):
    folder = tmp_path / "timeline"
    folder.mkdir()
    now = time.time()
    seconds = {"start": 10.0, "data": 5.0, "forward and backward": 30.0, "checkpoint": 5.0}
    first = {"attempt": 1, "started": now - 100, "moved": now - 50, "written": now - 50,
             "first_step": 0, "step": 20, "phase": "ended", "seconds": seconds}  # fmt: skip
    (folder / "attempt-000001.json").write_text(json.dumps(first))
    line = Timeline(tmp_path, 2)
    line.advance(15, "data")  # five of twenty steps are done again
    begun = time.time()

    def is_right(since, share):  # whatever a busy machine takes between two lines
        least, most = since - begun, time.time() - now
        low, high = (26.25 + least) / (100 + most), (26.25 + most) / (100 + since - now)
        return low - 1e-4 <= share <= high + 1e-4  # the two clocks differ by milliseconds

    assert is_right(begun, line.goodput())
    line.write()
    assert is_right(begun, measure(tmp_path, 0.0).share)
    time.sleep(0.2)
    assert is_right(time.time(), line.goodput())


def test_only_a_number_vouches_for_ended_attempts(monkeypatch):
    assert ended_attempts() == 0
    monkeypatch.setenv("KINESCALE_ENDED_ATTEMPTS", "4")
    assert ended_attempts() == 4
    monkeypatch.setenv("KINESCALE_ENDED_ATTEMPTS", "$(id)")
    assert ended_attempts() == 0
    assert os.environ["KINESCALE_ENDED_ATTEMPTS"] == "$(id)"


def test_a_study_is_submitted_by_sweeps(capsys):
    assert submit_main(["study=demo", "cluster=slurm"]) == 2
    assert "Use kinescale run cluster=slurm study=demo" in capsys.readouterr().err


def test_a_queue_that_does_not_answer_is_missed_only_for_what_was_submitted(
    tmp_path, capsys, monkeypatch
):
    programs = tmp_path / "bin"
    programs.mkdir()
    script = programs / "squeue"
    script.write_text("#!/bin/sh\necho 'squeue: fatal: no configuration' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    folder = make_run(tmp_path / "runs")
    assert status.main([str(tmp_path / "runs")]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "1 run: " in said.out
    submit(folder)
    assert status.main([str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().err.startswith("warning: the queue is not known: squeue: fatal")
