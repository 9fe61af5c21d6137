"""Crashes, kills and damage around a save of several ranks lose nothing that was good."""

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from trainer.checkpoint.write import CheckpointError, CheckpointWriter, load_latest, verify
from trainer.identity import freeze
from trainer.layout.layout import Layout
from trainer.parallel.mesh import Mesh, alone
from trainer.run.metrics import MEASURED, read_metrics

from ..checkpoints import (
    CUT_SHAPES,
    CUTS,
    ROOT,
    SHAPES,
    SmallDisk,
    cut_fragments,
    drawn,
    fragments,
    names,
    newest,
    same,
    save,
    save_ranks,
    whole,
    writers,
)
from ..conftest import compose_smoke, read_json
from ..parallel.worlds import rank_file, run_world

FILES = ["index.json", "rank-00000.safetensors", "rank-00003.safetensors"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "delete"])
@pytest.mark.parametrize("file", FILES)
def test_damage_to_any_file_of_several_ranks_is_named_and_the_previous_one_loads(
    tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = writers(tmp_path, 4)
    for step in (1, 2):
        save_ranks(made, step, cut_fragments(drawn(step), 2, 2))
    path = tmp_path / "step-00000002" / file
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-3] ^= 4
    path.write_bytes({"truncate": content[:-1], "empty": b""}.get(damage, content))
    if damage == "delete":
        path.unlink()
    with caplog.at_level(logging.WARNING):
        loaded = newest(tmp_path)
    assert loaded.folder.name == "step-00000001"
    found, expected = loaded.tensors("param", CUT_SHAPES, CUTS), drawn(1)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert f"step-00000002/{file}" in caplog.text


def test_every_byte_of_a_save_of_several_ranks_counts(tmp_path: Path) -> None:
    save_ranks(writers(tmp_path, 4), 1, cut_fragments(drawn(1), 2, 2))
    for path in (tmp_path / "step-00000001").iterdir():
        good = path.read_bytes()
        for place in range(0, len(good), 37):
            damaged = bytearray(good)
            damaged[place] ^= 1 << place % 8
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=path.name):
                verify(path.parent)
            path.write_bytes(good[:place])
            with pytest.raises(CheckpointError, match=path.name):
                verify(path.parent)
        path.write_bytes(good)
        verify(path.parent)


@pytest.mark.parametrize("pointer", [None, b"step-00000001", b"step-00000099", b"\xff\x00"])
def test_a_crash_before_latest_moved_loses_nothing(tmp_path: Path, pointer: bytes | None) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    (tmp_path / "latest").unlink()
    if pointer is not None:
        (tmp_path / "latest").write_bytes(pointer)
    assert newest(tmp_path).index["step"] == 2
    save(tmp_path, 3)
    assert (tmp_path / "latest").read_text() == "step-00000003"


def test_a_crash_while_a_step_is_replaced_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1, keep=1)
    (tmp_path / "step-00000001").rename(tmp_path / ".replaced-step-00000001")
    (tmp_path / ".unfinished-step-00000001-attempt-0-save-2").mkdir()
    loaded = newest(tmp_path)
    assert same(loaded.tensors("param", SHAPES), whole(1)["param"])
    save(tmp_path, 1, keep=1)
    assert names(tmp_path) == ["latest", "step-00000001"]


def test_a_run_that_fell_back_forgets_the_later_checkpoints(tmp_path: Path) -> None:
    """Else a damaged one takes a place among the kept, or a history that was left goes on."""
    for step in (1, 5):
        save(tmp_path, step)
    (tmp_path / "step-00000005" / "index.json").unlink()
    assert newest(tmp_path).index["step"] == 1
    save(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["latest", "step-00000003"]
    assert newest(tmp_path).index["step"] == 3


CHILD = """
import sys, time
from pathlib import Path
import torch
from trainer.checkpoint.write import CheckpointWriter
from trainer.layout.layout import Layout
from trainer.parallel.mesh import Mesh
from trainer.layout.plan import Fragment

folder, rank, world, count, last = Path(sys.argv[1]), *map(int, sys.argv[2:])
second = folder / ".unfinished-step-00000002-attempt-1-save-2"

def token():
    if second.exists() and last:  # asked before it gets its name
        print("publishing", flush=True)
        time.sleep(600)

mesh = Mesh(Layout(dp=world), rank, torch.device("cpu"))
writer = CheckpointWriter(folder, mesh, 2, True, token, attempt=1)
for step in (1, 2):
    tensor = torch.full((count,), float(10 * step + rank))
    writer.save(step, [Fragment("x", rank * count, {"param": tensor})], {"step": step})
    if step == 1 or not last:
        print(writer.wait(), flush=True)
time.sleep(600 * last)
"""


def child(folder: Path, rank: int, world: int, count: int, hangs: bool) -> subprocess.Popen:
    arguments = [str(value) for value in (folder, rank, world, count, int(hangs))]
    command = [sys.executable, "-c", CHILD, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.heavy
@pytest.mark.parametrize("moment", ["writing", "publishing"])
def test_a_kill_in_the_middle_of_a_save_costs_that_save_only(tmp_path: Path, moment: str) -> None:
    count = 1 << 25  # 128 MiB: long enough to be met in the middle
    process = child(tmp_path, 0, 1, count, hangs=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip().endswith("step-00000001")
        file = tmp_path / ".unfinished-step-00000002-attempt-1-save-2" / "rank-00000.safetensors"
        if moment == "publishing":
            assert process.stdout.readline().strip() == "publishing"
        while not file.exists():
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        process.stdout.close()
    assert file.parent.is_dir()
    loaded = newest(tmp_path)
    assert loaded.index["step"] == 1
    assert torch.equal(loaded.tensor("param", "x", (count,)), torch.full((count,), 10.0))
    writer = CheckpointWriter(tmp_path, alone(), 2, background=True, attempt=2)
    writer.save(2, fragments(2), {})
    assert writer.wait() == tmp_path / "step-00000002"
    assert names(tmp_path) == ["latest", "step-00000001", "step-00000002"]
    assert same(newest(tmp_path).tensors("param", SHAPES), whole(2)["param"])


def said_by(processes: list[subprocess.Popen]) -> list[tuple[str, str]]:
    """Return what processes that end by themselves print."""
    try:
        return [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.dist
def test_processes_save_together_through_files_alone(tmp_path: Path) -> None:
    said = [out.split() for out, _ in said_by([child(tmp_path, r, 3, 5, False) for r in range(3)])]
    expected = [str(tmp_path / f"step-0000000{step}") for step in (1, 2)]
    assert said == [expected] * 3
    found = newest(tmp_path).tensor("param", "x", (15,))
    assert found.tolist() == [20.0] * 5 + [21.0] * 5 + [22.0] * 5


def load_as_rank(folder: str) -> None:
    """Be one rank of two: load the newest checkpoint; note which it is and what was warned of."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    rank = dist.get_rank()
    found = load_latest(Path(folder), Mesh(Layout(dp=2), rank, torch.device("cpu")))
    seen = {"loaded": str(getattr(found, "folder", None)), "said": "\n".join(said)}
    rank_file(Path(folder).parent, "seen", rank).write_text(json.dumps(seen))


@pytest.mark.dist
@pytest.mark.parametrize("damaged", [[], [0], [3], [0, 1, 2, 3]])
def test_ranks_share_the_verifying_and_load_the_same(tmp_path: Path, damaged: list[int]) -> None:
    run = tmp_path / "run"
    made = writers(run, 4)
    for step in (1, 2):
        save_ranks(made, step, cut_fragments(drawn(step), 2, 2))
    files = [f"rank-{rank:05d}.safetensors" for rank in damaged]
    for file in files:
        path = run / "step-00000002" / file
        path.write_bytes(path.read_bytes()[:-1])
    run_world(2, "tests.trainer.checkpoint.test_crashes:load_as_rank", str(run))
    seen = [read_json(rank_file(tmp_path, "seen", rank)) for rank in range(2)]
    expected = run / ("step-00000001" if damaged else "step-00000002")
    assert [rank["loaded"] for rank in seen] == [str(expected)] * 2
    for rank in range(2):  # each names the first damaged file of its share
        own = [file for file in files if int(file[5:10]) % 2 == rank]
        assert [file for file in files if file in seen[rank]["said"]] == own[:1]


@pytest.mark.heavy
@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_training_goes_on_when_the_disk_is_full(latents: Path, tmp_path: Path) -> None:
    from trainer.diffusion.attempt import train_run

    run = compose_smoke(
        latents,
        "horizon.steps=6",
        "checkpoint.steps=2",
        "checkpoint.seconds=0",
        "checkpoint.background=false",  # so that the disk fills after a save, not in one
        "validation.curve_points=0",  # whose validations would ask for the flag, too
    )
    freeze(run, tmp_path)
    disk, at_step = SmallDisk(20_000), iter(range(100))
    found: list[str] = []

    def poll() -> bool:  # called before the first step, then once a step before its update
        step = next(at_step)
        if step == 3:
            disk.__enter__()
        if step == 6:
            disk.__exit__()
            found.extend(sorted(p.name for p in (tmp_path / "checkpoints").iterdir()))
        return False

    try:
        assert train_run(run, tmp_path, poll)
    finally:
        disk.__exit__()
    assert found == ["latest", "step-00000002"]  # that of step 4 found no room
    losses = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "train_loss" in r]
    assert [r["step"] for r in losses] == [1, 2, 3, 4, 5, 6]
    loaded = load_latest(tmp_path / "checkpoints")
    assert loaded is not None
    assert loaded.index["step"] == 6


@pytest.mark.heavy
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_crash_between_checkpoints_changes_no_metric(
    latents: Path, tmp_path: Path, every: int
) -> None:
    from trainer.diffusion.attempt import train_run

    run = compose_smoke(
        latents,
        "horizon.steps=6",
        "checkpoint.steps=3",
        "checkpoint.seconds=0",
        f"log.every={every}",
        "validation.curve_points=2",
    )
    polls = iter(range(100))

    def crash() -> bool:
        if next(polls) == 4:
            raise RuntimeError("killed in step 5")
        return False

    for name in ("whole", "broken"):
        freeze(run, tmp_path / name)
    assert train_run(run, tmp_path / "whole", lambda: False)
    with pytest.raises(RuntimeError, match="killed in step 5"):
        train_run(run, tmp_path / "broken", crash)
    assert train_run(run, tmp_path / "broken", lambda: False)
    whole, broken = (
        [
            {k: v for k, v in record.items() if k not in MEASURED}
            for record in read_metrics(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("whole", "broken")
    )
    assert broken == whole
