"""launch.cancel without a queue: real processes, found by what their run folders tell."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.files import write_json
from launch.cancel import main
from launch.local.process import end_processes
from launch.run_folder.goodput import measure
from launch.run_folder.records import append_launch, read_launches, this_host
from launch.run_folder.runs import RunFolder
from launch.state import state_of

# A trainer in small: saves and leaves on SIGTERM, else it goes on.
TRAINER = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def save(*_):
    (folder / 'stopped.json').write_text('{}'); sys.exit(75)
signal.signal(signal.SIGTERM, save)
(folder / 'ready').touch()
time.sleep(60)
"""
LAUNCHER = """
import pathlib, sys
from launch.local.run import Job, run_jobs
folder = pathlib.Path(sys.argv[1])
argv = [sys.executable, '-S', '-c', (folder / 'program.py').read_text(), str(folder)]
job = Job('run', folder, argv, 1, 1.0, folder / 'result.json')
print(*(f'{found.status} {found.attempts}' for found in run_jobs([job], 1, poll_seconds=0.02)))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "run"
    place.mkdir()
    (place / "config.yaml").write_text("name: run\n", encoding="utf-8")
    (place / "program.py").write_text(TRAINER, encoding="utf-8")
    return place


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def by_hand(folder: Path) -> "subprocess.Popen[bytes]":
    """Start a run without a launcher; its lease tells its process."""
    words = [sys.executable, "-S", "-c", TRAINER, folder.name]
    process = subprocess.Popen(words, cwd=folder.parent)
    wait_for(folder / "ready")
    write_json(folder / "attempt.json", {"pid": process.pid, **this_host()})
    return process


@pytest.mark.parametrize(("words", "says", "state"), [
    ([], "1 told to save and leave, 0 ended; 1 run looked at\n", "cancelled"),
    (["now=true"], "0 told to save and leave, 1 ended; 1 run looked at\n", "cancelled"),
])  # fmt: skip
def test_a_run_of_this_machine_ends_and_is_not_started_again(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str, state: str
) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for(folder / "ready")
        assert main([str(folder), *words]) == 0
        assert says in capsys.readouterr().out
        assert launcher.communicate(timeout=60)[0].split() == ["interrupted", "1"]
    finally:
        launcher.kill()
        launcher.wait()
        end_processes(str(folder.resolve()), 0.0)
    assert (folder / "stopped.json").exists() == (not words)
    assert state_of(RunFolder("run", folder), []).state == state
    assert read_launches(folder)[-1]["reason"].startswith("was told to stop, and ")
    assert measure(folder, 0.0).lost["detect"] == 0.0


def test_a_run_started_by_hand_is_found_by_its_lease(folder: Path) -> None:
    with by_hand(folder) as process:
        assert main([str(folder)]) == 0
        assert process.wait(20) == 75
    assert (folder / "cancelled.json").exists()
    assert main([str(folder)]) == 0  # nothing lives any more, and nothing is said against it


def test_a_process_that_is_not_the_run_is_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    try:
        append_launch(folder, "start", local=True, pid=other.pid, **this_host())
        for pid in (other.pid, 0, -1, "1", None, 1 << 70):
            write_json(folder / "attempt.json", {"pid": pid, **this_host()})
            assert main([str(folder), "now=true"]) == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert "0 told to save and leave, 0 ended" in capsys.readouterr().out
    assert not (folder / "cancelled.json").exists()


def test_a_run_on_another_host_is_named_with_its_host(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(folder / "attempt.json", {"pid": os.getpid(), "host": "elsewhere", "boot": ""})
    assert main([str(folder)]) == 1
    said = capsys.readouterr().err
    assert f"{folder}: was last run on elsewhere as process {os.getpid()}" in said
    assert f"use kinescale cancel {folder} there" in said
    hour = time.time() - 3600
    os.utime(folder / "attempt.json", (hour, hour))  # it gives no sign: nothing to cancel
    assert main([str(folder)]) == 0


def test_a_submitted_run_without_squeue_says_where_to_go(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    (folder / "submission.json").write_text(json.dumps({"job_name": "ks-x", "index": 0}))
    assert main([str(folder)]) == 1
    assert "was submitted, and the queue is not known here" in capsys.readouterr().err
