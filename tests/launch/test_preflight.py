"""launch.submit check=true: runs and their cluster before anything is submitted."""

import json
from pathlib import Path

import pytest

from data.checks import Verdict
from launch.config import ClusterConfig, ClusterKind
from launch.preflight import look_at_runs, warn_of_gpus, warn_of_kept_back
from launch.slurm_config import SlurmConfig
from launch.submit import main
from tests.trainer.conftest import write_latents
from trainer.config import RunConfig, compose_run


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_latents(tmp_path_factory.mktemp("blobs"))


def smoke(latents: Path, root: Path, *overrides: str) -> RunConfig:
    fixed = ["experiment=cpu_smoke", f"data.root={latents}", f"run_root={root}"]
    return compose_run([*fixed, *overrides])


@pytest.mark.parametrize(
    ("slurm", "warned"),
    [
        ({"partition": "gpu"}, True),
        ({"partition": "a100-long"}, True),
        ({"partition": "H100"}, True),
        ({"partition": "gpu", "gpus_per_node": 8}, False),
        ({"partition": "gpu", "options": ["gres=gpu:h100:8"]}, False),
        ({"partition": "batch100"}, False),
        ({"partition": ""}, False),
    ],
)
def test_a_partition_of_gpus_of_which_none_is_asked_for_is_warned_of(slurm, warned) -> None:
    cluster = ClusterConfig(kind=ClusterKind.slurm, slurm=SlurmConfig(**slurm))
    assert bool(list(warn_of_gpus(cluster))) == warned
    assert not list(warn_of_gpus(ClusterConfig(slurm=SlurmConfig(**slurm))))


def test_of_many_runs_the_largest_is_told_and_what_the_others_lack(
    latents: Path, tmp_path: Path
) -> None:
    runs = [
        smoke(latents, tmp_path, "name=small", "model.width=32"),
        smoke(latents, tmp_path, "name=odd", "model.width=32", "data.pack_tokens=100"),
        smoke(latents, tmp_path, "name=large", "model.width=64"),
    ]
    found = look_at_runs(runs, ClusterConfig())
    assert [check.title for check in found if check.is_bad] == ["data.pack_tokens=100 (odd)"]
    assert sum(check.name == "data" for check in found) == 1
    assert found[-1].name == "disk of all"  # no step is tried where something is missing
    assert "3 runs keep" in found[-1].found


def test_what_holds_of_all_runs_is_told_once_and_of_some_by_name(
    latents: Path, tmp_path: Path
) -> None:
    lacks = ["horizon.flops=0", "validation.splits=[val_law]"]  # no step is tried then
    runs = [
        smoke(latents, tmp_path, f"name=run{steps}", f"horizon.steps={steps}", *lacks)
        for steps in (1, 900, 2000)
    ]
    found = look_at_runs(runs, ClusterConfig())
    assert [check.title for check in found if check.is_bad] == ["validation.splits=val_law"]
    told = [check for check in found if check.verdict is Verdict.warning]
    assert {check.name for check in told} == {"tokens"}
    assert sorted(check.of for check in told) == ["run2000", "run900"]
    assert max(told, key=lambda check: check.size).of == "run2000"


def test_a_key_that_a_job_would_not_get_is_told(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = smoke(latents, tmp_path, "log.alerts.webhook=KINESCALE_WEBHOOK")
    other = SlurmConfig(pass_env=["WANDB_API_KEY"])
    (found,) = warn_of_kept_back(run, ClusterConfig(kind=ClusterKind.slurm, slurm=other))
    assert found.verdict.value == "warning"
    assert found.remedy == "Use cluster.slurm.pass_env=[WANDB_API_KEY,KINESCALE_WEBHOOK]."
    passed = SlurmConfig(pass_env=["KINESCALE_WEBHOOK"])
    assert not list(warn_of_kept_back(run, ClusterConfig(kind=ClusterKind.slurm, slurm=passed)))
    assert not list(warn_of_kept_back(run, ClusterConfig()))
    # A study's check has it, too, once for all of its runs.
    monkeypatch.setenv("PATH", str(tmp_path))
    runs = [run, smoke(latents, tmp_path, "log.alerts.webhook=KINESCALE_WEBHOOK", "name=b")]
    told = look_at_runs(runs, ClusterConfig(kind=ClusterKind.slurm, slurm=other))
    assert [check.title for check in told].count("cluster.slurm.pass_env=[WANDB_API_KEY]") == 1


def test_a_submission_says_what_its_jobs_would_not_get(
    latents: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no sbatch
    words = [f"data.root={latents}", f"run_root={tmp_path}/runs", "experiment=cpu_smoke"]
    alert = "log.alerts.webhook=KINESCALE_WEBHOOK"
    hint = "Use cluster.slurm.pass_env=[KINESCALE_WEBHOOK]."
    assert main(["cluster=slurm", "dry=true", *words, alert]) == 0  # reads no run's folder
    assert hint not in capsys.readouterr().err
    assert main(["cluster=slurm", *words, alert]) == 2
    assert capsys.readouterr().err.count(hint) == 1
    assert main(["cluster=slurm", *words]) == 2
    assert hint not in capsys.readouterr().err


def test_a_queue_that_does_not_answer_and_a_key_that_is_not_set_are_told(
    latents: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    words = [f"data.root={latents}", f"run_root={tmp_path / 'runs'}", "experiment=cpu_smoke"]
    about = ["cluster=slurm", "cluster.slurm.pass_env=[WANDB_API_KEY]"]
    assert main(["check=true", "--json", *about, *words]) == 2
    found = json.loads(capsys.readouterr().out)
    assert not found["go"]
    bad = [check["name"] for check in found["checks"] if check["verdict"] == "bad"]
    assert bad == ["cluster.kind=slurm", "cluster.slurm.pass_env=WANDB_API_KEY"]
    assert not (tmp_path / "runs").exists()


def test_a_submission_that_could_not_run_is_refused(latents: Path, tmp_path: Path, capsys) -> None:
    words = [f"data.root={latents}", f"run_root={tmp_path / 'runs'}", "experiment=cpu_smoke"]
    assert main([*words, "validation.splits=[val_law]"]) == 2
    assert "validation.splits=val_law: " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
