"""Writers in the background and on several ranks: who waits for whom, and who may publish."""

import threading
import time
from pathlib import Path

import pytest
import torch

from trainer.checkpoint.files import SaveFolders, find_steps, give_up
from trainer.checkpoint.write import CheckpointWriter, verify
from trainer.layout.plan import Fragment
from trainer.parallel.mesh import alone

from ..checkpoints import (
    CUT_SHAPES,
    CUTS,
    KINDS,
    SHAPES,
    SmallDisk,
    cut_fragments,
    drawn,
    fragments,
    names,
    newest,
    same,
    save_ranks,
    whole,
    writers,
)


def test_training_waits_for_the_copy_only(tmp_path: Path) -> None:
    gate = threading.Event()
    writer = CheckpointWriter(tmp_path, alone(), 2, background=True, token=lambda: waited(gate))
    pieces, state = fragments(1), {"step": 1}
    writer.save(1, pieces, state)
    for piece in pieces:
        for tensor in piece.tensors.values():
            tensor.zero_()
    state["step"] = 2
    assert find_steps(tmp_path) == []
    gate.set()
    assert writer.wait() == tmp_path / "step-00000001"
    assert writer.wait() == tmp_path / "step-00000001"
    loaded = newest(tmp_path)
    assert loaded.state == {"step": 1}
    assert all(same(loaded.tensors(kind, SHAPES), whole(1)[kind]) for kind in KINDS)
    assert writer.blocked_seconds > 0
    assert writer.write_seconds > 0


def waited(gate: threading.Event) -> None:
    assert gate.wait(60)


def test_a_save_waits_for_the_one_before(tmp_path: Path) -> None:
    gate = threading.Event()
    writer = CheckpointWriter(tmp_path, alone(), 2, background=True, token=lambda: waited(gate))
    writer.save(1, fragments(1), {})
    second = threading.Thread(target=lambda: writer.save(2, fragments(2), {}))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    assert names(tmp_path) == [".unfinished-step-00000001-attempt-0-save-1"]
    gate.set()
    second.join(60)
    assert writer.wait() == tmp_path / "step-00000002"
    assert names(tmp_path) == ["latest", "step-00000001", "step-00000002"]
    assert writer.blocked_seconds > 0.2
    for step in (1, 2):
        loaded = verify(tmp_path / f"step-0000000{step}")
        assert same(loaded.tensors("param", SHAPES), whole(step)["param"])


def test_without_a_save_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    assert CheckpointWriter(tmp_path / "none", alone(), 2, background=True).wait() is None
    assert not (tmp_path / "none").exists()


def test_ranks_that_write_at_once_in_the_foreground_wait_for_each_other(tmp_path: Path) -> None:
    pieces = cut_fragments(drawn(3), 2, 2)
    made = writers(tmp_path, 4, background=False)
    threads = [
        threading.Thread(target=writer.save, args=(3, own, {}))
        for writer, own in zip(made, pieces, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [writer.wait() for writer in made] == [tmp_path / "step-00000003"] * 4


def test_the_same_step_is_saved_again_in_one_attempt(tmp_path: Path) -> None:
    made = writers(tmp_path, 4)
    for seed in (1, 2, 3):
        full = drawn(seed)
        assert None not in save_ranks(made, 5, cut_fragments(full, 2, 2))
        found = newest(tmp_path).tensors("param", CUT_SHAPES, CUTS)
        assert all(torch.equal(found[name], full[name]) for name in full)
        assert names(tmp_path) == ["latest", "step-00000005"]


@pytest.mark.parametrize("attempt", [1, 2])
def test_stale_listings_of_a_killed_attempt_confuse_nobody(tmp_path: Path, attempt: int) -> None:
    """It left rank 1's files; the next must not publish them, even under the same number."""
    dead = writers(tmp_path, 2, attempt=1)
    dead[1].save(5, cut_fragments(drawn(1), 2, 1)[1], {})
    assert dead[1]._job is not None
    dead[1]._job.join()
    made = writers(tmp_path, 2, attempt=attempt)
    assert not list(tmp_path.glob(".*/*"))
    full = drawn(2)
    pieces = cut_fragments(full, 2, 1)
    made[0].save(5, pieces[0], {})
    time.sleep(0.2)
    assert find_steps(tmp_path) == []
    made[1].save(5, pieces[1], {})
    assert [writer.wait() for writer in made] == [tmp_path / "step-00000005"] * 2
    found = newest(tmp_path).tensors("param", CUT_SHAPES, CUTS)
    assert all(torch.equal(found[name], full[name]) for name in full)


def test_a_later_attempts_folder_is_left_alone(tmp_path: Path) -> None:
    later = tmp_path / ".unfinished-step-00000009-attempt-3-save-1"
    later.mkdir()
    writers(tmp_path, 1, attempt=2)
    assert later.is_dir()


@pytest.mark.heavy
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_rank_that_cannot_write_fails_the_save_for_all(
    tmp_path: Path, failing: int, caplog: pytest.LogCaptureFixture
) -> None:
    made, pieces = writers(tmp_path, 3), cut_fragments(drawn(1), 1, 3)
    assert None not in save_ranks(made, 1, pieces)
    size = max(p.stat().st_size for p in (tmp_path / "step-00000001").iterdir())
    large = [Fragment("large", 0, {"param": torch.zeros(size)})]
    broken = [[*own, *large] if rank == failing else own for rank, own in enumerate(pieces)]
    with SmallDisk(2 * size):
        assert save_ranks(made, 2, broken) == [None] * 3
    assert "checkpoint of step 2 failed" in caplog.text
    if failing:
        assert f"rank {failing} could not write" in caplog.text
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000001"]
    assert not list(tmp_path.glob(".*/*"))  # nothing takes space
    assert newest(tmp_path).index["step"] == 1
    assert save_ranks(made, 3, pieces) == [tmp_path / "step-00000003"] * 3
    writers(tmp_path, 3, attempt=1)
    assert names(tmp_path) == ["latest", "step-00000001", "step-00000003"]


def test_a_rank_that_fails_after_the_decision_leaves_nothing(tmp_path: Path) -> None:
    """The main rank gave up, then one late rank made the folder anew and another failed in it."""
    made, save = writers(tmp_path, 3), SaveFolders(tmp_path, step=2, attempt=0, count=1)
    give_up(save, 3)
    save.unfinished.mkdir()
    made[2]._tell_failure(save, "no space")
    assert names(tmp_path) == [save.failed.name]
    assert not list(save.failed.iterdir())


def test_a_rank_that_is_gone_fails_the_save_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, pieces = writers(tmp_path, 3, timeout_seconds=0.5), cut_fragments(drawn(1), 1, 3)
    for rank in (0, 2):
        made[rank].save(1, pieces[rank], {})
    assert [made[rank].wait() for rank in (0, 2)] == [None, None]
    assert "no word from ranks 1 in" in caplog.text
    # The lost rank comes back, too late.
    made[1].save(1, pieces[1], {})
    assert made[1].wait() is None
    assert not list(tmp_path.glob("*/*"))
    assert save_ranks(made, 2, pieces) == [tmp_path / "step-00000002"] * 3


def test_a_main_rank_that_is_gone_is_not_waited_for_forever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, pieces = writers(tmp_path, 2, timeout_seconds=0.2), cut_fragments(drawn(1), 1, 2)
    made[1].save(1, pieces[1], {})
    assert made[1].wait() is None
    assert "the main rank does not answer" in caplog.text


class StaleError(RuntimeError):
    """Another attempt owns the run."""


def refuse() -> None:
    raise StaleError("attempt 2 has the run")


@pytest.mark.heavy
@pytest.mark.parametrize("world", [1, 3])
def test_a_stale_writer_publishes_nothing_and_is_told(tmp_path: Path, world: int) -> None:
    pieces = cut_fragments(drawn(1), 1, world)
    save_ranks(writers(tmp_path, world), 1, pieces)
    made = writers(tmp_path, world, attempt=1, token=refuse)
    for writer, own in zip(made, pieces, strict=True):
        writer.save(2, own, {})
    with pytest.raises(StaleError, match="attempt 2 has the run"):
        made[0].wait()
    assert [writer.wait() for writer in made] == [None] * world
    assert newest(tmp_path).index["step"] == 1
    assert find_steps(tmp_path) == [(1, False)]
    assert not list(tmp_path.glob(".*/*"))


@pytest.mark.parametrize("background", [True, False])
def test_a_stale_writer_is_told_at_the_next_save(tmp_path: Path, background: bool) -> None:
    writer = CheckpointWriter(tmp_path, alone(), 2, background, token=refuse)
    if background:
        writer.save(1, fragments(1), {})
    with pytest.raises(StaleError):
        writer.save(2, fragments(2), {})
    assert names(tmp_path) == []
