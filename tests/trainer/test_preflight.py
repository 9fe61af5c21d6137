"""Preflight: what is looked at before a run starts, and what every start refuses."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from data import notices
from data.checks import Check, Verdict
from data.dataset.shards import read_index
from launch.local.process import Job
from launch.local.run import Status, run_jobs
from trainer import train
from trainer.compose import freeze_as
from trainer.config import RunConfig, compose_run, load_run
from trainer.diffusion.horizon import plan_horizon
from trainer.identity import identity
from trainer.kinds import compose_any, folder_of, start_command
from trainer.preflight import (
    find_missing,
    look,
    one_step,
    splits_of,
    try_step,
    variables_read,
)


def smoke(latents: Path, root: Path, *overrides: str) -> RunConfig:
    fixed = ["experiment=cpu_smoke", f"data.root={latents}", f"run_root={root}"]
    return compose_run([*fixed, *overrides])


def bad(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if check.is_bad]


def test_a_missing_validation_split_is_refused_before_anything_is_written(
    latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["experiment=cpu_smoke", f"data.root={latents}", f"run_root={tmp_path / 'runs'}"]
    assert train.main([*words, "validation.splits=[val_law]"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"error: validation.splits=val_law: {latents} has no such split. "
        "It has train, val_real, val_worlds: choose of these.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
def test_what_a_run_lacks_is_named_by_its_key(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "abcdefgh12345")
    (tmp_path / "file").write_text("")
    below = f"run_root={tmp_path}/file/runs"
    large = ("model.width=6144", "model.depth=48", "model.head_dim=96")
    for overrides, at_once, in_all in (
        ((), [], []),
        (("data.train_split=law",), ["data.train_split=law"], ["split=law"]),
        (("data.root=none",), ["data.root=none"], []),
        ((below,), [below], []),
        (large, ["disk"], []),
        (("data.pack_tokens=100",), [], ["data.pack_tokens=100"]),
        (("horizon.flops=1", "horizon.tokens=0", "horizon.steps=0"), [], ["horizon"]),
        (("log.group=abcdefgh12345",), [], ["log.group"]),
    ):
        run = smoke(latents, tmp_path, *overrides)
        assert bad(find_missing(run)) == at_once
        found = [name.split("=HorizonConfig")[0] for name in bad(look(run))]
        assert sorted(found) == sorted([*at_once, *in_all])


def test_passes_over_the_data_are_counted(latents: Path, tmp_path: Path) -> None:
    run = smoke(latents, tmp_path, "horizon.flops=0", "horizon.steps=40")
    (found,) = [check for check in look(run) if check.name == "tokens"]
    infos = read_index(latents, "train")
    frames, height, width = run.cell
    total = sum(
        (1 + -(-(i.num_frames - 1) // frames)) * -(-i.height // height) * -(-i.width // width)
        for i in infos
    )
    passes = 40 * plan_horizon(run, infos).step_tokens / total
    assert found.verdict is Verdict.warning
    assert f" {passes:.2g} passes over {total:,}" in found.found
    assert found.size == pytest.approx(passes)
    many = smoke(latents, tmp_path, "horizon.flops=0", "horizon.steps=4000")
    (found,) = [check for check in look(many) if check.name == "tokens"]
    assert f" {100 * passes:,.0f} passes over" in found.found


def test_an_alert_that_would_reach_nobody_is_told_by_a_check_and_stops_no_start(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = smoke(latents, tmp_path, "log.alerts.webhook=KINESCALE_WEBHOOK")
    monkeypatch.delenv("KINESCALE_WEBHOOK", raising=False)
    (found,) = [check for check in look(run) if "alerts" in check.name]
    assert (found.name, found.verdict) == (
        "log.alerts.webhook=KINESCALE_WEBHOOK", Verdict.warning,
    )  # fmt: skip
    assert not [check for check in find_missing(run) if "alerts" in check.name]
    monkeypatch.setenv("KINESCALE_WEBHOOK", "https://chat.lab.org/hook")
    (found,) = [check for check in look(run) if "alerts" in check.name]
    assert found.verdict is Verdict.good
    online = smoke(latents, tmp_path, "log.wandb=online", "log.alerts.webhook=KINESCALE_WEBHOOK")
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert variables_read(online) == ["KINESCALE_WEBHOOK", "WANDB_API_KEY"]
    assert variables_read(run) == ["KINESCALE_WEBHOOK"]


def test_a_key_of_wandb_is_looked_for_where_wandb_looks(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = smoke(latents, tmp_path, "log.wandb=online")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)

    def verdict() -> tuple[str, str]:
        (found,) = [check for check in find_missing(run) if check.name == "W&B"]
        return found.verdict.value, found.found

    assert verdict() == ("warning", "online, and there is no key")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert verdict() == ("good", "online, with a key")
    monkeypatch.setenv("WANDB_MODE", "on")
    assert verdict() == ("warning", "WANDB_MODE=on is no mode")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert verdict() == ("good", "offline")


@pytest.mark.parametrize("name", ["vae_tiny", "perceptual_tiny", "captioner_tiny"])
def test_runs_of_small_networks_are_looked_at_too(name: str, latents: Path, tmp_path: Path) -> None:
    run = compose_any([f"experiment={name}", f"data.root={latents}", f"run_root={tmp_path}"])
    assert {"train", "val_worlds"} <= {split for _, _, split in splits_of(run)}
    assert bad(look(run)) == []
    assert one_step(run, "elsewhere").steps == 1
    empty = replace(run, data=replace(run.data, root=str(tmp_path)))
    assert bad(find_missing(empty))[0].endswith("=train")


@pytest.mark.heavy
def test_one_step_is_tried_and_leaves_nothing(latents: Path, tmp_path: Path) -> None:
    runs = tmp_path / "my rüns"
    words = ["experiment=cpu_smoke", f"data.root={latents}", f"run_root={runs}", "--json"]
    command = [sys.executable, "-m", "kinescale", "train", "check=true", *words]
    env = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    found = json.loads(done.stdout)
    assert (done.returncode, found["go"]) == (0, True)
    assert found["checks"][-1] == {
        "name": "one step", "verdict": "good", "found": "trained, saved and validated (smoke)",
        "remedy": "",
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
def test_one_step_finds_what_no_index_tells(
    latents: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(notices, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(notices, "NEXT_SECONDS", 1000.0)
    broken = tmp_path / "broken"
    shutil.copytree(latents, broken)
    (shard,) = (broken / "val_real").glob("*.tar")
    content = bytearray(shard.read_bytes())
    content[700:] = bytes(len(content) - 700)
    shard.write_bytes(content)
    run = smoke(broken, tmp_path / "runs")
    assert bad(look(run)) == []
    found = try_step(run)
    assert found.is_bad
    assert "val_real" in found.found
    assert capfd.readouterr() == ("", "trying one step, its start included: 0 s so far\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]


@pytest.mark.dist
def test_what_a_user_must_mend_is_not_tried_again_by_several_processes(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun makes status 1 of a rank's 2."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    more = ["parallel.processes=2", "data.packs_per_step=2", "validation.splits=[val_law]"]
    run = smoke(latents, tmp_path, *more)
    folder = folder_of(run)
    freeze_as(run, folder, load_run, identity)
    command = start_command(run, folder)
    job = Job("run", folder, command, 2, 1.0, folder / "result.json")
    (outcome,) = run_jobs([job], 2, retries=3)
    assert (outcome.status, outcome.attempts, outcome.returncode) == (Status.failed, 1, 1)
    assert outcome.reason.startswith("validation.splits=val_law: ")
