"""The rate of a study: clips like the law's, the committed grid, runs that are really trained."""

from pathlib import Path

import pytest

from benchmarks.study_rate import (
    COMMITTED,
    FRAMES,
    INDEX_LINES,
    SIZES,
    Rates,
    main,
    overrides,
    train,
    write_clips,
)
from data.dataset.shards import read_index

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    write_clips(root, clips=12)
    return root


def test_clips_have_the_laws_sizes_and_its_index_has_as_many_lines(clips: Path) -> None:
    infos = read_index(clips, "train")
    assert len(infos) == INDEX_LINES
    assert {(i.height, i.width) for i in infos} <= set(SIZES)
    assert {i.num_frames for i in infos} <= set(FRAMES)


def test_the_grids_hours_are_steps_by_size_and_a_start_for_each_run() -> None:
    rows = len(COMMITTED.read_text().splitlines()) - 1
    idle = Rates(1.0, 7.2, 0.0, {48: (0.0, 1e8), 96: (0.0, 4e8)}, [])
    assert idle.grid_hours() == pytest.approx(7.2 * rows / 3600)
    # A step's seconds are on a line through both widths: here FLOPs over 20 GFLOP/s.
    even = Rates(1.0, 0.0, 0.0, {48: (0.005, 1e8), 96: (0.02, 4e8)}, [])
    flops = sum(float(line.split(",")[3]) for line in COMMITTED.read_text().splitlines()[1:])
    assert even.grid_hours() == pytest.approx(flops / 2e10 / 3600)


@pytest.mark.heavy
def test_a_checkout_trains_runs_and_tells_what_they_took(clips: Path, tmp_path: Path) -> None:
    short = ["validation.samples=2", "validation.curve_points=0", "log.wandb=disabled"]
    found = train(ROOT, tmp_path, {"one": [*overrides(clips, 32, "horizon.steps=2"), *short]})
    assert found["steps"] == [2]
    assert found["processor_seconds"] > 1
    assert found["loss"][0] > 0


def test_a_folder_that_is_no_checkout_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"against={tmp_path}"]) == 2
    assert "must be a checkout" in capsys.readouterr().err
