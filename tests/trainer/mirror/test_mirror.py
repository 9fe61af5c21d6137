"""W&B follows a run from a process of its own; whatever it does, the run ends as it would."""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from trainer.diffusion.attempt import peak_memory, train_run
from trainer.diffusion.progress import Progress, Recorder, Window
from trainer.identity import freeze
from trainer.log_config import LogConfig, WandbMode
from trainer.mirror.child import Followers, tasks_of, wandb_task
from trainer.mirror.sync import find_folders
from trainer.mirror.sync import main as sync
from trainer.mirror.tail import Sent, Tail, read_sent, write_sent
from trainer.parallel.mesh import alone
from trainer.run.attempt import Timeline
from trainer.run.metrics import MetricsFile

from ..conftest import compose_smoke, read_json
from ..wandb_server import serving
from .runs import make_run, wait_until, write


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the tests' own W&B settings; a home without a login."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    # What a process leaves in its environment that has spoken to W&B itself.
    monkeypatch.setenv("WANDB_SERVICE", "3-1-tcp-localhost-9-token")
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("NETRC", "/nonexistent/netrc")


def online(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


CPU = torch.device("cpu")
LOG_FILE = wandb_task(WandbMode.offline, 0.0).log


def mirror_of(folder: Path, mode: WandbMode, seconds: float = 60.0, attempt: int = 1) -> Followers:
    """Start the mirror to W&B as a trainer does; it waits so long for it at the end."""
    return Followers(folder, [wandb_task(mode, seconds)], attempt)


def note(folder: Path, step: int, event: str, reason: str) -> None:
    """Note an incident as a run does."""
    line = {"step": step, "attempt": 1, "event": event, "reason": reason, "keys": []}
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def read_offline(folder: Path) -> list[dict[str, Any]]:
    """Read the records of a run's offline W&B files."""
    records = []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        records += [json.loads(line) for line in done.stdout.splitlines()]
    return records


def history(records: list[dict[str, Any]]) -> list[tuple[int, float]]:
    rows = [r["history"]["item"] for r in records if r["type"] == "history"]
    return [(row["step"], row["train_loss"]) for row in rows]


def test_a_tail_returns_whole_new_lines_and_reads_a_replaced_file_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    with path.open("w") as stream:
        stream.write('{"step": 1}\nnoise\n[1]\n{"step": "x"}\n{"step": 2}\n{"ste')
    assert tail.read() == [{"step": 1}, {"step": 2}]
    with path.open("a") as stream:
        stream.write('p": 3}\n')
    assert tail.read() == [{"step": 3}]
    assert tail.read() == []
    write(path, 1, range(2, 4), 0.5)  # a resume from step 1
    assert [record["step"] for record in tail.read()] == [1, 2, 3]


def test_what_was_sent_is_known_through_a_rollback_and_a_restart(tmp_path: Path) -> None:
    sent = read_sent(tmp_path)
    for step in range(5):
        assert not sent.knows({"step": step, "a": 1})
        sent.note({"step": step, "a": 1})
    write_sent(tmp_path, sent)
    again = read_sent(tmp_path)
    assert again == sent
    assert again.knows({"step": 3, "b": 1})  # a step before the last is over
    assert again.knows({"step": 4, "a": 2})
    assert not again.knows({"step": 4, "loss": 1})  # a validation of the last step
    again.at(2)
    assert again.knows({"step": 1})
    assert not again.knows({"step": 2, "a": 1})


@pytest.mark.heavy
def test_a_row_costs_under_a_millisecond_however_long_the_history(tmp_path: Path) -> None:
    path, count = tmp_path / "metrics.jsonl", 100_000
    write(path, 0, range(1, count + 1), 1.0)
    timeline, tail = Timeline(tmp_path, 1), Tail(path)
    recorder = Recorder(
        tmp_path, alone(), False, lambda step: MetricsFile(path, step), None,
        lambda _: {"goodput": timeline.goodput(), "memory_bytes": float(peak_memory(CPU))},
    )  # fmt: skip
    progress = Progress(step=count, seconds=1.0, tokens=10)
    recorder.open(progress)
    assert len(tail.read()) == count
    steps, looks = [], []
    for _ in range(50):
        progress.step += 1
        started = time.perf_counter()
        recorder.log_step(progress, Window(1.0, 2.0), 0.1, 1e-3)
        steps.append(time.perf_counter() - started)
        assert [record["step"] for record in tail.read()] == [progress.step]
        looks.append(time.perf_counter() - started - steps[-1])
    recorder.close()
    assert statistics.median(steps) < 1e-3
    assert statistics.median(looks) < 1e-3  # the mirror reads what is new alone


def test_two_folders_of_one_name_are_two_runs(tmp_path: Path) -> None:
    first, second = (read_sent(tmp_path / who / "smoke-0123456789") for who in ("ann", "bob"))
    assert first.id != second.id
    assert first.id.startswith("smoke-0123456789-")
    long = read_sent(tmp_path / ("x" * 200))
    assert len(long.id) <= 64


def test_a_broken_state_file_begins_anew(tmp_path: Path) -> None:
    write_sent(tmp_path, Sent("a"))
    (tmp_path / "wandb/mirror.json").write_text('{"id": "a", "unknown": 1}')
    assert read_sent(tmp_path).step == -1


@pytest.mark.heavy
@pytest.mark.usefixtures("clean")
def test_offline_files_grow_with_the_run_and_hold_no_step_twice(
    latents: Path, tmp_path: Path
) -> None:
    folder = make_run(latents, tmp_path / "smoke-0123456789")
    path = folder / "metrics.jsonl"
    mirror = mirror_of(folder, WandbMode.offline)
    write(path, 0, range(1, 6), 1.0)
    wait_until(lambda: read_sent(folder).step == 5)
    assert list(folder.glob("wandb/offline-run-*/run-*.wandb"))  # not only at the end
    assert mirror.finish()
    write(path, 3, range(4, 8), 0.5)  # another attempt repeats steps 4 and 5
    again = mirror_of(folder, WandbMode.offline)
    wait_until(lambda: read_sent(folder).step == 7)
    result = {"loss": 0.25, "name": "text is left out", "nan": None}
    (folder / "result.json").write_text(json.dumps(result))
    assert again.finish()
    records = read_offline(folder)
    assert history(records) == [(step, 1.0) for step in range(1, 6)] + [(6, 0.5), (7, 0.5)]
    metrics = [r["metric"] for r in records if r["type"] == "metric"]
    assert any(m["glob_name"] == "*" and m["step_metric"] == "step" for m in metrics)
    summary: dict[str, Any] = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert summary["loss"] == 0.25
    assert "name" not in summary
    started = [r["run"] for r in records if r["type"] == "run"]
    assert started[0]["job_type"] == "diffusion"
    assert {run["run_id"] for run in started} == {read_sent(folder).id}
    assert started[0]["run_group"] == "study"
    assert started[0]["config"]["update"]["optim"]["lr"] > 0
    assert socket.gethostname() not in [r.get("environment", {}).get("host") for r in records]
    assert (folder / LOG_FILE).read_text() == ""


@pytest.mark.heavy
@pytest.mark.usefixtures("clean")
def test_wandb_shows_incidents_the_machine_the_job_and_how_the_attempt_ended(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(latents, tmp_path / "run", "log.job_type=grid")
    (folder / "env.json").write_text('{"git": "abc1234"}')
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("WANDB_X_STATS_SAMPLING_INTERVAL", "0.5")
    write(folder / "metrics.jsonl", 0, range(1, 6), 1.0)
    note(folder, 2, "spike", "the loss jumped")
    note(folder, 4, "skip", "the loss is nan, HF_TOKEN=planted-key-1")
    mirror = mirror_of(folder, WandbMode.offline)
    wait_until(lambda: read_sent(folder).step == 5)
    time.sleep(2)
    assert mirror.finish()
    records = read_offline(folder)
    assert "planted" not in json.dumps(records)
    rows = [r["history"]["item"] for r in records if r["type"] == "history"]
    assert [row["events/spike"] for row in rows] == [0, 1, 1, 1, 1]
    assert [row["events/skip"] for row in rows] == [0, 0, 0, 1, 1]
    summary = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert summary["events/last"] == "step 4: skip: the loss is nan, HF_TOKEN=***"
    (started,) = [r["run"] for r in records if r["type"] == "run"]
    assert started["job_type"] == "grid"
    config = started["config"]["update"]
    assert (config["slurm_job_id"], config["commit"]) == ("4711", "abc1234")
    sampled = [r["stats"]["item"] for r in records if r["type"] == "stats"]
    # Of this process, which holds far more than the mirror's own.
    here = psutil.Process().memory_info().rss / 2**20
    assert sampled[-1]["proc.memory.rssMB"] == pytest.approx(here, rel=0.2)
    assert any("cpu" in item for item in sampled)
    assert f"disk.{folder}.usagePercent" in sampled[-1]
    (alert,) = [r["alert"] for r in records if r["type"] == "alert"]
    assert (alert["title"], alert["level"]) == ("run: failed", "ERROR")
    assert "ended without a result after step 5" in alert["text"]


@pytest.mark.heavy
@pytest.mark.usefixtures("clean")
def test_a_run_that_diverged_alerts_through_wandb(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(latents, tmp_path / "run")
    with serving() as server:
        online(monkeypatch, server.environment)
        mirror = mirror_of(folder, WandbMode.online)
        write(folder / "metrics.jsonl", 0, range(1, 3), 1.0)
        (folder / "result.json").write_text('{"status": "diverged", "reason": "the loss is nan"}')
        assert mirror.finish()
        (alert,) = server.alerts
        assert (alert["title"], alert["text"]) == ("run: diverged", "the loss is nan")
        assert sync([str(folder)]) == 0  # later it is no news
    assert len(server.alerts) == 1


@pytest.mark.heavy
@pytest.mark.usefixtures("clean")
def test_a_key_that_somebody_wrote_into_a_config_is_not_sent(latents: Path, tmp_path: Path) -> None:
    folder = make_run(latents, tmp_path / "run")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(f"root: {latents}", "root: s3://me:planted@b/set"))
    assert "planted" in config.read_text()
    write(folder / "metrics.jsonl", 0, range(1, 3), 1.0)
    assert mirror_of(folder, WandbMode.offline).finish()
    records = read_offline(folder)
    (started,) = [r["run"] for r in records if r["type"] == "run"]
    assert started["config"]["update"]["data"]["root"] == "s3://***@b/set"
    assert "planted" not in json.dumps(records)


@pytest.mark.heavy
@pytest.mark.usefixtures("clean")
def test_online_a_resumed_run_holds_each_step_once(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(latents, tmp_path / "run")
    with serving() as server:
        online(monkeypatch, server.environment)
        first = mirror_of(folder, WandbMode.online)
        write(folder / "metrics.jsonl", 0, range(1, 6), 1.0)
        wait_until(lambda: read_sent(folder).step == 5)
        assert first.finish()
        (folder / "wandb/mirror.json").write_text(  # what it remembers is lost, but for its name
            json.dumps({"id": read_sent(folder).id})
        )
        write(folder / "metrics.jsonl", 3, range(4, 9), 0.5)
        second = mirror_of(folder, WandbMode.online)
        wait_until(lambda: read_sent(folder).step == 8)
        assert second.finish()
        ((_, rows),) = server.rows().items()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row["train_loss"] for row in rows] == [1.0] * 5 + [0.5] * 3


@pytest.mark.heavy
@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("trouble", ["refused", "500", "401", "no key"])
def test_without_a_server_the_records_go_to_offline_files_and_later_to_the_server(
    trouble: str, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = make_run(latents, tmp_path / "runs" / "run")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "4")
    with serving("ok" if trouble in ("refused", "no key") else trouble) as server:
        environment = dict(server.environment)
        if trouble == "refused":
            environment["WANDB_BASE_URL"] = "http://127.0.0.1:9"
        if trouble == "no key":
            del environment["WANDB_API_KEY"]
        online(monkeypatch, environment)
        mirror = mirror_of(folder, WandbMode.online)
        write(folder / "metrics.jsonl", 0, range(1, 4), 1.0)
        (folder / "result.json").write_text('{"loss": 0.5}')
        wait_until(lambda: read_sent(folder).step == 3, 120)
        assert mirror.finish()
        assert read_sent(folder).offline
        assert history(read_offline(folder)) == [(1, 1.0), (2, 1.0), (3, 1.0)]
        assert "W&B online" in (folder / LOG_FILE).read_text()
        server.mode = "ok"
        online(monkeypatch, server.environment)
        assert sync([str(tmp_path)]) == 0
        assert "run: sent" in capsys.readouterr().out
        ((_, rows),) = server.rows().items()
    assert [row["step"] for row in rows] == [1, 2, 3]


@pytest.mark.heavy
@pytest.mark.usefixtures("clean")
def test_a_server_that_dies_or_hangs_in_the_middle_keeps_nobody(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_run(latents, tmp_path / "run")
    with serving() as server:
        online(monkeypatch, server.environment)
        mirror = mirror_of(folder, WandbMode.online, seconds=1.0)
        write(folder / "metrics.jsonl", 0, range(1, 4), 1.0)
        wait_until(lambda: read_sent(folder).step == 3)
        server.mode = "hang"
        write(folder / "metrics.jsonl", 3, range(4, 7), 1.0)
        wait_until(lambda: read_sent(folder).step == 6)
        assert not mirror.finish()
        assert "kinescale wandb-sync" in caplog.text
        server.mode = "ok"
        assert sync([str(folder)]) == 0
        ((_, rows),) = server.rows().items()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


@pytest.mark.heavy
@pytest.mark.usefixtures("clean")
def test_a_killed_mirror_is_told_in_a_line(
    latents: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_run(latents, tmp_path / "run")
    mirror = mirror_of(folder, WandbMode.offline)
    ((_, process),) = mirror._running
    os.killpg(process.pid, signal.SIGKILL)
    assert not mirror.finish()
    assert "the mirror ended with status -9" in caplog.text


def test_disabled_starts_nothing(tmp_path: Path) -> None:
    disabled = tasks_of(LogConfig(wandb=WandbMode.disabled))
    assert Followers(tmp_path, list(disabled), 1).finish()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert mirror_of(tmp_path / "file", WandbMode.offline).finish()
    assert "the mirror cannot be started" in caplog.text


def test_sync_finds_runs_and_names_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("study/runs/a", "study/runs/b", "c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "metrics.jsonl").write_text("")
    assert [path.name for path in find_folders(tmp_path / "study")] == ["a", "b"]
    assert [path.name for path in find_folders(tmp_path)] == ["c"]
    assert sync([str(tmp_path / "none")]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert sync([str(tmp_path), "seconds=0"]) == 2
    assert "seconds=0: must be a positive number" in capsys.readouterr().err


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:torch.jit.*:DeprecationWarning")
@pytest.mark.usefixtures("group", "clean")
def test_a_run_ends_with_its_result_whatever_the_server_does(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["log.wandb=online", "log.wandb_seconds=0.5", "horizon.steps=3", "log.tensorboard=true"]
    run = compose_smoke(latents, *words)
    freeze(run, tmp_path)
    with serving("hang") as server:
        online(monkeypatch, server.environment)
        assert train_run(run, tmp_path, lambda: False)
    assert read_json(tmp_path / "result.json")["steps"] == 3
    assert "W&B: the mirror did not end in time" in caplog.text
