"""TensorBoard's file holds what metrics.jsonl holds, as the run goes, and no step twice."""

import importlib.util
import json
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer.log_config import LogConfig, WandbMode
from trainer.mirror.child import Followers, tasks_of
from trainer.mirror.tensorboard import TensorBoardMirror
from trainer.mirror.tensorboard import main as tensorboard

from .runs import make_run, wait_until, write

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None, reason="the extra tensorboard is not there"
)


def read_events(folder: Path) -> Iterator[Any]:
    """Yield what the event files of a run hold: TFRecords, whose last may be half written."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted((folder / "tensorboard").glob("events.out.tfevents.*")):
        content, start = path.read_bytes(), 0
        while start + 12 <= len(content):
            (length,) = struct.unpack_from("<Q", content, start)
            record = content[start + 12 : start + 12 + length]
            start += 12 + length + 4  # length, its checksum, the record, its checksum
            if start <= len(content):
                yield Event.FromString(record)


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    values = [(e.step, v) for e in read_events(folder) for v in e.summary.value]
    return [(step, v.simple_value) for step, v in values if v.tag == tag]


def texts(folder: Path, tag: str) -> list[str]:
    values = [v for e in read_events(folder) for v in e.summary.value]
    return [v.tensor.string_val[0].decode() for v in values if v.tag == f"{tag}/text_summary"]


def mirror_of(folder: Path) -> Followers:
    config = LogConfig(wandb=WandbMode.disabled, wandb_seconds=60.0, tensorboard=True)
    return Followers(folder, list(tasks_of(config)), 1)


@pytest.mark.heavy
def test_the_file_grows_with_the_run_and_a_resume_repeats_no_step(
    latents: Path, tmp_path: Path
) -> None:
    folder = make_run(latents, tmp_path / "run", "log.tags=[chosen]")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(f"root: {latents}", "root: s3://me:planted@b/set"))
    path = folder / "metrics.jsonl"
    first = mirror_of(folder)
    write(path, 0, range(1, 6), 1.0)
    wait_until(lambda: len(scalars(folder, "train_loss")) == 5)  # not only at the end
    write(path, 3, range(4, 8), 0.5)  # a rewind to step 3, while it is followed
    wait_until(lambda: scalars(folder, "train_loss")[-1:] == [(7, 0.5)])
    told = [(step, 1.0) for step in range(1, 4)] + [(step, 0.5) for step in range(4, 8)]
    assert scalars(folder, "train_loss") == told
    ((_, process),) = first._running
    os.killpg(process.pid, signal.SIGKILL)
    assert not first.finish()
    write(path, 5, range(6, 9), 0.25)  # the attempt that follows a crash
    line = {"step": 7, "attempt": 2, "event": "spike", "reason": "it jumped, HF_TOKEN=planted-1"}
    (folder / "events.jsonl").write_text(json.dumps(line) + "\n")
    assert mirror_of(folder).finish()
    told = told[:5] + [(step, 0.25) for step in range(6, 9)]
    assert scalars(folder, "train_loss") == told
    assert scalars(folder, "events/spike") == [(step, float(step >= 7)) for step in range(1, 9)]
    assert texts(folder, "events") == ["step 7: spike: it jumped, HF_TOKEN=***"]
    (config_text,) = texts(folder, "config")
    assert "    - chosen\n" in config_text
    assert "root: s3://***@b/set" in config_text
    starts = [e.step for e in read_events(folder) if e.session_log.status]
    assert starts == [0]  # a TensorBoard that looks on drops what the file before said


def test_files_of_older_runs_are_made_by_a_command(
    latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(latents, tmp_path / "runs" / "a")
    write(folder / "metrics.jsonl", 0, range(1, 4), 1.0)
    for _ in range(2):
        assert tensorboard([str(tmp_path)]) == 0
        assert [step for step, _ in scalars(folder, "train_loss")] == [1, 2, 3]
    assert f"[1/1] {folder}/tensorboard" in capsys.readouterr().out
    assert tensorboard([str(tmp_path / "none")]) == 2


def test_a_run_goes_on_where_the_files_cannot_be_written(
    latents: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_run(latents, tmp_path / "run")
    (folder / "tensorboard").write_text("in the way")
    assert mirror_of(folder).finish()  # nothing runs
    assert "TensorBoard: the mirror cannot be started" in caplog.text


def test_without_the_package_the_extra_is_named_before_a_run_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'tensorboard=true: needs .* "kinescale\[tensorboard\]"'):
        LogConfig(tensorboard=True).check()


def test_catching_up_writes_only_what_is_new(latents: Path, tmp_path: Path) -> None:
    folder = make_run(latents, tmp_path / "run")
    mirror = TensorBoardMirror(folder)
    assert mirror.catch_up() == 0  # there is nothing yet
    write(folder / "metrics.jsonl", 0, range(1, 4), 1.0)
    assert mirror.catch_up() == 3
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train_loss": 0.5}\n')
    assert (mirror.catch_up(), mirror.catch_up()) == (1, 0)
    mirror.finish()
    assert [step for step, _ in scalars(folder, "train_loss")] == [1, 2, 3, 4]
