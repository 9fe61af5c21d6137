"""One run end to end on one process: golden steps, bitwise resume, bad input."""

import csv
import json
from pathlib import Path

import pytest
import torch

from trainer.checkpoint.write import load_latest
from trainer.config import RunConfig, compose_run
from trainer.diffusion.attempt import train_run
from trainer.diffusion.encoding import check_encoding
from trainer.identity import freeze
from trainer.run.metrics import MEASURED, read_metrics

from .conftest import read_json


def smoke(latents: Path, *overrides: str) -> RunConfig:
    """Compose the smoke run on the tiny data set."""
    fixed = ["experiment=cpu_smoke", f"data.root={latents}", "log.wandb=disabled"]
    return compose_run([*fixed, *overrides])


def train(run: RunConfig, folder: Path, stop_after: int | None = None) -> bool:
    """Train in this process; stop as a signal would, after some polls of the flag."""
    freeze(run, folder)
    polls = iter(range(10**9))
    return train_run(run, folder, lambda: stop_after is not None and next(polls) >= stop_after)


@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:torch.jit.*:DeprecationWarning")
@pytest.mark.usefixtures("group")
class TestRun:
    """Tests that train."""

    def test_three_golden_steps_do_not_move(self, latents: Path, tmp_path: Path) -> None:
        assert train(smoke(latents, "horizon.steps=3"), tmp_path)
        records = read_metrics(tmp_path / "metrics.jsonl")
        losses = [r["train_loss"] for r in records if "train_loss" in r]
        assert losses == pytest.approx(GOLDEN, rel=1e-5)
        assert read_json(tmp_path / "result.json")["loss"] == pytest.approx(GOLDEN_LOSS, rel=1e-5)

    @pytest.mark.heavy
    def test_resume_is_bitwise(self, latents: Path, tmp_path: Path) -> None:
        run = smoke(latents, "horizon.steps=8")
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        assert train(run, whole)
        assert not train(run, broken, stop_after=2)
        assert not train(run, broken, stop_after=2)
        assert train(run, broken)
        a, b = load_latest(whole / "checkpoints"), load_latest(broken / "checkpoints")
        assert a is not None
        assert b is not None
        assert a.index["files"] == b.index["files"]  # checksums of all tensors
        assert a.state["loader"] == b.state["loader"]
        first, second = (
            [{k: v for k, v in r.items() if k not in MEASURED} for r in read_metrics(f)]
            for f in (whole / "metrics.jsonl", broken / "metrics.jsonl")
        )
        assert first == second
        assert read_json(broken / "result.json")["attempts"] == 3

    @pytest.mark.heavy
    def test_a_row_says_speed_memory_and_goodput_of_now(
        self, latents: Path, tmp_path: Path
    ) -> None:
        run = smoke(latents, "horizon.steps=4", "log.every=1", "log.device_teraflops=1e-3")
        assert not train(run, tmp_path, stop_after=2)
        assert train(run, tmp_path)
        rows = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "train_loss" in r]
        assert [r["step"] for r in rows] == [1, 2, 3, 4]
        nothing = {"seconds": 0.0, "tokens": 0, "flops": 0}
        for before, row in zip([nothing, *rows[:-1]], rows, strict=True):
            passed = row["seconds"] - before["seconds"]
            assert row["step_seconds"] == pytest.approx(passed, abs=2e-3)
            tokens, flops = (row[k] - before[k] for k in ("tokens", "flops"))
            assert row["tokens_per_second"] * row["step_seconds"] == pytest.approx(tokens, rel=1e-4)
            assert row["flops_per_second"] * row["step_seconds"] == pytest.approx(flops, rel=1e-4)
            assert row["mfu"] == pytest.approx(row["flops_per_second"] / 1e9, rel=1e-4)
            assert 0 < row["goodput"] < 1
            assert 50e6 < row["memory_bytes"] < 1e11

    def test_result_says_what_was_done(self, latents: Path, tmp_path: Path) -> None:
        run = smoke(latents)
        assert train(run, tmp_path)
        result = read_json(tmp_path / "result.json")
        assert result["steps"] == 6
        assert result["flops"] == pytest.approx(result["flops_6nd"], rel=0.5)
        assert 0 < result["padding_share"] < 0.04
        assert result["loss_noise"] < result["loss"]
        assert 0 < result["real_token_share"] < 1
        schedule = result["schedule"]
        records = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "lr" in r]
        assert records[-1]["step"] == 6
        assert schedule["last_lr"] == pytest.approx(records[-1]["lr"])
        assert schedule["last_lr"] < result["lr"]
        assert (schedule["warmup"], schedule["decay"]) == (run.optim.warmup, run.optim.decay)
        for validation in result["validation"].values():
            groups = validation["groups"]
            errors, values = (sum(group[key] for group in groups) for key in ("errors", "values"))
            assert errors / values == pytest.approx(validation["loss"], rel=1e-12)
            assert {group["world"] for group in groups} == {"blobs"}
        accounting = result["accounting"]
        assert accounting["tokens"] == result["tokens"]
        assert accounting["dropped"] == []
        with (tmp_path / "curve.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert float(rows[-1]["loss"]) == pytest.approx(result["loss"])

    @pytest.mark.heavy
    def test_the_horizon_in_flops_is_met(self, latents: Path, tmp_path: Path) -> None:
        run = smoke(latents, "horizon.steps=0", "horizon.flops=1.5e10")
        assert train(run, tmp_path)
        assert read_json(tmp_path / "result.json")["flops"] == pytest.approx(1.5e10, rel=0.03)

    @pytest.mark.heavy
    def test_learning_happens(self, latents: Path, tmp_path: Path) -> None:
        losses = {}
        for steps in (1, 80):
            folder = tmp_path / str(steps)
            assert train(smoke(latents, f"horizon.steps={steps}"), folder)
            losses[steps] = read_json(folder / "result.json")["loss"]
        assert losses[80] < 0.8
        assert losses[80] < 0.7 * losses[1]

    def test_a_finished_run_with_another_config_is_refused(
        self, latents: Path, tmp_path: Path
    ) -> None:
        freeze(smoke(latents), tmp_path)
        with pytest.raises(ValueError, match="another experiment"):
            freeze(smoke(latents, "optim.lr=1e-4"), tmp_path)


GOLDEN = [1.4173385072613962, 1.2880635127561066, 1.4064783619055499]
GOLDEN_LOSS = 0.9017561291867605  # of the validation


def test_initial_weights_depend_on_the_seed_alone() -> None:
    from models.config import ModelConfig
    from models.dit.model import DiT
    from trainer.diffusion.loop import _init_generator

    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed + 7)
        model = DiT(ModelConfig())
        model.reset_parameters(_init_generator(seed))
        models.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_latents_of_another_text_encoder_are_refused(latents: Path, tmp_path: Path) -> None:
    manifest = read_json(latents / "manifest.json")
    root = tmp_path / "encoded"
    root.mkdir()
    made_by = {"text": {"kind": "minilm", "width": 384, "max_tokens": 48, "path": ""}}
    (root / "manifest.json").write_text(json.dumps(manifest | made_by))
    with pytest.raises(ValueError, match=r"text\.kind=bytes: must equal minilm"):
        check_encoding(smoke(root))
    check_encoding(smoke(latents))
