"""One attempt at a run: alone in its folder on every process, numbered, marked when stopped."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from trainer.config import CheckpointConfig
from trainer.run.attempt import STOPPED_FILE
from trainer.run.environment import environment
from trainer.run.session import SaveClock, Session


@dataclass
class Peer:
    """A process of an attempt, and what the main one said."""

    is_main: bool
    heard: float = 0.0

    def any(self, flag: bool) -> bool:
        return flag or self.heard > 0

    def sum(self, *values: float) -> list[float]:
        return [value + self.heard for value in values]


def test_attempts_are_numbered_and_a_stopped_one_leaves_its_mark(tmp_path: Path) -> None:
    for attempt in (1, 2):
        session = Session.take(tmp_path, Peer(is_main=True))
        assert session.attempt == attempt
        assert json.loads((tmp_path / "env.json").read_text())["python"]
        assert not (tmp_path / STOPPED_FILE).exists()  # of the attempt before
        session.mark_stopped(7)
        assert json.loads((tmp_path / STOPPED_FILE).read_text()) == {"attempt": attempt, "step": 7}
        session.release()


def test_the_environment_holds_the_words_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted-0123456789abcdef")
    words = ["seed=1", "data.root=s3://me:planted@b/set", "name=planted-0123456789abcdef"]
    monkeypatch.setattr("sys.argv", ["train", *words])
    found = environment()
    assert found["argv"] == ["seed=1", "data.root=s3://***@b/set", "name=<HF_TOKEN>"]
    assert "planted" not in json.dumps(found)


def test_while_an_attempt_lives_every_process_of_another_is_refused(tmp_path: Path) -> None:
    session = Session.take(tmp_path, Peer(is_main=True))
    with pytest.raises(ValueError, match="is being trained by process"):
        Session.take(tmp_path, Peer(is_main=True))
    with pytest.raises(ValueError, match="is being trained by another process"):
        Session.take(tmp_path, Peer(is_main=False, heard=1.0))
    session.release()


def test_a_checkpoint_is_due_by_time_or_by_steps() -> None:
    assert not SaveClock(CheckpointConfig(seconds=0, steps=0)).due(5)
    by_steps = SaveClock(CheckpointConfig(seconds=0, steps=3))
    assert [by_steps.due(done) for done in range(6)] == [False, False, True] * 2
    by_time = SaveClock(CheckpointConfig(seconds=1e-9, steps=0))
    assert by_time.due(0)
