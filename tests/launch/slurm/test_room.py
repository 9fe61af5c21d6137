"""Runs that the queue has no room for wait and follow; sbatch is a small stand-in with a limit.

tests/slurm/test_accounting.py has the real one.
"""

import os
from pathlib import Path

import pytest

from launch.local.process import Job
from launch.slurm import commands, room
from launch.slurm.commands import NoRoomError, max_array, parse_settings
from launch.slurm.room import Submission
from launch.slurm_config import TimeLimitPolicy

from ..plans import make_cluster, make_job

# Takes arrays while there is room: a number in a file.
SBATCH = """#!/bin/bash
[ "$1" = --version ] && { echo slurm 23.11.4; exit; }
last=$(sed -n 's/^#SBATCH --array=0-//p' "${!#}"); count=$(( ${last:-0} + 1 ))
left=$(( $(cat {folder}/room) - count ))
echo "$count $left" >> {folder}/calls
if [ $left -lt 0 ]; then
  printf 'sbatch: error: {says}\\nsbatch: error: Batch job submission failed: {ends}\\n' >&2; exit 1
fi
echo $left > {folder}/room; wc -l < {folder}/calls
"""
LIMIT = ("QOSMaxSubmitJobPerUserLimit", "Job violates accounting/QOS policy (job submit limit)")
FULL = ("Slurm temporarily unable to accept job, sleeping and retrying", "Resource temporarily")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put stand-ins of SLURM's commands first in PATH; return the folder of their state."""
    stand_in(tmp_path, *LIMIT)
    for name in ("squeue", "scontrol"):
        (tmp_path / name).write_text("#!/bin/bash\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(room, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("launch.slurm.submit.snapshot", lambda root: root / "code")  # seconds each
    return tmp_path


def stand_in(folder: Path, says: str, ends: str) -> None:
    """Write the stand-in of sbatch."""
    text = SBATCH.replace("{folder}", str(folder)).replace("{says}", says).replace("{ends}", ends)
    (folder / "sbatch").write_text(text)
    (folder / "sbatch").chmod(0o755)


def jobs_in(root: Path, count: int) -> list[Job]:
    """Return jobs, the first of which costs most."""
    return [make_job(root / "runs" / f"run-{i}", cost=float(count - i)) for i in range(count)]


def test_what_fits_goes_first_and_the_rest_follows(folder: Path) -> None:
    (folder / "room").write_text("5")
    submission = Submission("x", jobs_in(folder, 12), make_cluster())
    assert [found.name for found in submission.advance()] == [f"run-{i}" for i in range(5)]
    assert "7 runs wait for room" in submission.describe()
    assert "QOSMaxSubmitJobPerUserLimit" in submission.describe()
    # Nothing is left of what was refused.
    made = list(folder.glob("runs/.slurm/ks-*"))
    assert made
    assert all((path / "job.json").exists() for path in made)
    assert len(list(folder.glob("runs/*/submission.json"))) == 5
    (folder / "calls").unlink()
    assert submission.advance() == []
    assert (folder / "calls").read_text() == "1 -1\n"  # one run is tried, not seven
    (folder / "room").write_text("100")
    names = [[found.name for found in submission.advance()] for _ in range(3)]
    assert names == [["run-5"], ["run-6", "run-7"], ["run-8", "run-9", "run-10", "run-11"]]
    assert submission.describe() == ""


def test_a_full_controller_is_not_asked_for_less(folder: Path) -> None:
    stand_in(folder, *FULL)
    (folder / "room").write_text("0")
    submission = Submission("x", jobs_in(folder, 8), make_cluster())
    assert submission.advance() == []
    assert (folder / "calls").read_text() == "8 -8\n"
    assert list(folder.glob("runs/*/submission.json")) == []


def test_a_chain_that_gets_fewer_links_says_so(folder: Path) -> None:
    (folder / "room").write_text("2")
    cluster = make_cluster(on_time_limit=TimeLimitPolicy.chain, chain_length=3)
    (found,) = Submission("x", jobs_in(folder, 1), cluster).advance()
    assert found.fresh
    assert "2 of 3 links of its chain" in found.note


def test_other_refusals_are_errors(folder: Path) -> None:
    stand_in(folder, "invalid partition specified: x", "Invalid partition name specified")
    (folder / "room").write_text("0")
    with pytest.raises(commands.SlurmError, match="Invalid partition") as error:
        Submission("x", jobs_in(folder, 2), make_cluster()).advance()
    assert not isinstance(error.value, NoRoomError)


@pytest.mark.parametrize(
    ("lines", "most"),
    [
        ("MaxArraySize            = 2001", 2001),
        ("MaxArraySize = 9\nSchedulerParameters = a,max_array_tasks=5,b=1", 5),
        ("MaxArraySize = 0", 1),
        ("", 1001),
    ],
)
def test_the_longest_array_is_what_the_controller_says(lines: str, most: int) -> None:
    assert max_array(parse_settings(lines)) == most
