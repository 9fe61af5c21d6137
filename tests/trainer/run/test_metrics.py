"""metrics.jsonl is the truth: it is cut at a rollback, and readable at once."""

import json
from pathlib import Path

import pytest

from trainer.run.metrics import MetricsFile, read_metrics


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
