"""The composer: every YAML composes, every error says what is allowed, names do not drift."""

import dataclasses
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from data.dataset.shards import write_manifest
from tests.conftest import child_seconds
from trainer.compose import CONF_DIR
from trainer.config import RunConfig, RunKind, compose_run, load_run
from trainer.identity import freeze, identity, run_name
from trainer.kinds import compose_any, kind_of
from trainer.train import main

FILES = sorted(p.relative_to(CONF_DIR) for p in CONF_DIR.rglob("*.yaml"))
NEED_A_FOLDER = ("codec=vae", "codec=diffusers")
GROUPS = [file for file in FILES if file.parent != Path()]


@pytest.mark.parametrize("file", GROUPS, ids=str)
def test_every_yaml_composes(file: Path) -> None:
    choice = f"{file.parent}={file.stem}"
    if kind_of([choice]) is not RunKind.diffusion:
        assert compose_any([choice]).kind is kind_of([choice])
        return
    if choice in NEED_A_FOLDER:
        with pytest.raises(ValueError, match=r"codec.path=: .* needs a folder. Set codec.path"):
            compose_run([choice, "horizon.steps=1"])
        return
    horizon = [] if "horizon:" in (CONF_DIR / file).read_text() else ["horizon.steps=1"]
    run = compose_run([choice, *horizon])
    assert isinstance(run, RunConfig)


def test_every_yaml_of_the_run_itself_is_known() -> None:
    found = {str(file) for file in FILES if file.parent == Path()}
    assert found == {"run.yaml", "vae.yaml", "perceptual.yaml", "captioner.yaml"}


ERRORS = {
    "bad=1": r"^bad: unknown key\. .*Allowed: branch, checkpoint, codec, .*validation\.$",
    "+bad=1": r"^bad: unknown key\. .*Allowed: branch, checkpoint, codec",
    "horizon.flop=1": r"^horizon.flop: unknown key\. .*Allowed: flops, steps, tokens\.$",
    "+horizon.flop=1": r"^horizon.flop: unknown key\. .*Allowed: flops, steps, tokens\.$",
    "model=huge": r"^model=huge: unknown choice\. .*Allowed: w128d5, .*w96d4\.$",
    "experiment=none": r"^experiment=none: unknown choice\. .*Allowed: .*cpu_smoke",
    "optim=adam": r"^optim: holds keys, not a value\. Allowed: optim.beta1, .*\.$",
    "optim.lr=fast": r"^optim.lr: Value 'fast' .*could not be converted to Float\.$",
    "parallel.precision=fp8": r"^parallel.precision: Invalid value 'fp8', .*\[fp32, bf16\]\.$",
    "log.wandb=yes": r"^log.wandb: Invalid value .*\[disabled, offline, online\]",
    "horizon.steps": r"^horizon.steps: cannot be read. Write key=value",
    "optim.lr=0": r"^optim.lr=0: must be above 0\. Use 0.005\.$",
    "optim.warmup=0.9": r"^optim.warmup\+decay=1.2: must be at most 1\. Use",
    "objective.caption_dropout=2": r"^objective.caption_dropout=2: must be at most 1\. Use 0.1",
    "horizon.tokens=5": r"^horizon.flops,tokens,steps=\[0.0, 5.0, 1\]: exactly one must",
    "parallel.zero_stage=4": r"^parallel.zero_stage=4: must be at most 3\. Use 0\.$",
    "parallel.processes=2": r"^data.packs_per_step=1: must be divisible by .*=2\. Use 2\.$",
    "parallel.tp=3": r"^parallel.processes=1: must be a multiple of tp x cp x pp = 3\. Use 3\.$",
    "parallel.tp=0": r"^parallel.tp=0: must be at least 1\. Use 1\.$",
    "parallel.offload=true": r"^parallel.offload=true: ZeRO 0 has .*Use parallel.zero",
    "faults.spike_factor=1": r"^faults.spike_factor=1: must be above 1\. Use 3\.$",
    "faults.stall_seconds=1": r"^faults.stall_seconds=1: must be 0 or more than twice",
    "parallel.precision=bf16": r"^parallel.precision=bf16: ZeRO 0 .* Use parallel.zero_stage=1",
    "parallel.device=tpu": r"^parallel.device=tpu: must be one of .*Use auto",
    "model.text_width=8": r"^model.text_width=8: must equal text.width=384\. Use 384\.$",
    "model.values_per_token=20": r"^model.spread=.*: must hold values_per_token / 4 = 5 positive",
    "model.width=72": r"^model.width=72: must be a multiple of model.head_dim=16\. Use 64\.$",
    "seed=-1": r"^seed=-1: must be at least 0\. Use 0\.$",
    "log.every=0": r"^log.every=0: must be at least 1",
    "validation.times=0": r"^validation.times=0: must be at least 1",
    "validation.splits=[]": r"^validation.splits=\[\]: must hold at least 1 value\. Use \[val_w",
}


@pytest.mark.heavy
@pytest.mark.parametrize("override", ERRORS)
def test_a_wrong_key_or_value_says_what_is_allowed(override: str) -> None:
    with pytest.raises(ValueError, match=ERRORS[override]) as caught:
        compose_run(["horizon.steps=1", override])
    assert "\n" not in str(caught.value)


SENSELESS = {
    "optim.beta2=2": "optim.beta2=2: must be below 1. Use 0.98.",
    "optim.lr=inf": "optim.lr=inf: must be finite. Use 0.005.",
    "optim.lr=nan": "optim.lr=nan: must be a number. Use 0.005.",
    "optim.clip=-1": "optim.clip=-1: must be at least 0. Use 1.",
    "optim.warmup=-0.1": "optim.warmup=-0.1: must be at least 0. Use 0.05.",
    "checkpoint.keep=0": "checkpoint.keep=0: must be at least 1. Use 2.",
    "checkpoint.seconds=-1": "checkpoint.seconds=-1: must be at least 0. Use 60.",
    "validation.samples=0": "validation.samples=0: must be at least 1. Use 96.",
    "validation.curve_points=-3": "validation.curve_points=-3: must be at least 0. Use 5.",
    "faults.max_skips=-5": "faults.max_skips=-5: must be at least 0. Use 10.",
    "data.packs_per_step=0": "data.packs_per_step=0: must be at least 1. Use 1.",
    "data.pack_tokens=-5": "data.pack_tokens=-5: must be at least 1. Use 1024.",
    "objective.shift_tokens=0": "objective.shift_tokens=0: must be above 0. Use 512.",
    "model.mlp_ratio=0": "model.mlp_ratio=0: must be at least 1. Use 4.",
}


@pytest.mark.heavy
@pytest.mark.parametrize("override", SENSELESS)
def test_a_value_that_makes_no_sense_does_not_compose(override: str) -> None:
    with pytest.raises(ValueError) as caught:  # the whole message is compared below
        compose_run(["horizon.steps=1", override])
    assert str(caught.value) == SENSELESS[override]


def test_a_frozen_run_with_a_value_out_of_bounds_is_refused(tmp_path: Path) -> None:
    freeze(compose_run(["horizon.steps=1"]), tmp_path)
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("beta2: 0.98", "beta2: 2.0"))
    with pytest.raises(ValueError, match=r"optim\.beta2=2: must be below 1\. Use 0\.98\."):
        load_run(tmp_path)


def test_no_horizon_is_refused() -> None:
    with pytest.raises(ValueError, match=r"exactly one must be positive\. Set for example horizon"):
        compose_run([])


def test_layout_paths_and_logs_do_not_change_the_experiment() -> None:
    run = compose_run(["horizon.steps=5", "data.packs_per_step=4", "data.root=a/demo/latents"])
    moved = compose_run(
        [
            "horizon.steps=5",
            "data.packs_per_step=4",
            "data.root=/elsewhere/demo/latents",
            "data.decode_workers=3",
            "parallel.processes=2",
            "parallel.zero_stage=2",
            "parallel.overlap_comm=true",
            "parallel.attention=loop",
            "parallel.device=cpu",
            "run_root=/elsewhere",
            "checkpoint.seconds=1",
            "log.every=3",
            "log.wandb=disabled",
        ]
    )
    assert identity(run) == identity(moved)
    assert run_name(run) == run_name(moved)


def test_products_in_float8_are_another_experiment_and_scattered_gradients_are_not() -> None:
    half = ["horizon.steps=5", "parallel.precision=bf16", "parallel.zero_stage=1"]
    plain, narrow, scattered, kernel = (
        compose_run([*half, f"parallel.{word}"])
        for word in ("tp=1", "products=float8", "reduce_scatter=true", "attention=varlen")
    )
    assert identity(narrow) == identity(plain) | {"products": "float8"}
    assert run_name(narrow) != run_name(plain)
    assert run_name(scattered) == run_name(kernel) == run_name(plain)


CHANGES = [
    "seed=1", "model=w32d2", "optim.lr=1e-3", "horizon.steps=6", "objective.shift_tokens=64",
    "data.pack_tokens=2048", "data.packs_per_step=2", "data.pool=8", "validation.samples=5",
    "codec.mean=[0,0,0,0,0,1]", "text.max_tokens=4", "data.root=other/clips",
]  # fmt: skip


@pytest.mark.heavy
def test_what_defines_the_experiment_changes_its_name() -> None:
    names = [run_name(compose_run(["horizon.steps=5", *[c][: c != ""]])) for c in ("", *CHANGES)]
    assert len(set(names)) == len(names)


def test_the_name_of_a_run_is_stable_and_readable() -> None:
    first, second = (compose_run(["horizon.steps=5", "name=pilot"]) for _ in range(2))
    assert run_name(first) == run_name(second)
    assert run_name(first).startswith("pilot-")
    json.dumps(identity(first))  # plain values only


def test_a_frozen_run_is_loaded_as_it_was(tmp_path: Path) -> None:
    run = compose_run(["experiment=cpu_smoke", "optim.lr=1e-3", "log.tags=[a,b]"])
    freeze(run, tmp_path)
    assert dataclasses.asdict(load_run(tmp_path)) == dataclasses.asdict(run)
    freeze(run, tmp_path)  # the same experiment may be frozen again


def test_a_frozen_run_with_a_foreign_key_is_refused(tmp_path: Path) -> None:
    freeze(compose_run(["horizon.steps=1"]), tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("  lr:", "  rate:"))
    with pytest.raises(
        ValueError,
        match=r"config.yaml: optim.rate: unknown key\. .*Allowed: beta1",
    ):
        load_run(tmp_path)


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config.yaml. Give a run folder"):
        load_run(tmp_path)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run kinescale train and list the heavy modules it imported."""
    code = (
        "import runpy, sys\n"
        "try:\n"
        "    runpy.run_module('trainer.train', run_name='__main__', alter_sys=True)\n"
        "finally:\n"
        "    names = {'torch', 'deepspeed', 'megatron', 'wandb', 'transformers'}\n"
        "    heavy = names & set(sys.modules)\n"
        "    print('imported:', sorted(heavy))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_help_is_quick_and_imports_no_torch() -> None:
    before = child_seconds()
    done = command("--help")
    assert child_seconds() - before < 3
    assert done.returncode == 0, done.stderr
    assert "imported: []" in done.stdout
    assert "usage: kinescale train" in done.stdout
    assert "experiment=" in done.stdout
    assert "w64d2" in done.stdout


def test_a_wrong_key_on_the_command_line_exits_2_with_one_message() -> None:
    done = command("bad=1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: bad: unknown key. Allowed: branch, checkpoint")
    assert len(done.stderr.splitlines()) == 1
    assert "imported: []" in done.stdout


def test_keys_prints_every_key_with_type_default_bounds_and_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--keys"]) == 0
    text = capsys.readouterr().out
    assert "\n\noptim: An optimizer with warm-up" in text
    entry = (
        "    optim.lr=0.005  (float: above 0)\n        Peak learning rate at model.base_width.\n"
    )
    assert entry in text
    assert "    data.mixture[N].weight=1  (float: above 0)\n" in text
    assert main(["--keys", "codec"]) == 0
    assert "    vae.channels=8  (int: from 1 to 24)\n" in capsys.readouterr().out
    assert main(["--keys", "dit"]) == 2
    assert (
        "--keys dit: must be one of diffusion, codec, perceptual, captioner"
        in capsys.readouterr().err
    )


ARCHIVE = Path(__file__).parents[2] / "docs/studies/cpu_isoflop/runs.jsonl.gz"


def test_runs_that_were_frozen_before_still_load(tmp_path: Path) -> None:
    """Every tenth run of a published study, as it was frozen."""
    rows = gzip.decompress(ARCHIVE.read_bytes()).decode().splitlines()[::10]
    for row in map(json.loads, rows):
        (tmp_path / "config.yaml").write_text(row["config"], encoding="utf-8")
        assert load_run(tmp_path).name == row["name"].rpartition("-")[0]
    assert len(rows) > 5


IN_LOG_SNR = "objective.density=[{mean: 0, width: 2, scale: log_snr}]"


def test_a_density_in_log_snr_is_stated_against_the_spread_that_encoding_measured(
    tmp_path: Path,
) -> None:
    write_manifest(tmp_path, {"name": "x", "latent_statistics": {"mean": [0.0], "std": [0.3, 0.4]}})
    words = ["experiment=cpu_smoke", "horizon.steps=1", f"data.root={tmp_path}"]
    run = compose_run([*words, IN_LOG_SNR])
    assert run.objective.spread == pytest.approx(0.125**0.5)
    given = compose_run([*words, IN_LOG_SNR, "objective.spread=0.5"])
    assert given.objective.spread == 0.5
    plain = compose_run([*words, "objective.density=[{mean: 1, width: 1.5}]"])
    assert plain.objective.spread == 0  # nothing is stated against it


def test_without_a_manifest_the_spread_is_the_codecs_and_stays_what_it_was(tmp_path: Path) -> None:
    root = tmp_path / "later"
    run = compose_run(["experiment=cpu_smoke", "horizon.steps=1", f"data.root={root}", IN_LOG_SNR])
    expected = (sum(s * s for s in run.codec.spread) / len(run.codec.spread)) ** 0.5
    assert run.objective.spread == pytest.approx(expected)
    freeze(run, tmp_path / "run")
    root.mkdir()
    write_manifest(root, {"name": "x", "latent_statistics": {"mean": [0.0], "std": [0.3, 0.4]}})
    assert load_run(tmp_path / "run").objective == run.objective


def test_a_uniform_part_has_no_log_snr() -> None:
    part = "objective.density=[{kind: uniform, scale: log_snr}]"
    with pytest.raises(ValueError, match=r"^objective.density\[0\].scale=log_snr: a uniform part"):
        compose_run(["horizon.steps=1", part])


def test_a_density_names_a_run_and_none_keeps_its_name() -> None:
    words = ["experiment=cpu_smoke", "horizon.steps=1"]
    names = [
        run_name(compose_run([*words, *more]))
        for more in ([], ["objective.density=[{mean: 1}]"], ["objective.stratified=true"])
    ]
    assert len(set(names)) == 3
    assert run_name(compose_run([*words, "objective.density=[]"])) == names[0]
