"""metrics.jsonl is the truth; W&B mirrors it on our own step axis."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainer.config import freeze
from trainer.run.metrics import MetricsFile, WandbMirror, read_metrics

from .conftest import compose_smoke


def write(path: Path, resume_step: int, steps: range, loss: float) -> None:
    metrics = MetricsFile(path, resume_step)
    for step in steps:
        metrics.write({"step": step, "train_loss": loss})
    metrics.close()


def test_a_rollback_cuts_the_steps_that_will_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 0, range(1, 9), loss=1.0)
    write(path, 5, range(6, 8), loss=2.0)
    records = read_metrics(path)
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6, 7]
    assert [r["train_loss"] for r in records] == [1.0] * 5 + [2.0] * 2


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_half_written_last_line_is_ignored(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 0, range(1, 4), loss=1.0)
    path.write_bytes(path.read_bytes()[:-cut])
    # Without its newline alone the last record is whole.
    kept = [1, 2, 3] if cut == 1 else [1, 2]
    assert [r["step"] for r in read_metrics(path)] == kept
    write(path, 3, range(4, 5), loss=1.0)
    assert [r["step"] for r in read_metrics(path)] == [*kept, 4]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_records_are_visible_at_once(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0)
    metrics.write({"step": 1})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1}]
    metrics.close()


def test_no_file_has_no_records(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def read_wandb(folder: Path) -> list[dict[str, Any]]:
    """Read the records of a run's offline W&B file."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # wandb's and protobuf's own
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # wandb keeps its service's socket open
def test_wandb_offline_holds_the_history_on_our_step_axis(latents: Path, tmp_path: Path) -> None:
    folder = tmp_path / "smoke-0123456789"
    run = compose_smoke(latents, "log.wandb=offline", "log.group=study", "log.project=tests")
    freeze(run, folder)
    mirror = WandbMirror(run, folder)
    path = folder / "metrics.jsonl"
    write(path, 0, range(1, 6), loss=1.0)
    mirror.catch_up()
    assert not (folder / "wandb").exists()  # offline is written once, at the end
    write(path, 3, range(4, 7), loss=0.5)  # a rollback repeats steps 4 and 5
    mirror.finish({"loss": 0.25, "name": "text is left out", "nan": float("nan")})
    records = read_wandb(folder)
    history = [r["history"]["item"] for r in records if r["type"] == "history"]
    assert [row["step"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert [row["train_loss"] for row in history] == [1.0] * 3 + [0.5] * 3
    metrics = [r["metric"] for r in records if r["type"] == "metric"]
    assert any(m["glob_name"] == "*" and m["step_metric"] == "step" for m in metrics)
    summary: dict[str, Any] = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert summary["loss"] == 0.25
    assert "nan" not in summary
    assert "name" not in summary
    (started,) = [r["run"] for r in records if r["type"] == "run"]
    assert (started["run_id"], started["run_group"]) == (folder.name, "study")
    assert started["config"]["update"]["optim"]["lr"] == run.optim.lr
    assert socket.gethostname() not in [r.get("environment", {}).get("host") for r in records]


def test_wandb_disabled_writes_nothing(latents: Path, tmp_path: Path) -> None:
    mirror = WandbMirror(compose_smoke(latents), tmp_path)
    mirror.finish({"loss": 1.0})
    assert list(tmp_path.iterdir()) == []
