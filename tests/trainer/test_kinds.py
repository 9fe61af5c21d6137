"""What a run is stands in its config: every kind composes, freezes, loads and trains by it."""

import copy
import os
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from trainer import compose
from trainer.compose import CONF_DIR, freeze_as
from trainer.config import RunConfig, RunKind, compose_run, load_run
from trainer.identity import run_name
from trainer.kinds import (
    KINDS,
    AnyRun,
    compose_any,
    folder_of,
    freeze_any,
    kind_in,
    kind_of,
    load_any,
    processes_of,
    start_command,
)
from trainer.train import main
from trainer.vae.config import VaeRun

SHIPPED = {
    "cpu_demo": RunKind.diffusion,
    "cpu_smoke": RunKind.diffusion,
    "gpu_video": RunKind.diffusion,
    "tiny_tasks": RunKind.diffusion,
    "vae_tiny": RunKind.codec,
    "vae_smoke": RunKind.codec,
    "vae_4x8x8x16": RunKind.codec,
    "perceptual_tiny": RunKind.perceptual,
    "captioner_tiny": RunKind.captioner,
}
NO_HORIZON = ("cpu_demo", "gpu_video", "tiny_tasks")
ONE_OF_EACH = ["cpu_smoke", "vae_smoke", "perceptual_tiny", "captioner_tiny"]
# Computed before runs had a kind: the folders of these runs lie on people's disks.
NAMES = {
    "smoke-ad10eba95d": ["experiment=cpu_smoke"],
    "demo-bf49d73449": ["experiment=cpu_demo", "horizon.flops=1e11"],
    "demo-a510dbeb97": [
        "experiment=cpu_demo", "horizon.steps=9", "data.mixture=[{root: a/b, weight: 1.0}]",
    ],
    "demo-f664b0f58b": [
        "experiment=cpu_demo", "horizon.steps=100", "branch.run=runs/x", "branch.step=50",
    ],
    "video-13ef6a84fe": ["experiment=gpu_video", "horizon.tokens=1e9"],
    "run-1a527aef48": ["model=w96d4", "horizon.steps=5", "seed=3"],
    "vae-tiny-735f702fe2": ["experiment=vae_tiny"],
    "vae-4x8x8x16-e43e05b4fe": ["experiment=vae_4x8x8x16", "seed=2"],
    "vae-smoke-8f0c1d31c4": ["experiment=vae_smoke"],
    "perceptual-tiny-0c260aef55": ["experiment=perceptual_tiny"],
    "captioner-tiny-1f31aead25": ["experiment=captioner_tiny"],
}  # fmt: skip


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the folder of values, which the composer reads instead."""
    copy = tmp_path / "conf"
    shutil.copytree(CONF_DIR, copy)
    monkeypatch.setattr(compose, "CONF_DIR", copy)
    return copy


@cache
def composed_once(experiment: str, *more: str) -> AnyRun:
    """Compose an experiment; those without a length get one. Nobody may change what it returns."""
    horizon = ["horizon.steps=1"] if experiment in NO_HORIZON else []
    return compose_any([f"experiment={experiment}", *horizon, *more])


def composed(experiment: str, *more: str, **changes: str) -> AnyRun:
    """Return a copy of a composed experiment with other values; composing takes 0.1 s."""
    return replace(copy.deepcopy(composed_once(experiment, *more)), **changes)


@pytest.mark.heavy
def test_every_shipped_experiment_says_its_kind() -> None:
    there = {path.stem for path in (CONF_DIR / "experiment").glob("*.yaml")}
    assert there == set(SHIPPED)
    for name in there:
        assert OmegaConf.load(CONF_DIR / "experiment" / f"{name}.yaml").kind == SHIPPED[name]
        run = composed(name)
        assert run.kind is SHIPPED[name]
        assert isinstance(run, KINDS[run.kind].schema)


@pytest.mark.parametrize("name", NAMES)
def test_the_names_of_runs_are_those_of_before_they_had_a_kind(name: str) -> None:
    run = compose_any(NAMES[name])
    assert folder_of(run).name == name
    if isinstance(run, RunConfig):
        assert run_name(run) == name


@pytest.mark.parametrize("experiment", ONE_OF_EACH)
def test_every_kind_is_frozen_loaded_and_started_as_it_was(experiment: str, tmp_path: Path) -> None:
    run = composed(experiment, run_root=str(tmp_path))
    folder = freeze_any(run)
    assert folder == folder_of(run)
    assert kind_in(folder) is SHIPPED[experiment]
    assert load_any(folder) == run
    assert freeze_any(run) == folder  # the same experiment may be frozen again
    assert processes_of(run) == 1
    assert start_command(run, folder)[-3:] == ["trainer.train", "--run", str(folder)]


@pytest.mark.parametrize("experiment", ONE_OF_EACH)
def test_a_folder_of_another_experiment_is_refused(experiment: str, tmp_path: Path) -> None:
    run, other = composed(experiment), composed(experiment, "seed=5")
    kind = KINDS[run.kind]
    freeze_as(run, tmp_path, kind.load, kind.identity)
    with pytest.raises(ValueError, match=r"holds another experiment\. Choose another"):
        freeze_as(other, tmp_path, kind.load, kind.identity)


@pytest.mark.parametrize("experiment", ONE_OF_EACH)
def test_a_run_that_holds_a_key_is_not_frozen(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted-0123456789abcdef")
    for root in ("s3://me:planted@bucket/set", "sets/planted-0123456789abcdef"):
        run = composed(experiment, f"data.root={root}", run_root=str(tmp_path))
        with pytest.raises(ValueError, match=r"data\.root: holds .*must never be written") as error:
            freeze_any(run)
        assert "planted" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_frozen_is_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = freeze_any(composed("cpu_smoke", run_root=str(tmp_path)))
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "config.yaml")] == [
        0o750, 0o640,
    ]  # fmt: skip


def test_a_printed_config_holds_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "experiment=cpu_smoke", "data.root=s3://me:planted@bucket/set"]) == 0
    said = capsys.readouterr().out
    assert "root: s3://***@bucket/set" in said
    assert "planted" not in said


@pytest.mark.heavy
@pytest.mark.parametrize("experiment", ONE_OF_EACH)
def test_a_run_frozen_before_runs_had_a_kind_still_loads(experiment: str, tmp_path: Path) -> None:
    run = composed(experiment, run_root=str(tmp_path))
    path = freeze_any(run) / "config.yaml"
    said = f"kind: {SHIPPED[experiment]}\n"
    assert said in path.read_text()
    path.write_text(path.read_text().replace(said, ""))
    assert kind_in(path.parent) is SHIPPED[experiment]
    assert load_any(path.parent) == run
    assert freeze_any(run) == path.parent


def test_an_experiment_may_have_any_name(conf: Path) -> None:
    folder = conf / "experiment"
    shutil.copy(folder / "cpu_demo.yaml", folder / "vae_ablation.yaml")
    shutil.copy(folder / "vae_tiny.yaml", folder / "mine.yaml")
    (folder / "longer.yaml").write_text(
        "# @package _global_\ndefaults: [mine, _self_]\nsteps: 9000\n"
    )
    assert isinstance(compose_any(["experiment=vae_ablation", "horizon.steps=1"]), RunConfig)
    assert isinstance(compose_any(["experiment=mine"]), VaeRun)
    longer = compose_any(["experiment=longer"])
    assert isinstance(longer, VaeRun)
    assert longer.steps == 9000


def test_the_kind_is_what_the_command_line_or_the_experiment_says(conf: Path) -> None:
    (conf / "experiment" / "silent.yaml").write_text("# @package _global_\nseed: 3\n")
    assert kind_of([]) is RunKind.diffusion
    assert kind_of(["experiment=silent"]) is RunKind.diffusion
    assert kind_of(["kind=codec", "experiment=silent"]) is RunKind.codec
    assert compose_any(["kind=codec", "experiment=silent"]).seed == 3
    assert kind_of(["+experiment='vae_tiny'"]) is RunKind.codec
    assert kind_of(["experiment=nowhere"]) is RunKind.diffusion  # and composing refuses it


def test_a_kind_that_there_is_not_or_that_another_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kind=vae: must be one of diffusion, codec, perc.*Leave"):
        compose_any(["kind=vae"])
    with pytest.raises(ValueError, match=r"kind=codec: experiment=captioner_tiny is of kind=capt"):
        compose_any(["kind=codec", "experiment=captioner_tiny"])
    with pytest.raises(ValueError, match=r"kind=codec: must be diffusion here\. Leave it out"):
        compose_run(["kind=codec", "horizon.steps=1"])
    with pytest.raises(ValueError, match=r"kind=captioner: must be diffusion here\. Leave it out"):
        compose_run(["experiment=captioner_tiny", "horizon.steps=1"])
    folder = freeze_any(composed("vae_smoke", run_root=str(tmp_path)))
    with pytest.raises(ValueError, match=r"kind=codec: must be diffusion here\. .*give such a run"):
        load_run(folder)


@pytest.mark.parametrize("text", ["{", "- 1\n"])
def test_a_frozen_config_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config.yaml: .*Restore it"):
        kind_in(tmp_path)


@pytest.mark.parametrize("experiment", SHIPPED)
def test_cfg_prints_the_composed_run_of_every_kind(
    experiment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    horizon = ["horizon.steps=1"] if experiment in NO_HORIZON else []
    assert main(["--cfg", f"experiment={experiment}", *horizon]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"kind: {SHIPPED[experiment]}\n")
    assert OmegaConf.create(printed).name
