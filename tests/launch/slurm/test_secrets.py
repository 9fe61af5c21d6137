"""No key reaches an artifact: a run is submitted and supervised for real, and everything searched.

SLURM's commands are small stand-ins here, so that this runs everywhere; tests/slurm has the real
ones. The supervisor, the script and the files are the real ones.
"""

import json
import os
import re
from pathlib import Path

import pytest

from launch.config import ClusterConfig, compose_cluster
from launch.dispatch import run_on
from launch.slurm.commands import QueueEntry
from launch.slurm.snapshot import describe_code
from launch.slurm.submit import submit_jobs

from ..local.test_run import make_job
from ..plans import make_cluster

SECRETS = {
    "WANDB_API_KEY": "planted-wandb-0123456789abcdef",
    "HF_TOKEN": "planted-hf-0123456789abcdef",
    "OPENAI_API_KEY": "planted-openai-0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-0123456789abcdef",
    "PGPASSWORD": "planted-pg-0123456789abcdef",
}
# sbatch runs the script at once, with what it hands over: all that it has.
SBATCH = """#!/bin/bash
[ "$1" = --version ] && { echo slurm 23.11.4; exit; }
env > "$RECORD/sbatch-environment"
grep -qx '#SBATCH --export=ALL' "${!#}" || exit 1
env SLURM_JOB_ID=7 SLURM_NTASKS=1 SLURM_NTASKS_PER_NODE=1 \\
  SLURM_JOB_NODELIST=n1 SLURMD_NODENAME=localhost bash "${!#}" >"$RECORD/job-output" 2>&1
echo 7
"""
SRUN = """#!/bin/bash
while [ "${1#--}" != "$1" ]; do shift; done
export SLURM_PROCID=0 SLURM_LOCALID=0
exec "$@"
"""
OTHERS = {
    "squeue": "#!/bin/bash\n",
    "scontrol": "#!/bin/bash\necho JobId=7 JobState=RUNNING SubmitTime=2026-01-01T00:00:00\n",
}
PROGRAM = """
import os, pathlib
pathlib.Path('{run_dir}/names').write_text(' '.join(sorted(os.environ)))
print('training')
pathlib.Path('{run_dir}/result.json').write_text('{{}}')
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put stand-ins of SLURM's commands first in PATH; return the folder they record to."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, **OTHERS}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    record = tmp_path / "record"
    record.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(record))
    # The stand-in of sbatch needs to know where to record, as the real one needs no such thing.
    monkeypatch.setattr("launch.slurm.render._ENVIRONMENT", ("PATH", "HOME", "RECORD"))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return record


def planted(root: Path) -> list[str]:
    """Return the files under a folder that hold a planted value."""
    wanted = re.compile("|".join(SECRETS.values()).encode())
    return [str(p) for p in root.rglob("*") if p.is_file() and wanted.search(p.read_bytes())]


@pytest.mark.heavy
def test_no_artifact_of_a_submitted_run_holds_a_key(commands: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "runs", "run", PROGRAM)
    cluster = make_cluster(pass_env=["WANDB_API_KEY"])
    (submitted,) = submit_jobs("study", [job], cluster)
    assert submitted.job == "7"
    assert job.done_marker.exists(), (job.run_dir / "log.txt").read_text()
    assert "done after" in (job.run_dir / "log.txt").read_text()
    assert planted(tmp_path / "runs") == []
    assert planted(tmp_path / "runs" / ".slurm") == []
    # The variable that was named arrives, the others do not even reach sbatch.
    assert "WANDB_API_KEY" in (job.run_dir / "names").read_text().split()
    assert "HF_TOKEN" not in (job.run_dir / "names").read_text().split()
    given = (commands / "sbatch-environment").read_text()
    assert SECRETS["WANDB_API_KEY"] in given
    assert not any(SECRETS[name] in given for name in SECRETS if name != "WANDB_API_KEY")


@pytest.mark.heavy
def test_a_config_that_holds_a_key_is_not_submitted(commands: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "runs", "run", PROGRAM)
    (job.run_dir / "config.yaml").write_text(f"note: {SECRETS['HF_TOKEN']}\n")
    with pytest.raises(ValueError, match=r"holds the value of \$HF_TOKEN") as error:
        submit_jobs("study", [job], make_cluster())
    assert SECRETS["HF_TOKEN"] not in str(error.value)
    assert not (commands / "sbatch-environment").exists()


def test_a_config_that_holds_a_key_is_not_run_here_either(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    job = make_job(tmp_path / "runs", "run", PROGRAM)
    (job.run_dir / "config.yaml").write_text(f"note: {SECRETS['HF_TOKEN']}\n")
    with pytest.raises(ValueError, match=r"config.yaml: holds the value of \$HF_TOKEN"):
        run_on(ClusterConfig(), "study", [job])
    assert {path.name for path in job.run_dir.iterdir()} == {"config.yaml", "program.py"}


def test_a_cluster_with_a_key_is_not_composed_whatever_its_kind() -> None:
    words = ["cluster.slurm.env=['DATA=https://me:planted@host/']"]
    with pytest.raises(ValueError, match=r"cluster\.slurm\.env\[0\]: holds a key") as error:
        compose_cluster(words)
    assert "planted" not in str(error.value)
    cluster = compose_cluster(["cluster.slurm.env=['TOKENIZERS_PARALLELISM=false']"])
    assert cluster.slurm.env == ["TOKENIZERS_PARALLELISM=false"]


def test_keys_are_blanked_out_of_the_diff(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = {"rev-parse": "abc", "diff": f"+a = '{SECRETS['HF_TOKEN']}'\n+b = 'https://m:p@h/'\n"}
    monkeypatch.setattr("launch.slurm.snapshot._git", lambda folder, *words: answers[words[0]])
    about, diff = describe_code(tmp_path, SECRETS)
    assert about["dirty"]
    assert diff == "+a = '<HF_TOKEN>'\n+b = 'https://***@h/'\n"


@pytest.mark.heavy
def test_a_second_submission_of_a_finished_run_calls_nothing(
    commands: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "runs", "run", PROGRAM)
    submit_jobs("study", [job], make_cluster())
    (commands / "sbatch-environment").unlink()
    (again,) = submit_jobs("study", [job], make_cluster())
    assert (again.job, again.fresh) == ("", False)
    assert not (commands / "sbatch-environment").exists()


@pytest.mark.heavy
def test_a_lost_answer_is_asked_for_and_not_submitted_twice(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path / "runs", "run", PROGRAM)
    script = tmp_path / "bin" / "sbatch"
    script.write_text(
        '#!/bin/bash\n[ "$1" = --version ] && { echo slurm 23.11.4; exit; }\n'
        'echo called >> "$RECORD/calls"\necho "sbatch: error: timed out" >&2\nexit 1\n'
    )
    names: list[str] = []

    def queue(asked: tuple[str, ...] = (), tries: int = 5) -> list[QueueEntry]:
        names.extend(asked)
        return [QueueEntry("41", 0, "PENDING", name, "", "Priority") for name in asked]

    monkeypatch.setattr("launch.slurm.commands.queue", queue)
    (submitted,) = submit_jobs("study", [job], make_cluster())
    assert submitted.job == "41"
    assert (commands / "calls").read_text() == "called\n"
    about = json.loads((job.run_dir / "submission.json").read_text())
    assert names == [about["job_name"]]
