"""A run that is asked to stop: in its warm-up, between steps, while it validates, at its end."""

from pathlib import Path

import pytest

from trainer.checkpoint.write import load_latest
from trainer.diffusion.attempt import train_run
from trainer.identity import freeze
from trainer.run.attempt import STOPPED_FILE, read_timelines
from trainer.run.lease import Fence
from trainer.run.metrics import MEASURED, read_metrics

from .conftest import compose_smoke, read_json

STEPS = 8
# Polls of the flag: one before the first step, one a step, one in the curve's validation after
# step 4, then those of the validation at the end.
WARM_UP, IN_CURVE, AT_END = 0, 5, 10


def train(latents: Path, folder: Path, stop_at: int | None = None) -> bool:
    """Train in this process; the flag is up from a poll on."""
    run = compose_smoke(latents, f"horizon.steps={STEPS}")
    freeze(run, folder)
    polls = iter(range(10**9))
    return train_run(run, folder, lambda: stop_at is not None and next(polls) >= stop_at)


def records(folder: Path) -> list[dict]:
    """Return metrics.jsonl without what a clock measured."""
    found = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in MEASURED} for r in found]


@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:torch.jit.*:DeprecationWarning")
@pytest.mark.usefixtures("group")
class TestStop:
    """Tests that train."""

    @pytest.mark.heavy
    def test_wherever_it_stops_it_saves_once_leaves_its_mark_and_resumes_bitwise(
        self, latents: Path, tmp_path: Path
    ) -> None:
        whole = tmp_path / "whole"
        assert train(latents, whole)
        assert not (whole / STOPPED_FILE).exists()
        expected = load_latest(whole / "checkpoints")
        assert expected is not None
        for stop_at, step in ((WARM_UP, 0), (2, 2), (IN_CURVE, 4), (AT_END, STEPS)):
            folder = tmp_path / f"stopped-{stop_at}"
            assert not train(latents, folder, stop_at)
            assert read_json(folder / STOPPED_FILE) == {"attempt": 1, "step": step}
            saved = load_latest(folder / "checkpoints")
            assert (saved.index["step"] if saved else 0) == step
            assert not (folder / "result.json").exists()
            assert train(latents, folder)
            assert not (folder / STOPPED_FILE).exists()
            found = load_latest(folder / "checkpoints")
            assert found is not None
            assert found.index["files"] == expected.index["files"], stop_at
            assert records(folder) == records(whole), stop_at
            first, second = read_timelines(folder)
            assert (first["attempt"], second["first_step"]) == (1, step if step < STEPS else -1)

    def test_an_attempt_that_the_launcher_vouches_is_over_is_superseded_though_it_lives(
        self, tmp_path: Path
    ) -> None:
        orphan = Fence.take(tmp_path, lease_seconds=0.3, host="cut")
        with pytest.raises(ValueError, match="is being trained by process"):
            Fence.take(tmp_path, lease_seconds=0.3, host="other", ended=0)
        owner = Fence.take(tmp_path, lease_seconds=0.3, host="other", ended=1)
        assert owner.attempt == 2
        with pytest.raises(RuntimeError, match="was superseded by attempt 2"):
            orphan.check()
        owner.check()
        # On one host the orphan even holds the lock.
        third = Fence.take(tmp_path, lease_seconds=0.3, host="other", ended=2)
        third.check()
        # Nobody vouches for the third.
        with pytest.raises(ValueError, match="is being trained by"):
            Fence.take(tmp_path, lease_seconds=0.3, host="new", ended=2)
        for fence in (orphan, owner, third):
            fence.release()
