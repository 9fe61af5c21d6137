"""A study's archive redraws and refits it, gives its folder back, and says when it is damaged."""

import csv
import gzip
import json
import shutil
from pathlib import Path

import pytest

from sweeps.report.inputs.isoflop import read_inputs
from sweeps.report.pages.isoflop import render_page
from sweeps.study.archive import (
    CURVES,
    RUNS,
    archive,
    losses_by_part,
    main,
    open_table,
    read_curves,
    read_results,
    restore,
)

STUDY = Path(__file__).parents[3] / "docs/studies/cpu_isoflop"


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "study ü"
    restore(STUDY, folder)
    return folder


@pytest.mark.heavy
def test_a_restored_study_has_its_run_folders_and_archives_to_the_same_bytes(
    restored: Path, tmp_path: Path
) -> None:
    finished = sorted(path.parent.name for path in restored.glob("runs/*/result.json"))
    assert len(finished) == 62
    assert (restored / "runs" / finished[0] / "config.yaml").read_text().startswith("name: ")
    archive(restored, tmp_path / "again")
    for name in (RUNS, CURVES, "runs.csv", "law.json", "study.yaml", "samples/ladder.json"):
        assert (tmp_path / "again" / name).read_bytes() == (STUDY / name).read_bytes(), name


@pytest.mark.heavy
def test_the_page_of_an_archive_is_the_page_of_its_folder(restored: Path) -> None:
    kept, full = read_inputs(STUDY), read_inputs(restored)
    assert kept.results == full.results
    assert kept.curves == full.curves
    assert kept.notes == full.notes == []
    full.study_dir = STUDY
    assert render_page(kept, {}) == render_page(full, {})


def test_losses_by_stratum_and_world_stand_in_the_table_and_agree_with_the_whole() -> None:
    results = read_results(STUDY)
    with (STUDY / "runs.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(results) == 62
    for row in rows:
        strata = [float(row[f"loss_t{number}"]) for number in range(1, 5)]
        assert sum(strata) / 4 == pytest.approx(results[row["name"]]["loss"], rel=1e-3)
        low, high = sorted(float(row[f"loss_{world}"]) for world in ("physics", "rooms"))
        assert low <= float(row["loss"]) <= high


def test_the_loss_of_a_world_is_a_ratio_of_sums() -> None:
    groups = [
        {"world": "a", "errors": 1.0, "values": 10.0},
        {"world": "a", "errors": 9.0, "values": 20.0},
        {"world": "b", "errors": 2.0, "values": 4.0},
    ]
    result = {"loss_by_time": [0.5, 0.1], "validation": {"v": {"groups": groups}}}
    parts = {"loss_t1": 0.5, "loss_t2": 0.1, "loss_a": 10 / 30, "loss_b": 0.5}
    assert losses_by_part(result) == parts
    assert losses_by_part({}) == {}


def test_large_tables_are_read_packed_and_plain(tmp_path: Path) -> None:
    (tmp_path / "plain.csv").write_text("a\n1\n")
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(b"a\n2\n"))
    for name, value in (("plain.csv", "1"), ("packed.csv", "2")):
        with open_table(tmp_path / name) as stream:
            assert list(csv.DictReader(stream)) == [{"a": value}]
    with pytest.raises(FileNotFoundError):
        open_table(tmp_path / "none.csv")


@pytest.mark.parametrize("name", [RUNS, CURVES])
@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"[1]\n")[:-4]], ids=["text", "cut"])
def test_a_damaged_archive_becomes_a_note_on_the_page(
    name: str, content: bytes, tmp_path: Path
) -> None:
    shutil.copy(STUDY / "runs.csv", tmp_path)
    (tmp_path / name).write_bytes(content)
    assert any(f"{name}: is damaged" in note for note in read_inputs(tmp_path).notes)


def test_without_an_archive_there_is_nothing_to_read(tmp_path: Path) -> None:
    assert read_results(tmp_path) == {}
    assert read_curves(tmp_path) == {}


def test_mistakes_are_named_and_nothing_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "has no runs.csv" in capsys.readouterr().err
    assert main(["--restore", str(tmp_path), str(tmp_path / "out")]) == 2
    assert f"has no {RUNS}" in capsys.readouterr().err
    assert main(["--restore", str(STUDY), str(tmp_path)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main([str(STUDY), str(STUDY)]) == 2
    assert "is the study itself" in capsys.readouterr().err
    assert main([str(STUDY)]) == 2
    assert not list(tmp_path.iterdir())


def test_a_run_whose_name_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    shutil.copytree(STUDY, tmp_path / "bad")
    line = json.dumps({"name": "../../out", "config": "", "result": {}})
    (tmp_path / "bad" / RUNS).write_bytes(gzip.compress(line.encode()))
    with pytest.raises(ValueError, match="is no name of a run"):
        restore(tmp_path / "bad", tmp_path / "restored")
    assert not (tmp_path / "out").exists()
