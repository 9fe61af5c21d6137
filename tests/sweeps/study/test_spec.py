"""Runs of a study, before they are runs: what makes one differ, and the job that trains it."""

import json
from pathlib import Path

import pytest

from launch.local.run import Status, run_jobs
from sweeps.study.spec import Spec, train_job
from tests.trainer.encode.test_encode import write_clips
from trainer.kinds import compose_any

BASE = ["experiment=vae_smoke", "components=0", "steps=1", "validation.splits=[val]"]


@pytest.mark.heavy
def test_a_study_composes_and_trains_settings_of_a_compression_network(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "clips")
    fixed = [*BASE, f"data.root={clips}", f"run_root={tmp_path / 'runs'}"]
    specs = [Spec(f"kl{kl}", "grid", 0.0, [f"loss.kl={kl}"]) for kl in ("1e-3", "1e-2")]
    jobs = [
        train_job(compose_any([*fixed, *spec.overrides, f"name={spec.name}"]), spec.name, 1.0)
        for spec in specs
    ]
    assert len({job.run_dir for job in jobs}) == 2
    (outcome,) = run_jobs(jobs[1:], slots=1)
    assert outcome.status is Status.done
    result = json.loads(jobs[1].done_marker.read_text())
    assert result["status"] == "finished"
    assert result["validation"]["val"]["vae"]["psnr"] > 0
