"""The closed forms of bytes and traffic against small real engines on gloo."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from models.architecture import specification_of
from models.config import ModelConfig
from models.count import count_params
from models.dit.model import DiT
from trainer.layout import cost
from trainer.layout.config import ParallelConfig
from trainer.layout.cost import Work, checkpoint_bytes, gradient_bytes, rank_bytes, reduce_bucket
from trainer.layout.layout import Coordinates, Layout
from trainer.layout.shapes import rank_params, rank_shapes
from trainer.layout.traffic import Traffic, step_traffic
from trainer.parallel import engine

from .engines import Setting, measure_setting
from .worlds import rank_file, run_world

TOLERANCE = 0.01
# Wide enough that scalars are far below one percent; heads for tensor and context ranks.
MODEL = ModelConfig(width=96, depth=4, head_dim=12, text_width=40)

# Kind of collective and group of the mesh, as the recorder names them -> field of Traffic.
RECORDED = {
    "gather tp": "tp_gather",
    "reduce_scatter tp": "tp_reduce_scatter",
    "all_reduce tp": "tp_all_reduce",
    "all_to_all cp": "cp_all_to_all",
    "all_to_all cp_heads": "cp_all_to_all",
    "gather cp_keys": "cp_gather",
    "reduce_scatter cp_keys": "cp_reduce_scatter",
    "gather replicas": "zero_gather",
    "reduce_scatter replicas": "zero_reduce_scatter",
    "all_reduce replicas": "zero_all_reduce",
    "reduce replicas": "zero_reduce",
}
EXACT = (
    "tp_gather", "tp_reduce_scatter", "tp_all_reduce", "cp_all_to_all", "cp_gather",
    "cp_reduce_scatter", "pp_send",
)  # fmt: skip
BYTES = ("params", "gradients", "optimizer", "ema")

# What ``make test`` measures, and what only the slow tests do.
FEW = [
    Setting(dp=2),
    Setting(dp=2, zero=1, precision="bf16"),
    Setting(dp=2, zero=2, micros=2),
    Setting(dp=2, zero=3, micros=2),
    Setting(tp=2, zero=1, precision="bf16", recompute="full"),
    Setting(cp=2, zero=2, precision="bf16", micros=2),
    Setting(cp=2, zero=1, head_ranks=1, micros=2),
    Setting(pp=2, zero=1, micros=2, interleave=2),
    *(Setting(dp=2, zero=z, precision="bf16", gradients="fp32", micros=2) for z in (1, 2, 3)),
    Setting(dp=2, zero=1, precision="bf16", micros=2, reduce="scatter"),
    Setting(dp=2, zero=2, micros=2, reduce="scatter"),
    Setting(dp=2, zero=2, micros=2, reduce="overlap"),
    Setting(dp=2, zero=3, micros=2, reduce="overlap"),
]
REST = [
    Setting(),
    Setting(zero=1, precision="bf16"),
    Setting(zero=2),
    Setting(dp=2, zero=1, micros=2),
    Setting(dp=2, zero=2, precision="bf16"),
    Setting(dp=2, zero=3, precision="bf16", recompute="full"),
    Setting(tp=2, zero=1),
    Setting(tp=2, zero=1, recompute="selective"),
    Setting(cp=2, zero=1, recompute="full"),
    Setting(pp=2, zero=1, micros=4),
    Setting(tp=2, cp=2, zero=1),
    Setting(cp=4, zero=1, head_ranks=2, recompute="full"),
    Setting(tp=2, cp=2, zero=1, head_ranks=1, recompute="selective"),
    Setting(tp=2, dp=2, zero=3, micros=2),
    Setting(dp=4, zero=1, precision="bf16"),
    Setting(dp=4, zero=2, micros=2),
    Setting(cp=2, dp=2, zero=3, precision="bf16"),
    Setting(tp=2, pp=2, zero=2, micros=2, interleave=2, recompute="full"),
    Setting(pp=2, dp=2, zero=2, micros=4),
]
LIMITED = Setting(dp=2, zero=3, micros=2)
SETTINGS = [
    *(pytest.param("few", setting, id=setting.name) for setting in FEW),
    *(pytest.param("rest", setting, id=setting.name, marks=pytest.mark.slow) for setting in REST),
]


def measure_all(settings: list[Setting], folder: Path) -> None:
    """Measure settings as one rank and leave what was found in files."""
    for setting in settings:
        found = measure_setting(MODEL, setting)
        rank_file(folder, setting.name, dist.get_rank()).write_text(json.dumps(found))


def measure_in(folder: Path, settings: list[Setting]) -> Path:
    """Measure settings on worlds of real processes; return the folder with what was found."""
    for size in sorted({s.parallel.layout.world for s in settings}):
        mine = [s for s in settings if s.parallel.layout.world == size]
        run_world(size, "tests.trainer.parallel.test_cost:measure_all", mine, folder)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the settings of ``make test``."""
    return measure_in(tmp_path_factory.mktemp("few"), FEW)


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all other settings."""
    return measure_in(tmp_path_factory.mktemp("rest"), REST)


@pytest.fixture
def measured(request: pytest.FixtureRequest, part: str) -> Path:
    """Return the folder of the part that a test belongs to."""
    folder: Path = request.getfixturevalue(part)
    return folder


def found_by(folder: Path, setting: Setting) -> list[dict]:
    world = setting.parallel.layout.world
    return [json.loads(rank_file(folder, setting.name, r).read_text()) for r in range(world)]


def at(setting: Setting, place: Coordinates) -> tuple[Layout, int, Coordinates]:
    return setting.parallel.layout, setting.parallel.interleave, place


def compare_traffic(recorded: dict[str, list[int]], expected: Traffic) -> float:
    """Return the largest relative error of a rank's payloads; those within stages must be exact."""
    worst = 0.0
    for name, flow in expected.flows():
        keys = [k for k in recorded if RECORDED.get(k) == name]
        keys += [k for k in recorded if name == "pp_send" and k.startswith("send ")]
        calls = sum(recorded[k][0] for k in keys)
        payload = sum(recorded[k][1] for k in keys)
        if name in EXACT:
            assert (calls, payload) == (flow.calls, flow.payload), name
        elif flow.payload:
            worst = max(worst, abs(payload / flow.payload - 1))
        else:
            assert payload < 1000, (name, payload)  # scalars
    return worst


@pytest.mark.dist
@pytest.mark.parametrize(("part", "setting"), SETTINGS)
def test_engines_hold_the_bytes_of_the_closed_form(
    measured: Path, setting: Setting, summary_table: Callable[..., Callable[..., None]]
) -> None:
    row = summary_table(
        "bytes a rank against the closed form", ["layout", "rank", *BYTES, "largest error"]
    )
    for found in found_by(measured, setting):
        place = setting.parallel.layout.coordinates(found["rank"])
        expected = rank_bytes(MODEL, setting.parallel, place)
        errors = [abs(found["bytes"][k] / getattr(expected, k) - 1) for k in BYTES]
        row(setting.name, found["rank"], *(found["bytes"][k] for k in BYTES), f"{max(errors):.2%}")
        assert max(errors) < TOLERANCE, (found, expected)


@pytest.mark.dist
@pytest.mark.parametrize(("part", "setting"), SETTINGS)
def test_no_other_tensors_of_weight_outlive_the_backward_pass(
    measured: Path, setting: Setting
) -> None:
    for found in found_by(measured, setting):
        place = setting.parallel.layout.coordinates(found["rank"])
        expected = rank_bytes(MODEL, setting.parallel, place)
        bucket = reduce_bucket(rank_params(MODEL, *at(setting, place)), setting.parallel)
        buckets = 2 if setting.reduce == "overlap" else 1
        most = expected.state + gradient_bytes(setting.parallel) * bucket * buckets
        if setting.zero == 2 and setting.interleave > 1:
            most = expected.total
        assert found["bytes"]["live"] < (1 + TOLERANCE) * most, (found, expected)


@pytest.mark.dist
@pytest.mark.parametrize(("part", "setting"), SETTINGS)
def test_engines_send_what_the_closed_form_says(measured: Path, setting: Setting) -> None:
    for found in found_by(measured, setting):
        place = setting.parallel.layout.coordinates(found["rank"])
        recorded = found["traffic"]
        if setting.parallel.layout.replicas == 1:  # DeepSpeed calls on groups of one, too
            recorded = {k: v for k, v in recorded.items() if not k.endswith("replicas")}
        expected = step_traffic(MODEL, setting.parallel, place, setting.work)
        assert compare_traffic(recorded, expected) < TOLERANCE, (recorded, expected)


def measure_limited(limits: list[int], folder: Path) -> None:
    """Measure ZeRO 3 where parameters are too many to keep from forward to backward."""
    original = engine.zero_settings

    def limited(limit: int, *arguments: Any) -> dict[str, Any]:
        config: dict[str, Any] = original(*arguments)
        keys = ("stage3_max_live_parameters", "stage3_max_reuse_distance")
        config["zero_optimization"] |= dict.fromkeys(keys, limit)
        return config

    for limit in limits:
        engine.zero_settings = partial(limited, limit)
        found = measure_setting(MODEL, LIMITED)
        rank_file(folder, f"limit-{limit}", dist.get_rank()).write_text(json.dumps(found))
    engine.zero_settings = original


@pytest.mark.slow
@pytest.mark.dist
def test_zero_3_gathers_again_what_it_cannot_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [0, 200_000, 400_000, 800_000]
    run_world(2, "tests.trainer.parallel.test_cost:measure_limited", limits, tmp_path)
    place = Coordinates()
    shapes = rank_shapes(MODEL, LIMITED.parallel.layout, 1, place)
    largest = max(math.prod(shape) for shape in shapes.values())
    for limit in limits:
        monkeypatch.setattr(cost, "LIVE_PARAMS", limit)
        found = json.loads(rank_file(tmp_path, f"limit-{limit}", 0).read_text())["traffic"]
        expected = step_traffic(MODEL, LIMITED.parallel, place, LIMITED.work)
        error = abs(found["gather replicas"][1] - expected.zero_gather.payload)
        exact = limit in (0, 800_000)
        assert error <= (0 if exact else LIMITED.micros * largest * 4 // 2), limit


# --- arithmetic -----------------------------------------------------------------------------------


def random_shape(draw: random.Random) -> tuple[ModelConfig, ParallelConfig]:
    tp, cp, pp = (draw.choice((1, 2, 4)) for _ in range(3))
    interleave = draw.choice((1, 2, 3)) if pp > 1 else 1
    head_dim = draw.choice((8, 16, 24))
    model = ModelConfig(
        width=head_dim * tp * cp * draw.choice((1, 2, 3)),
        depth=draw.randint(pp * interleave, 20),
        head_dim=head_dim,
        mlp_ratio=draw.choice((2, 4)),
        text_width=draw.choice((8, 384)),
        time_features=draw.choice((8, 64)),
        values_per_token=8,
        spread=[1.0, 1.0],
    )
    return model, ParallelConfig(processes=tp * cp * pp, tp=tp, cp=cp, pp=pp, interleave=interleave)


def test_planning_needs_no_torch() -> None:
    code = "import sys, trainer.layout.cost; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize("seed", range(10))
def test_one_rank_alone_holds_the_whole_model(seed: int) -> None:
    model, _ = random_shape(random.Random(seed))
    with torch.device("meta"):
        whole = {name: tuple(p.shape) for name, p in DiT(model).named_parameters()}
    assert list(rank_shapes(model, Layout(), 1, Coordinates()).items()) == list(whole.items())
    assert rank_params(model, Layout(), 1, Coordinates()) == count_params(model).total


@pytest.mark.parametrize("seed", range(10))
def test_parts_of_all_ranks_make_the_whole_model(seed: int) -> None:
    model, parallel = random_shape(random.Random(seed))
    layout = parallel.layout
    whole = rank_shapes(model, Layout(), 1, Coordinates())
    held: dict[str, int] = {}
    for tp in range(layout.tp):
        for pp in range(layout.pp):
            place = Coordinates(tp=tp, pp=pp)
            for name, shape in rank_shapes(model, layout, parallel.interleave, place).items():
                held[name] = held.get(name, 0) + math.prod(shape)
    copies = {name: 1 if name in specification_of(model).cuts else layout.tp for name in whole}
    assert held == {name: math.prod(shape) * copies[name] for name, shape in whole.items()}


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_averages_of_all_replicas_hold_each_parameter_once(zero: int) -> None:
    parallel = ParallelConfig(processes=6, cp=2, zero_stage=zero)
    places = [Coordinates(cp=cp, dp=dp) for cp in range(2) for dp in range(3)]
    owned = sum(rank_bytes(MODEL, parallel, place).ema for place in places)
    assert owned == 4 * count_params(MODEL).total


def test_what_leaves_a_pipeline_stage_arrives_at_another() -> None:
    parallel = Setting(pp=4, interleave=2).parallel
    model = ModelConfig(width=64, depth=8)
    work = Work(rows=64, spans=2, captions=4, micros=4)
    sent = [step_traffic(model, parallel, Coordinates(pp=s), work).pp_send.calls for s in range(4)]
    assert sum(sent) == 4 * 2 * (4 * 2 - 1)  # forward and back over every border of chunks
    assert sent == [12, 16, 16, 12]


def test_wire_bytes_are_those_of_a_ring() -> None:
    setting = Setting(tp=4, cp=2, dp=3, zero=1)
    traffic = step_traffic(MODEL, setting.parallel, Coordinates(), setting.work)
    assert traffic.tp_gather.wire == 3 * traffic.tp_gather.payload
    assert traffic.tp_reduce_scatter.wire * 4 == 3 * traffic.tp_reduce_scatter.payload
    assert traffic.cp_all_to_all.wire * 2 == traffic.cp_all_to_all.payload
    assert traffic.zero_all_reduce.wire == 2 * 5 * traffic.zero_all_reduce.payload // 6
    assert traffic.wire == sum(flow.wire for _, flow in traffic.flows())


def test_early_stages_keep_more_micro_batches_than_late_ones() -> None:
    parallel = Setting(pp=4, recompute="full").parallel
    model = ModelConfig(width=64, depth=8)
    work = Work(rows=64, spans=1, captions=1, micros=8)
    kept = [checkpoint_bytes(model, parallel, Coordinates(pp=s), work) for s in range(4)]
    blocks = [sum(n.endswith("offset") for n in names(model, parallel, s)) for s in range(4)]
    rotation = 64 * 8 * 8
    assert kept == [(64 * 64 * 4 * b + rotation) * (4 - s) for s, b in enumerate(blocks)]


def names(model: ModelConfig, parallel: ParallelConfig, stage: int) -> dict[str, tuple[int, ...]]:
    return rank_shapes(model, parallel.layout, 1, Coordinates(pp=stage))
