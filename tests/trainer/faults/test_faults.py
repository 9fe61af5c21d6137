"""What breaks a run from outside: kills, signals, damaged files, a full disk, a second writer.

Ranks are real processes that really die. Each run that recovers ends with the bits of a twin that
nothing disturbed.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..conftest import read_json
from .conftest import Inject, Twin, finish
from .harness import Group, wait_until
from .inject import Both, Fill, FullDisk, Machine, Signal, Slow, kill
from .runs import (
    STEPS,
    assert_exactly_once,
    assert_twins,
    checkpoint_steps,
    events,
    final,
    logged_steps,
    prepare,
    repeated_steps,
    two_ranks,
)

pytestmark = pytest.mark.dist
slow = pytest.mark.slow
STEP = "trainer.diffusion.loop:accumulate"
KILLED = -signal.SIGKILL
STALLED = 76  # trainer.run.heartbeat.STALLED
STOPPED = 75  # trainer.train.STOPPED

# What is killed: name in the table, rank, moment, steps of the checkpoints that are left.
KILLS = {
    "in a step, main rank": ("kill -9 in a step", 0, kill(STEP, 4, after=True), [2]),
    "in a step, other rank": ("kill -9 in a step", 1, kill(STEP, 4), [2]),
    "after an update": (
        "kill -9 in a step",
        1,
        kill("trainer.diffusion.loop:PowerEma.update", 4),
        [2],
    ),
    "in a save, nothing written": (
        "kill -9 in a save",
        0,
        kill("trainer.checkpoint.write:write_rank", 2),
        [2],
    ),
    "in a save, one file written": (
        "kill -9 in a save",
        1,
        kill("trainer.checkpoint.files:save_file", 2, after=True),
        [2],
    ),
    "in a save, all but renamed": ("kill -9 in a save", 0, kill("pathlib:Path.rename", 2), [2]),
    "between rename and latest": (
        "kill -9 between rename and latest",
        0,
        kill("trainer.checkpoint.write:point_latest", 2),
        [2, 4],
    ),
    "in the last save": ("kill -9 in a save", 0, kill("pathlib:Path.rename", 4), [4, 6]),
    "at the end": (
        "kill -9 after the last save",
        0,
        kill("trainer.diffusion.attempt:write_result"),
        [6, 7],
    ),
    "in the first save": ("kill -9 in a save", 0, kill("pathlib:Path.rename", 1), []),
}
FAST_KILLS = {
    "in a step, other rank",
    "in a save, one file written",
    "between rename and latest",
    "at the end",
}


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=() if name in FAST_KILLS else slow) for name in KILLS]
)
def test_a_killed_rank_costs_no_sample_and_no_bit(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject, case: str
) -> None:
    fault, rank, moment, left = KILLS[case]
    # A step is killed after the save before it, not during it.
    background = f"checkpoint.background={not moment.where.startswith('trainer.diffusion.loop')}"
    folder = prepare(latents, tmp_path / "run", *two_ranks(), background)
    row = inject(fault)
    with Group(folder, 2, {rank: moment}) as group:
        codes = group.wait()
        assert codes[rank] == KILLED, group.logs()
        assert codes[1 - rank] != 0 or case == "at the end"
    assert not (folder / "result.json").exists()
    row.detect()
    assert checkpoint_steps(folder) == left
    log = finish(folder, 2)
    assert f"step-{left[-1]:08d}" in log if left else "resumed" not in log
    expected = twin(2, *two_ranks())
    assert_twins(folder, expected)
    assert logged_steps(folder) == list(range(1, STEPS + 1))
    row.recover(folder, expected)


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [pytest.param(0, marks=slow), 1])
def test_sigterm_saves_once_and_the_next_start_repeats_nothing(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject, rank: int
) -> None:
    folder = prepare(latents, tmp_path / "run", *two_ranks(), "checkpoint.steps=0")
    row = inject("SIGTERM")
    # A scheduler may send it again, while the run is saving.
    again = Signal(signal.SIGTERM, "trainer.checkpoint.files:save_file")
    with Group(folder, 2, {rank: Both((Signal(signal.SIGTERM, STEP, 3), again))}) as group:
        assert group.wait(grace=30) == [STOPPED, STOPPED], group.logs()
    row.detect()
    assert checkpoint_steps(folder) == [4]
    assert not (folder / "result.json").exists()
    finish(folder, 2)
    assert repeated_steps(folder) == 0
    expected = twin(2, *two_ranks())
    assert_twins(folder, expected)
    assert_exactly_once(folder)
    row.recover(folder, expected)


STALL_SECONDS = 20.0  # longer than a busy machine takes to build an engine
STALLS = [f"faults.stall_seconds={STALL_SECONDS}", "faults.beat_seconds=0.5"]


@pytest.mark.parametrize(
    ("rank", "world"), [(1, 2), pytest.param(0, 2, marks=slow), pytest.param(2, 4, marks=slow)]
)
def test_a_stopped_rank_is_named_and_the_others_leave(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject, rank: int, world: int
) -> None:
    layout = two_ranks()
    if world == 4:
        layout += ["parallel.processes=4", "data.packs_per_step=4"]
    folder = prepare(latents, tmp_path / "run", *layout, *STALLS)
    row = inject("SIGSTOP of a rank")
    with Group(folder, world, {rank: Signal(signal.SIGSTOP, STEP, 4)}) as group:
        others = [r for r in range(world) if r != rank]
        wait_until(lambda: any(group.codes[r] is not None for r in others))
        found = [group.wait_rank(other, 20.0) for other in others]
        assert found == [STALLED] * len(others), group.logs()
        assert group.codes[rank] is None  # stopped, not dead
        report = read_json(folder / "stalled.json")
        assert [suspect["rank"] for suspect in report["suspects"]] == [rank]
        assert report["suspects"][0]["pid"] == group.pid(rank)
        assert report["step"] == 3
        assert report["suspects"][0]["step"] <= 3  # its last sign may be a beat old
        assert STALL_SECONDS <= report["seconds"] < STALL_SECONDS + 8
    row.detect()
    finish(folder, world)
    expected = twin(world, *layout)
    assert_twins(folder, expected)
    row.recover(folder, expected)


# --- damaged files --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on two ranks that died after it had saved steps 2 and 4."""
    folder = tmp_path_factory.mktemp("broken") / "run"
    prepare(latents, folder, *two_ranks(), "checkpoint.background=false")
    with Group(folder, 2, {1: kill(STEP, 6)}) as group:
        group.wait()
    assert checkpoint_steps(folder) == [2, 4]
    return folder


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """Cut off the last byte of a file."""
    os.truncate(path, path.stat().st_size - 1)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit": flip,
    "a truncation": truncate,
    "a missing file": Path.unlink,
}
FILES = ["rank-00000.safetensors", "rank-00001.safetensors", "index.json"]
FAST_DAMAGES = {("a flipped bit", FILES[1]), ("a truncation", FILES[2])}


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        pytest.param(damage, name, marks=() if (damage, name) in FAST_DAMAGES else slow)
        for damage in DAMAGES
        for name in FILES
    ],
)
def test_a_damaged_file_is_named_and_the_checkpoint_before_it_is_taken(
    broken: Path, tmp_path: Path, twin: Twin, inject: Inject, damage: str, name: str
) -> None:
    folder = shutil.copytree(broken, tmp_path / "run")
    row = inject(f"{damage} in a checkpoint")
    DAMAGES[damage](folder / "checkpoints" / "step-00000004" / name)
    log = finish(folder, 2)
    assert f"step-00000004/{name}" in log
    row.detect()
    assert f"resumed from {folder}/checkpoints/step-00000002" in log
    expected = twin(2, *two_ranks())
    assert_twins(folder, expected)
    row.recover(folder, expected)


@slow
def test_a_run_whose_checkpoints_are_all_damaged_starts_again(
    broken: Path, tmp_path: Path, twin: Twin, inject: Inject
) -> None:
    folder = shutil.copytree(broken, tmp_path / "run")
    (folder / "checkpoints" / "latest").write_text("step-99999999")  # is for people only
    row = inject("all checkpoints damaged")
    for step in (2, 4):
        flip(folder / "checkpoints" / f"step-{step:08d}" / "index.json")
    assert "none verifies" in finish(folder, 2)
    row.detect()
    expected = twin(2, *two_ranks())
    assert_twins(folder, expected)
    row.recover(folder, expected)


# --- a full disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [pytest.param(0, marks=slow), 1])
def test_a_full_disk_fails_a_save_and_not_the_run(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject, rank: int
) -> None:
    folder = prepare(latents, tmp_path / "run", *two_ranks(), "checkpoint.background=false")
    row = inject("a full disk during a save")
    # The save of step 4 fails; a death after it shows what is left.
    with Group(folder, 2, {rank: Both((FullDisk([2]), kill(STEP, 6)))}) as group:
        group.wait()
        assert "checkpoint of step 4 failed" in group.log(rank)
    row.detect()
    assert checkpoint_steps(folder) == [2]
    finish(folder, 2)
    expected = twin(2, *two_ranks())
    assert_twins(folder, expected)
    row.recover(folder, expected)


def test_a_run_that_cannot_save_its_end_is_not_finished(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject
) -> None:
    folder = prepare(latents, tmp_path / "run")
    row = inject("a full disk during a save")
    with Group(folder, 1, {0: FullDisk([2, 3, 4])}) as group:
        assert group.wait() == [1], group.logs()
        assert "last checkpoint could not be written" in group.log(0)
    found = [(event["event"], event["step"]) for event in events(folder)]
    assert found == [("save failed", step) for step in (6, 7, 7)]
    row.detect()
    assert not (folder / "result.json").exists()
    assert checkpoint_steps(folder) == [2]
    finish(folder, 1)
    assert_twins(folder, twin(1))
    row.recover(folder, twin(1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of its own, of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@slow
def test_a_real_file_system_without_room_costs_a_save(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject, small_disk: Path
) -> None:
    folder = prepare(latents, tmp_path / "run", "checkpoint.keep=1")
    (folder / "checkpoints").symlink_to(small_disk)
    row = inject("a full disk during a save")
    with Group(folder, 1, {0: Fill(small_disk, [2])}) as group:
        assert group.wait() == [0], group.logs()
        assert "No space left" in group.log(0)
    assert [event["event"] for event in events(folder)] == ["save failed"]
    row.detect()
    assert_twins(folder, twin(1))
    row.recover(folder, twin(1))


@slow
def test_a_run_folder_without_room_ends_the_attempt_and_nothing_else(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject, small_disk: Path
) -> None:
    folder = prepare(latents, small_disk / "run")
    row = inject("a full disk under the whole run folder")
    with Group(folder, 1, {0: Fill(small_disk, [2])}) as group:
        assert group.wait() == [2], group.logs()  # a start as it is would end in the same way
        assert "error: the disk is full. Free some space" in group.log(0)
    row.detect()
    (small_disk / "ballast").unlink()
    finish(folder, 1)
    assert_twins(folder, twin(1))
    row.recover(folder, twin(1))


# --- a second writer ------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=slow)])
def test_a_second_start_on_the_same_folder_is_refused(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject, world: int
) -> None:
    layout = two_ranks() if world == 2 else []
    folder = prepare(latents, tmp_path / "run", *layout)
    row = inject("two processes on one run folder")
    with Group(folder, world, dict.fromkeys(range(world), Slow(0.5)), name="first") as first:
        wait_until(lambda: logged_steps(folder))
        with Group(folder, world, name="second") as second:
            assert second.wait(grace=30) == [2] * world, second.logs()
            assert f"is being trained by process {first.pid(0)} on" in second.log(0)
        row.detect()
        assert first.codes == [None] * world, "the first one should outlive the second"
        assert first.wait() == [0] * world, first.logs()
    expected = twin(world, *layout)
    assert_twins(folder, expected)
    assert final(folder).state["progress"]["attempts"] == 1
    row.recover(folder, expected)


def digests(folder: Path) -> dict[str, str]:
    """Return checksums of what a run published; not signs of life."""
    published = [folder / name for name in ("metrics.jsonl", "result.json", "curve.csv")]
    saved = (folder / "checkpoints").rglob("*")
    published += sorted(path for path in saved if path.is_file() and path.suffix != ".tmp")
    published += [folder / "config.yaml", folder / "env.json"]
    found = {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in published}
    return found | {"events": str(events(folder))}


@pytest.mark.parametrize(
    "where",
    [
        STEP,
        pytest.param("trainer.checkpoint.write:publish", marks=slow),
        "trainer.checkpoint.write:point_latest",
    ],
    ids=["step", "save", "tidy"],
)
def test_a_stale_writer_that_wakes_after_a_requeue_writes_nothing(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject, where: str
) -> None:
    folder = prepare(latents, tmp_path / "run")
    row = inject("a stale writer after requeue")
    pause = Signal(signal.SIGSTOP, where, 4 if where == STEP else 2)
    with Group(folder, 1, {0: Both((Machine("left"), pause))}, name="stale") as stale:
        wait_until(lambda: is_stopped(stale.pid(0)))
        with Group(folder, 1, {0: Machine("right")}, name="requeued") as requeued:
            assert requeued.wait() == [0], requeued.logs()
            assert "takes over from attempt 1" in requeued.log(0)
        before = digests(folder)
        stale.send(0, signal.SIGCONT)
        assert stale.wait() == [1], stale.logs()
        assert "superseded by attempt 2" in stale.log(0)
    row.detect()
    assert digests(folder) == before
    assert_twins(folder, twin(1))
    row.recover(folder, twin(1))


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped, and give it time to have been so."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    time.sleep(0.05)
    return state == "T"
