"""An array of tasks builds a dataset: the same bytes, once; what fails is told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch import array
from launch.array import array_words, find_jobs, main

KEEP = ["duplicate_bits=-1", "repeat_bits=-1", "shard_bytes=300000"]  # of work: two files a part


def shards(root: Path) -> dict[str, bytes]:
    """Return a split's files."""
    return {path.name: path.read_bytes() for path in (root / "train").iterdir()}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Give a folder of six pictures."""
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (6, 48, 64, 3), np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.heavy
def test_tasks_build_the_same_dataset_and_a_second_array_what_was_added(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from data.ingest import ingest

    words = [f"input={pictures}", *KEEP]
    assert ingest.main([*words, f"output={tmp_path / 'whole'}"]) == 0
    out = tmp_path / "out"
    site = ["cluster=local", "cluster.poll_seconds=0.1"]
    assert main(["ingest", "tasks=2", *site, *words, f"output={out}"]) == 0
    assert shards(out) == shards(tmp_path / "whole")
    assert not list((tmp_path / ".out.jobs").iterdir())
    before = {path: path.stat().st_mtime_ns for path in out.glob("train/shard-*")}
    assert len(before) == 3
    Image.effect_noise((64, 48), 90).save(pictures / "9.png")
    assert main(["ingest", "tasks=2", *site, *words, f"output={out}"]) == 0
    after = {path: path.stat().st_mtime_ns for path in out.glob("train/shard-*")}
    assert before.items() < after.items()
    assert len(after) == 4


@pytest.mark.heavy
def test_a_task_that_fails_is_told_and_nothing_is_put_together(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [f"input={tmp_path / 'none'}", f"output={tmp_path / 'out'}"]
    assert main(["ingest", "tasks=1", "cluster=local", "cluster.retries=0", *words]) == 1
    said = capfd.readouterr().err
    assert "does not exist" in said
    assert f"logs: {tmp_path / '.out.jobs' / 'ingest'}" in said
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_each_task_gets_its_share_by_the_key_of_its_command(tmp_path: Path) -> None:
    jobs = find_jobs("worlds", [f"root={tmp_path / 'a b'}", "seed=3"], 3)
    assert [job.argv[-1] for job in jobs] == [f"ingest.share={i}/3" for i in range(3)]
    assert jobs[1].argv[1:3] == ["-m", "launch.array_task"]
    assert jobs[1].run_dir == tmp_path / ".a b.jobs" / "worlds" / "1-of-3"
    assert jobs[1].done_marker.parent == jobs[1].run_dir
    with pytest.raises(ValueError, match=r"out=\(missing\): tasks must agree on a folder"):
        find_jobs("encode", [], 2)


def test_a_command_with_the_engine_slurm_is_one_of_an_array() -> None:
    words = ["input=x", "engine=slurm", "tasks=4"]
    assert array_words(words) == ["input=x", "tasks=4", "cluster=slurm"]
    assert array_words([*words, "cluster=site"]) == ["input=x", "tasks=4", "cluster=site"]
    assert set(array.COMMANDS) == {"ingest", "worlds", "encode", "caption"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "train: is no command that tasks share. Use ingest, worlds"),
        (["ingest", "tasks=0", "output=x"], "tasks=0: must be at least 1"),
        (["ingest", "tasks=x", "output=x"], "tasks=x: must be at least 1"),
    ],
)
def test_words_that_mean_nothing_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err
