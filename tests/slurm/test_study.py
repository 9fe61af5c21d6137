"""A whole study, and the doctor's probe, through the command lines people type."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launch import doctor

from ..trainer.encode.test_encode import write_clips
from .cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
SITE = ["cluster=slurm", "cluster.poll_seconds=0.5", "cluster.slurm.processes_per_node=1"]


def test_a_study_runs_through_the_queue_unchanged(
    idle: Cluster, latents: Path, tmp_path: Path
) -> None:
    base = f'base=["experiment=cpu_smoke","log.wandb=disabled","data.root={latents}"]'
    words = ["study=smoke", f"root={tmp_path}", base, "samples.prompts=0", "resamples=20", *SITE]
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.run", *words, "cluster.slurm.array_throttle=2"],
        cwd=ROOT, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = list((tmp_path / "smoke" / "runs").glob("*/result.json"))
    assert len(results) == 5
    scripts = (tmp_path / "smoke" / "runs" / ".slurm").glob("ks-*/plan.json")
    assert sorted(len(json.loads(p.read_text())["tasks"]) for p in scripts) == [1, 4]
    assert (tmp_path / "smoke" / "law.json").exists()


def test_a_study_of_codecs_is_one_array_of_the_queue(idle: Cluster, tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "clips")
    base = ["experiment=vae_smoke", f"data.root={clips}", "validation.splits=[val]", "components=0"]
    words = ["study=cpu_codec", f"root={tmp_path}", f"base={json.dumps(base)}", *SITE]
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.run", *words, "lengths.steps=[2]", "seeds=[0]"],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "cpu_codec" / "runs").glob("*/codec/weights.safetensors"))) == 2
    (plan,) = (tmp_path / "cpu_codec" / "runs" / ".slurm").glob("ks-*/plan.json")
    assert len(json.loads(plan.read_text())["tasks"]) == 2


def test_the_doctor_probes_every_node(idle: Cluster, tmp_path: Path, capsys) -> None:
    words = ["nodes=2", f"folder={tmp_path}", "seconds=600", "slow=0.9", "--json"]
    code = doctor.main([*SITE, *words])
    found = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in found["checks"]}
    assert "2 on 2 nodes: cpu" in checks["devices"]["found"]
    assert "GB/s (bus)" in checks["network"]["found"]
    assert code == (1 if found["exclude"] else 0)
    assert checks["nodes"]["found"] == "4 of 4 up"
