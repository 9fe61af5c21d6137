"""A dry submission shows what would start and leaves nothing behind."""

from pathlib import Path

import pytest

from launch.submit import main

RUN = ["experiment=cpu_demo", "horizon.steps=3"]


def test_a_dry_submission_prints_the_script_and_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["cluster=slurm", "dry=true", "run_root=made/runs", *RUN]) == 0
    assert "#SBATCH" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_here_prints_the_command_and_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dry=true", "run_root=made/runs", *RUN]) == 0
    assert " -m trainer.train --run made/runs/" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_makes_no_sense_is_refused_before_the_queue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["cluster=slurm", *RUN, "data.packs_per_step=0"]) == 2
    assert "data.packs_per_step=0: must be at least 1. Use 1." in capsys.readouterr().err
    assert main(["cluster=slurm", *RUN, "cluster.slurm.minutes=-1"]) == 2
    assert "cluster.slurm.minutes=-1: must be at least 0. Use 0." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
