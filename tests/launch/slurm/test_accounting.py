"""What accounting remembers: sacct's lines, words for how a job ended, and whose job it was."""

from pathlib import Path

import pytest

from data.files import write_json
from launch.run_folder.records import append_launch
from launch.run_folder.runs import RunFolder
from launch.slurm import accounting, watch
from launch.slurm.accounting import PastJob, parse_past, past_jobs
from launch.slurm.commands import SlurmError
from launch.state import state_of

from ..plans import make_job

ANSWER = """\
7|COMPLETED|0:0|n1
8_0|FAILED|1:0|n[1-2]
8_1|NODE_FAIL|0:0|n2
8_2|RUNNING|0:0|n3
8_[3-9]|PENDING|0:0|None assigned
9|CANCELLED by 1000|0:15|n1
10|FAILED|0:53|n4
11|OUT_OF_MEMORY|0:125|n1
a line that is none
12|FAILED||n1
"""


def test_only_jobs_that_ended_are_read() -> None:
    found = parse_past(ANSWER)
    assert sorted(found) == ["10", "11", "7", "8_0", "8_1", "9"]
    assert found["8_0"] == PastJob("8_0", "FAILED", 1, 0, "n[1-2]")


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("8_0", "exit status 1 on n[1-2], says SLURM (FAILED)"),
        ("8_1", "its node failed on n2, says SLURM (NODE_FAIL)"),
        ("9", "it was cancelled with scancel on n1, says SLURM (CANCELLED)"),
        ("10", "its node could not open its folder or its log (signal 53) on n4, says SLURM "
         "(FAILED)"),
        ("11", "it took more memory than it had asked for on n1, says SLURM (OUT_OF_MEMORY)"),
    ],
)  # fmt: skip
def test_how_a_job_ended_is_said_in_words(job: str, words: str) -> None:
    assert parse_past(ANSWER)[job].describe() == words


def submitted(root: Path, name: str, ids: list[str], index: int) -> Path:
    """Write the folder of a run that was submitted, and of its submission."""
    folder = root / name
    folder.mkdir()
    (folder / "config.yaml").write_text("name: run\n")
    submission = root / f"submission-{name}"
    submission.mkdir()
    write_json(submission / "job.json", {"ids": ids, "job_name": "ks-x"})
    about = {"job_name": "ks-x", "index": index, "folder": str(submission)}
    write_json(folder / "submission.json", about)
    return folder


def test_runs_get_the_last_of_their_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = submitted(tmp_path, "one", ["7", "9"], 0), submitted(tmp_path, "two", ["8"], 1)
    never = submitted(tmp_path, "never", [], 0)
    asked: list[list[str]] = []

    def answer(argv: list[str], tries: int) -> str:
        asked.append(argv)
        return ANSWER

    monkeypatch.setattr(accounting, "run", answer)
    monkeypatch.setattr(accounting.shutil, "which", lambda name: f"/usr/bin/{name}")
    found = past_jobs([one, two, never])
    assert found is not None
    assert {path.name: job.job for path, job in found.items()} == {"one": "9", "two": "8_1"}
    assert "--jobs=7,8,9" in asked[0]


def test_a_watcher_is_told_how_a_run_left_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = submitted(tmp_path, "one", ["10"], 0)
    job = make_job(run_dir)
    (tmp_path / "submission-one" / "10.out").write_text("slurmstepd: error: no space\n")
    monkeypatch.setattr(accounting, "run", lambda argv, tries: ANSWER)
    monkeypatch.setattr(accounting.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "started: its node could not open its folder" in watch._failed(job).reason
    append_launch(run_dir, "start", processes=1)
    assert "while it ran: its node could not open" in watch._failed(job).reason
    monkeypatch.setattr(accounting.shutil, "which", lambda name: None)
    assert watch._failed(job).reason.endswith("while it ran: cancelled, or its node was lost")
    (run_dir / "launches.jsonl").unlink()
    assert watch._failed(job).reason.endswith("started: slurmstepd: error: no space")


def test_without_accounting_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = submitted(tmp_path, "one", ["7"], 0)

    def refuse(argv: list[str], tries: int) -> str:
        raise SlurmError("sacct: Slurm accounting storage is disabled")

    monkeypatch.setattr(accounting, "run", refuse)
    monkeypatch.setattr(accounting.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert past_jobs([one]) is None
    monkeypatch.setattr(accounting.shutil, "which", lambda name: None)
    assert past_jobs([one]) is None
    assert past_jobs([]) is None


def test_accounting_speaks_where_the_folder_is_silent(tmp_path: Path) -> None:
    past = parse_past(ANSWER)
    run = RunFolder("one", submitted(tmp_path, "one", ["10"], 0))
    assert state_of(run, []).state == "new"
    state = state_of(run, [], past=past["10"])
    assert (state.state, state.job, state.nodes) == ("failed", "10", "n4")
    assert "could not open its folder" in state.reason
    assert state_of(run, [], past=past["9"]).state == "cancelled"
    append_launch(run.path, "start", processes=1)
    assert "its node failed on n2" in state_of(run, [], past=past["8_1"]).reason
    write_json(run.path / "stalled.json", {"summary": "rank 1 on n2 does not move"})
    assert state_of(run, [], past=past["8_1"]).reason == "rank 1 on n2 does not move"
    (run.path / "stalled.json").unlink()
    append_launch(run.path, "end", reason="exit status 3 of rank 0")
    assert state_of(run, [], past=past["8_0"]).reason == "exit status 3 of rank 0"


def test_ids_that_are_no_numbers_are_not_asked_for(tmp_path: Path) -> None:
    run = submitted(tmp_path, "one", ["10", "²", "1" * 5000, "-1"], 0)
    assert accounting.ids_of(run) == ["10", "10_0"]
