"""The end of a run, which waits a little for what follows it."""

from pathlib import Path

import pytest

from data import notices
from trainer.log_config import WandbMode
from trainer.mirror.child import Followers, wandb_task
from trainer.run.attempt import STOPPED_FILE


def test_a_run_that_waits_for_its_mirror_says_so_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(notices, "NEXT_SECONDS", 1000.0)
    (tmp_path / STOPPED_FILE).write_text('{"attempt": 1}')  # all is well, and nothing to send
    assert Followers(tmp_path, [wandb_task(WandbMode.offline, 60.0)], 1).finish()
    told = "the run is over, W&B may take the rest for 60 s: 0 s so far\n"
    assert capfd.readouterr() == ("", told)
