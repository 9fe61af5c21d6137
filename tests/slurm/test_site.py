"""What a site decides, on a real scheduler: variables, arrays, room in the queue, prologues."""

import json
import re
import sys
from pathlib import Path

import pytest

from launch.container_config import ContainerConfig, ContainerKind
from launch.dispatch import run_on
from launch.local.run import Status
from launch.run_folder.records import read_launches
from launch.slurm import commands
from launch.slurm.commands import SlurmError
from launch.slurm.render import render
from launch.slurm.submit import submit_jobs
from launch.slurm_config import GpuOption
from launch.status import read_states

from ..launch.slurm.test_policies import plan_of
from .cluster import Cluster, wait_until
from .programs import COUNTER, SHORT, make_job, site

pytestmark = pytest.mark.slurm
SECONDS = 240.0
# Writes the names and values of its variables.
ENVIRONMENT = """
import json, os, pathlib
folder = pathlib.Path({folder!r})
(folder / 'env').write_text(json.dumps(dict(os.environ)))
(folder / 'result.json').write_text('{{}}')
"""
COMMENT = 'it\'s "a" #b \\ c $(touch pwned) JobState=FAILED; %j ü'


def test_a_job_has_the_variables_it_was_given_and_none_of_a_login(
    idle: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "HF_TOKEN": "planted", "MY_KEY": "a b'\n\"c", "SBATCH_TIMELIMIT": "77",
        "SBATCH_EXPORT": "NONE", "SBATCH_GET_USER_ENV": "1", "SQUEUE_STATES": "FAILED",
        "SQUEUE_PARTITION": "spot",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    job = make_job(tmp_path, "run", ENVIRONMENT)
    cluster = site(pass_env=["MY_KEY"], comment=COMMENT)
    (submitted,) = submit_jobs("run", [job], cluster)
    told = idle("scontrol", "show", "job", submitted.job, "-o")
    wait_until(job.done_marker.exists, SECONDS)
    assert f" Comment={COMMENT} " in told
    assert "TimeLimit=01:17:00" in told
    found = json.loads((job.run_dir / "env").read_text())
    assert found["MY_KEY"] == "a b'\n\"c"
    # What SLURM adds, what bash adds, what the launcher sets.
    known = re.compile(
        "(SLURM|SBATCH|SRUN|MASTER|KINESCALE|PYTHON|PMI|OMP|MKL|OPENBLAS)_?.*|RANK|(LOCAL_)?RANK|"
        "(LOCAL_)?WORLD_SIZE|ENVIRONMENT|HOSTNAME|TMPDIR|SHLVL|PWD|OLDPWD|_|LC_CTYPE|"
        "HOME|PATH|USER|LOGNAME|LANG|LD_LIBRARY_PATH|MODULES?(HOME|PATH)|MY_KEY"
    )
    assert [name for name in found if not known.fullmatch(name)] == []
    # A person's defaults hide no job: what is in the queue is not submitted again.
    waits = make_job(tmp_path, "waits", SHORT, seconds=0.0)
    (first,), (again,) = (submit_jobs("x", [waits], site("shut")) for _ in range(2))
    assert (first.job, first.fresh, again.fresh) == (again.job, True, False)


def test_arrays_are_as_long_as_the_controller_allows(idle: Cluster, tmp_path: Path) -> None:
    jobs = [make_job(tmp_path, f"run-{i:02d}", SHORT, seconds=0.0) for i in range(10)]
    idle.change("MaxArraySize", "4")
    try:
        assert commands.site().max_array == 4
        found = run_on(site(), "x", jobs)
    finally:
        idle.change("MaxArraySize", "2001")
    assert {outcome.status for outcome in found} == {Status.done}
    scripts = [path.read_text() for path in (tmp_path / ".slurm").glob("ks-*/job.sh")]
    arrays = sorted(line for text in scripts for line in text.splitlines() if "--array" in line)
    assert arrays == ["#SBATCH --array=0-1", "#SBATCH --array=0-3", "#SBATCH --array=0-3"]


def test_a_prologue_that_fails_says_why_in_the_runs_folder(idle: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "site.sh"
    file.write_text("echo fine\ncd /no/such/scratch\n")
    jobs = [make_job(tmp_path, f"run-{i}", SHORT, seconds=0.0) for i in range(2)]
    found = run_on(site(prologue=str(file)), "x", jobs)
    for outcome, job in zip(found, jobs, strict=True):
        assert outcome.status is Status.failed
        assert "line 2 of site.sh: cd /no/such/scratch: " in outcome.reason
        assert "/no/such/scratch: No such file or directory" in outcome.reason
        (job.run_dir / "config.yaml").touch()
        assert "No such file or directory" in (job.run_dir / "log.txt").read_text()
        assert [record["event"] for record in read_launches(job.run_dir)] == ["end"]
    states = read_states([tmp_path], 0.0)
    assert [state.state for state in states] == ["failed", "failed"]
    assert all("line 2 of site.sh: cd /no/such/scratch" in state.reason for state in states)


# Takes what apptainer takes, and hands over what it would set in the container.
APPTAINER = """#!/bin/bash
printf '%s\\n' "$@" > {record}.$SLURM_PROCID
while [ "${{1%.sif}}" = "$1" ]; do shift; done; shift
for name in ${{!APPTAINERENV_*}}; do export "${{name#APPTAINERENV_}}=${{!name}}"; done
exec "$@"
"""


def test_ranks_start_inside_apptainer_with_the_variables_of_the_job(
    idle: Cluster, tmp_path: Path
) -> None:
    record = tmp_path / "asked"
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(APPTAINER.format(record=record))
    program.chmod(0o755)
    file = tmp_path / "site.sh"
    file.write_text(f"export PATH={program.parent}:$PATH\n")
    container = ContainerConfig(
        f"{tmp_path}/an image.sif", [f"{tmp_path}:{tmp_path}"], python=sys.executable,
        kind=ContainerKind.apptainer,
    )  # fmt: skip
    job = make_job(tmp_path, "run", ENVIRONMENT, processes=2)
    value = "a b'\"$(c)"
    cluster = site(container=container, prologue=str(file), env=[f"MY_VALUE={value}"])
    (found,) = run_on(cluster, "x", [job])
    assert found.status is Status.done, (job.run_dir / "log.txt").read_text()
    asked = Path(f"{record}.1").read_text().splitlines()
    assert asked[:2] == ["exec", f"--pwd={Path.cwd()}"]
    assert asked[2:4] == [f"--bind={tmp_path}:{tmp_path}", f"{tmp_path}/an image.sif"]
    variables = json.loads((job.run_dir / "env").read_text())
    assert variables["MY_VALUE"] == variables["APPTAINERENV_MY_VALUE"] == value
    assert {"APPTAINERENV_MASTER_ADDR", "APPTAINERENV_PYTHONPATH"} < variables.keys()


def test_a_run_takes_typed_gpus_and_a_site_without_them_says_so(
    idle: Cluster, tmp_path: Path
) -> None:
    job = make_job(tmp_path, "run", SHORT, processes=2, seconds=0.0)
    for option in GpuOption:
        job.done_marker.unlink(missing_ok=True)
        cluster = site(gpus="h100:4", processes_per_node=2, gpu_option=option)
        (submitted,) = submit_jobs("run", [job], cluster)
        assert "gpu:h100:2" in idle("scontrol", "show", "job", submitted.job, "-o")
        wait_until(job.done_marker.exists, SECONDS)
    with pytest.raises(SlurmError, match="node configuration is not available"):
        submit_jobs("x", [make_job(tmp_path, "none", SHORT, seconds=0.0)], site(gpus="a100:1"))


def test_sbatch_would_take_the_plain_policy_of_the_page(idle: Cluster, tmp_path: Path) -> None:
    plan = plan_of("Plain", tmp_path, 2)
    script = tmp_path / "job.sh"
    script.write_text(render(plan))
    assert commands.run(["sbatch", "--test-only", str(script)], tries=1) == ""
    wrong = tmp_path / "wrong.sh"
    wrong.write_text(render(plan).replace("h100", "a100"))
    with pytest.raises(SlurmError, match="node configuration is not available"):
        commands.run(["sbatch", "--test-only", str(wrong)], tries=1)


def test_status_says_why_runs_wait_and_which_ones_wait_for_a_person(
    idle: Cluster, tmp_path: Path
) -> None:
    jobs = [make_job(tmp_path, f"run-{i}", COUNTER, total=2000) for i in range(2)]
    for job in jobs:
        (job.run_dir / "config.yaml").write_text("name: run\n")
    first, _ = submit_jobs("x", jobs, site(array_throttle=1))
    wait_until((jobs[0].run_dir / "ready").exists, SECONDS)

    def told() -> list[tuple[str, str]]:
        return [(state.state, state.reason) for state in read_states([tmp_path], 0.0)]

    throttle = "JobArrayTaskLimit: as many runs of its array run as array_throttle allows"
    wait_until(lambda: told() == [("running", ""), ("waiting", throttle)], SECONDS)
    idle("scontrol", "requeuehold", first.job)
    held = "job requeued in held state: its node could not start it, or somebody queued it so"
    wait_until(lambda: told()[0] == ("held", f"{held}; scontrol release JOB"), SECONDS)
