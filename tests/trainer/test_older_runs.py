"""A run that code of 2026-11-27 began goes on under today's: names, config, checkpoint, losses."""

import shutil
from pathlib import Path

import pytest

from data.loading.loader import index_digest
from data.loading.mixture import read_mixture
from trainer.checkpoint.files import seal, unseal
from trainer.config import compose_run, load_run
from trainer.diffusion.attempt import train_run
from trainer.identity import freeze, run_name
from trainer.run.metrics import read_metrics

from .conftest import read_json, write_latents

OLDER = Path(__file__).parent / "older_run"  # stopped after step 4 of 8, at commit 8696d8e
# What that code made of the same data and the rest of the steps.
LOSS = 0.843006915619553
NAMES = {"cpu_smoke": "smoke-004146f12f", "cpu_demo": "demo-aa7b975125"}


@pytest.mark.parametrize("experiment", NAMES)
def test_an_experiment_keeps_its_name(experiment: str) -> None:
    run = compose_run([f"experiment={experiment}", "horizon.steps=100"])
    assert run_name(run) == NAMES[experiment]


def test_a_run_in_bf16_is_another_one_and_does_not_resume_in_fp32(tmp_path: Path) -> None:
    common = ["experiment=cpu_smoke", "horizon.steps=100", "parallel.zero_stage=1"]
    fp32, bf16 = (compose_run([*common, f"parallel.precision={p}"]) for p in ("fp32", "bf16"))
    assert run_name(fp32) == NAMES["cpu_smoke"] != run_name(bf16)
    freeze(fp32, tmp_path)
    with pytest.raises(ValueError, match="holds another experiment"):
        freeze(bf16, tmp_path)


def test_a_frozen_run_keeps_its_name() -> None:
    assert run_name(load_run(OLDER)) == "smoke-017153c83a"


def vouch_for_dataset(folder: Path) -> None:
    """Say in the checkpoint that it was taken on the data set at hand.

    Another processor rounds the same formulas another way: the plan is the same, the digest is not.
    """
    index = folder / "checkpoints/step-00000004/index.json"
    content = unseal(index.read_text())
    infos = read_mixture(load_run(folder).data, "train").infos
    content["state"]["loader"]["dataset"] = index_digest(infos)
    index.write_text(seal(content))


@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:torch.jit.*:DeprecationWarning")
@pytest.mark.usefixtures("group")
def test_a_checkpoint_of_older_code_goes_on_to_the_same_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_latents(tmp_path / "datasets/blobs")
    folder = shutil.copytree(OLDER, tmp_path / "run")
    vouch_for_dataset(folder)
    assert train_run(load_run(folder), folder, lambda: False)
    result = read_json(folder / "result.json")
    assert result["loss"] == pytest.approx(LOSS, rel=1e-6)
    assert result["steps"] == 8
    # The run went on from step 4: a start from nothing would end at the same loss.
    begun = read_metrics(OLDER / "metrics.jsonl")
    assert begun
    assert read_metrics(folder / "metrics.jsonl")[: len(begun)] == begun
