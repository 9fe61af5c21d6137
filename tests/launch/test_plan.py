"""The command line of plans: what it prints, warns of and refuses."""

import json
import re
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import pytest

from data.dataset.sample import SampleInfo
from data.dataset.shards import write_index
from launch.plan import main
from launch.planner.config import PlanConfig
from launch.planner.estimate import estimate
from launch.planner.machine import load_machine
from launch.planner.memory import binary_bytes
from launch.planner.show import count_text
from launch.planner.workload import plan_workload
from models.architecture import specification_of
from models.codec.count import vae_flops
from models.config import VaeConfig
from trainer.config import compose_run
from trainer.layout.config import Precision
from trainer.layout.optimizer import OptimizerKind

RUN = ["model=w64d2", "horizon.steps=100", "data.root=datasets/none"]
LARGE = [
    "model=w6144d48", "horizon.tokens=1e12", "data.root=datasets/none", "parallel.precision=bf16",
    "parallel.zero_stage=1", "data.pack_tokens=16384",
]  # fmt: skip


def plan_json(capsys, *words):
    status = main([*words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_a_plan_of_a_tiny_run_fits_two_cores(capsys):
    status, found = plan_json(capsys, "machine=cpu2", *RUN)
    assert status == 0
    assert found["steps"] == 100
    assert found["params"] == 207_656
    assert found["money"] == pytest.approx(found["device_hours"] * 0.05)
    seconds = found["step_seconds"]
    assert seconds["total"] == pytest.approx(sum(seconds.values()) - seconds["total"])
    assert found["days"] == pytest.approx(100 * seconds["total"] / 0.98 / 86400)
    assert any("no index" in note for note in found["notes"])


def test_what_does_not_fit_is_an_error_status_with_the_remedy(capsys):
    assert main([*LARGE, "parallel.processes=8", "data.packs_per_step=8"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "does not fit into" in text
    assert "too much on a rank of stage 0" in text


@pytest.fixture(scope="module")
def large():
    """A run that fits 16 devices badly; composed once."""
    return compose_run([*LARGE, "parallel.processes=16", "data.packs_per_step=16"])


@pytest.mark.parametrize(
    ("parallel", "packs", "plan", "expected"),
    [
        ({"precision": Precision.fp32, "zero_stage": 0}, 16, {}, "precision=fp32"),
        ({"pp": 8}, 16, {}, "bubble"),
        ({"tp": 16}, 2, {}, "leaves the node"),
        ({"zero_stage": 2}, 128, {}, "zero_stage=2"),
        ({}, 16, {"disk_bytes": 1e9}, "disk"),
        ({"processes": 12}, 48, {}, "paid and idle"),
        ({}, 16, {"max_days": 0.001}, "max_days"),
        ({}, 16, {}, "one is due every 60 s"),
    ],
)
def test_the_plan_warns_before_the_queue_does(large, parallel, packs, plan, expected):
    run = deepcopy(large)
    run.parallel, run.data.packs_per_step = replace(run.parallel, **parallel), packs
    run.check()
    warnings = estimate(run, load_machine("h100"), PlanConfig(**plan)).warnings
    assert any(expected in warning for warning in warnings), warnings


def test_the_plan_warns_of_noise_levels_that_training_starves(large):
    run = deepcopy(large)
    run.objective.shift_tokens, run.objective.most_shift = 64.0, 0.0
    said = [w for w in estimate(run, load_machine("h100"), PlanConfig()).warnings if "strata" in w]
    assert len(said) == 1
    assert "for clips of 8192 tokens. Set objective.most_shift" in said[0]
    run.objective.most_shift = 1.0
    warnings = estimate(run, load_machine("h100"), PlanConfig()).warnings
    assert not any("strata" in warning for warning in warnings)


def test_a_plan_under_muon_has_one_moment_less_of_the_matrices_of_blocks(large):
    plain, muon = deepcopy(large), deepcopy(large)
    muon.optim.kind = OptimizerKind.muon
    one, two = (estimate(run, load_machine("h100"), PlanConfig()) for run in (plain, muon))
    blocks = [w for w in specification_of(large.model).block.weights if len(w.shape) == 2]
    matrices = large.model.depth * sum(w.size for w in blocks)
    replicas = large.parallel.layout.replicas if large.parallel.zero_stage else 1
    saved = one.memory.optimizer - two.memory.optimizer
    assert saved == pytest.approx(4 * matrices / replicas, rel=1e-4)
    assert two.memory.working >= one.memory.working
    # 57 TFLOPs of its products on a rank that shares the matrices with 31 others.
    assert two.time.optimizer > 1.5 * one.time.optimizer
    assert two.notes == one.notes


def test_a_plan_prints_energy_in_whole_kilowatt_hours(capsys):
    main(LARGE)
    assert re.search(r"energy\W+[\d,]+ kWh", capsys.readouterr().out)
    main(["machine=cpu2", *RUN])
    assert "on 1 paid device " in capsys.readouterr().out


def test_an_index_at_hand_is_read(tmp_path, capsys):
    infos = [
        SampleInfo(
            key=f"clip{i}", media="latent", num_frames=1 + 4 * i, height=64, width=96, fps=8.0,
            duration_seconds=i / 2, caption="a ball", source="made", licence="", rendered=True,
            sha256="0" * 64, original={}, shard="shard-000000.tar", offset=0, nbytes=1,
        )
        for i in range(1, 9)
    ]  # fmt: skip
    (tmp_path / "train").mkdir()
    write_index(tmp_path / "train", infos)
    run = compose_run(["model=w64d2", "horizon.steps=50", f"data.root={tmp_path}"])
    work = plan_workload(run, PlanConfig())
    lengths = [(1 + i) * 4 * 6 for i in range(1, 9)]
    assert work.measured
    assert work.clips.longest == max(lengths)
    assert work.clips.mean == sum(lengths) / 8
    assert work.clips.segment == sum(n * n for n in lengths) / sum(lengths)
    assert work.epochs == pytest.approx(50 * work.step_tokens / sum(lengths))


def test_the_search_prints_the_best_and_the_losers(capsys):
    words = ["--search", "gpus=8", "model.width=1024", "model.depth=4", "model.head_dim=128"]
    assert main([*words, "horizon.tokens=1e10", "data.root=datasets/none"]) == 0
    text = capsys.readouterr().out
    assert "looked at" in text
    assert "why the others lost" in text
    assert "parallel.processes=8" in text


def test_a_search_as_json_names_days_and_money(capsys):
    words = ["--search", "gpus=8", "model.width=1024", "model.depth=4", "model.head_dim=128"]
    status, found = plan_json(capsys, *words, "horizon.tokens=1e10", "data.root=datasets/none")
    assert status == 0
    best = found["best"][0]
    assert best["tokens_per_second"] * best["days"] * 86400 * 0.98 == pytest.approx(1e10, rel=1e-6)
    assert 0 < best["mfu"] < 1
    assert best["money"] == pytest.approx(best["days"] * 24 * 8 * 2.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gpus=8", *RUN], "needs --search"),
        (["--search", *RUN], "search.gpus=0: must be at least 1"),
        (["--search", "gpus=8", "parallel.tp=2", *RUN], "parallel.tp=2: is what --search chooses"),
        (["machine=h1", *RUN], "machine=h1: unknown choice. Did you mean h100? Allowed: a100"),
        (["machine.volts=3", *RUN], "machine.volts: unknown key"),
        (["plan.foo=3", *RUN], "plan.foo: unknown key"),
        (["plan.goodput=2", *RUN], "plan.goodput=2: must be at most 1. Use"),
        (["--search", "gpus=8", "search.precision=fp8", *RUN], "search.precision: Invalid value"),
        (["--verbose", *RUN], "--verbose: unknown flag"),
        (
            ["study=demo"],
            "study=demo: a study is not one run. Use kinescale plan-study study=demo",
        ),
        (["parallel.tp=3", *RUN], "parallel.processes=1: must be a multiple"),
        (["model=w7", "horizon.steps=1"], "model=w7: unknown choice"),
    ],
)
def test_bad_input_is_refused_in_one_line_with_status_2(capsys, words, message):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("module", ["launch.plan", "sweeps.predict.economics"])
def test_help_needs_no_torch_nor_hydra(module):
    code = (
        f"import sys; from {module} import main; status = main(['--help']); "
        "sys.exit(status or bool({'torch', 'hydra', 'deepspeed', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout


@pytest.mark.heavy
def test_planning_imports_no_torch():
    code = (
        "import sys; from launch.plan import main; main(['machine=cpu2', 'model=w64d2', "
        "'horizon.steps=9', 'data.root=datasets/none']); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


SMALL = {"vae_tiny": "codec", "perceptual_tiny": "perceptual", "captioner_tiny": "captioner"}


@pytest.mark.parametrize("experiment", SMALL)
def test_a_plan_of_a_small_network_says_what_is_known_and_what_is_not(experiment, capsys):
    status, found = plan_json(capsys, "machine=cpu2", f"experiment={experiment}")
    assert status == 0
    assert found["kind"] == SMALL[experiment]
    assert found["params_exact"] == (experiment == "vae_tiny")
    assert found["held_bytes"] == 24 * found["params"]
    assert found["disk_bytes"] == 2 * found["checkpoint_bytes"] == 32 * found["params"]
    assert any("activations" in words for words in found["not_modelled"])
    assert any("time" in words for words in found["not_modelled"])
    assert main(["machine=cpu2", f"experiment={experiment}"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"kind={SMALL[experiment]}" in text
    assert "not modelled memory of activations" in text
    assert ("at most" in text.partition("what is known")[0]) == (experiment != "vae_tiny")


def test_the_flops_of_a_compression_network_are_bounded_by_its_cells(capsys):
    words = ["machine=cpu2", "experiment=vae_tiny", "steps=10", "data.packs_per_step=3"]
    _, found = plan_json(capsys, *words)
    cells = 4 * 3 * 512  # of the latent in a step
    assert found["flops"] == 3 * 10 * cells * vae_flops(VaeConfig())
    peak = load_machine("cpu2").peak("fp32")
    assert found["seconds_at_peak"] == pytest.approx(found["flops"] / peak)
    assert any("looks through: the perceptual encoder" in words for words in found["not_modelled"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan.fill=0.5"], "plan.fill=0.5: says nothing of a run of kind=codec. Leave it out."),
        (["--search", "gpus=8"], "kind=codec: is trained in one layout. Plan it without --search."),
        (["horizon.steps=3"], "horizon: unknown key. Allowed: checkpoint, components"),
    ],
)
def test_what_says_nothing_of_a_small_network_is_refused(words, message, capsys):
    assert main(["experiment=vae_tiny", *words]) == 2
    assert message in capsys.readouterr().err


def test_figures_on_the_edge_of_a_unit_are_of_the_larger_one() -> None:
    shown = {
        7.0: "7",
        999.4: "999",
        999.6: "1k",
        1e12: "1T",
        999_990_000_128.0: "1T",
        2.5e9: "2.5B",
    }
    assert {value: count_text(value) for value in shown} == shown
    sizes = {12.0: "12 bytes", 5e4: "48.83 KiB", 3e6: "2.86 MiB", 3e9: "2.79 GiB"}
    assert {value: binary_bytes(value) for value in sizes} == sizes
