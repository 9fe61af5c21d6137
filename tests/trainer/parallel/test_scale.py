"""Worlds of 1,024 and 4,096 ranks on this machine: a model of 29 billion parameters.

torch's fake process group stands for the other ranks. What a rank builds is on the meta device;
what it computes and sends is on fake tensors; and a narrow model goes through DeepSpeed with real
tensors in the same layouts. ``trainer.layout.cost`` and ``traffic`` must say the same.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from models.architecture import specification_of
from models.config import ModelConfig
from models.count import count_flops, count_params
from trainer.config import compose_run
from trainer.layout.cost import RankBytes, Work, checkpoint_bytes, rank_bytes
from trainer.layout.layout import AXES, Layout
from trainer.layout.shapes import rank_params, rank_shapes
from trainer.layout.traffic import Traffic, message_values, step_traffic
from trainer.parallel.rows import padded_rows

from .engines import Setting
from .fakes import in_child
from .scale import fake_work
from .test_cost import BYTES, EXACT, RECORDED, TOLERANCE, compare_traffic

pytestmark = pytest.mark.dist

MODEL = ModelConfig(width=6144, depth=48, head_dim=96)  # conf/model/w6144d48.yaml
NARROW = ModelConfig(width=384, depth=16, head_dim=6, text_width=40)  # as many heads
ROWS, LENGTHS = 4096, [2500, 1400]

THOUSAND = Setting(tp=8, dp=32, pp=4, zero=1, micros=4)
THOUSAND_CP = Setting(tp=8, cp=8, dp=4, pp=4, zero=1, recompute="full", precision="bf16")
FOUR_THOUSAND = Setting(tp=8, cp=8, dp=8, pp=8, zero=1, recompute="selective", precision="bf16")
FOUR_THOUSAND_PP = Setting(tp=8, dp=32, pp=16, zero=2, micros=16, interleave=3)
WORLDS = [THOUSAND, THOUSAND_CP, FOUR_THOUSAND, FOUR_THOUSAND_PP]
SENT = ["tp", "cp", "pp", "zero"]
COLUMNS = ["layout", "ranks", "rank", *BYTES, "error", *(f"{axis} sent" for axis in SENT)]


def worlds(*quick: Setting) -> list[Any]:
    """Return all worlds as cases, slow but for some."""
    marks = [[] if setting in quick else [pytest.mark.slow] for setting in WORLDS]
    return [pytest.param(s, id=s.name, marks=m) for s, m in zip(WORLDS, marks, strict=True)]


def some_ranks(world: int) -> list[int]:
    """Return the last and a random rank, of a smaller world also the first and the middle one."""
    extra = [0, world // 2] if world <= 1024 else []  # groups of 4,096 ranks take seconds a rank
    return [*extra, world - 1, random.Random(world).randrange(world)]


# --- memberships ----------------------------------------------------------------------------------


def other_groups(layouts: list[list[int]]) -> list[dict[str, list[list[int]]]]:
    """Return the groups of megatron-core and of DeepSpeed's grid (where cp is 1), by axes."""
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
    from megatron.core.parallel_state import RankGenerator

    found = []
    for tp, cp, dp, pp in layouts:
        generator = RankGenerator(tp=tp, ep=1, dp=dp, pp=pp, cp=cp, order="tp-cp-ep-dp-pp")
        groups = {a: generator.get_ranks(a.replace("+", "-")) for a in COMBINED}
        if cp == 1:
            grid = PipeModelDataParallelTopology(num_pp=pp, num_mp=tp, num_dp=dp)
            for axis, name in (("tp", "model"), ("dp", "data"), ("pp", "pipe")):
                groups[f"deepspeed {axis}"] = grid.get_axis_comm_lists(name)
        found.append(groups)
    return found


COMBINED = ["tp", "cp", "dp", "pp", "dp+cp", "tp+pp", "tp+cp"]


def test_groups_are_those_of_megatron_and_deepspeed() -> None:
    draw = random.Random(7)
    layouts = [list(s.parallel.layout.sizes) for s in (THOUSAND, FOUR_THOUSAND)]
    layouts += [[draw.choice((1, 2, 3, 4, 8)) for _ in AXES] for _ in range(8)]
    layouts += [[draw.choice((2, 4)), 1, draw.choice((2, 3)), draw.choice((1, 2))]]
    children = in_child("tests.trainer.parallel.test_scale:other_groups", layouts)
    for sizes, theirs in zip(layouts, children, strict=True):
        layout = Layout(*sizes)
        for name, groups in theirs.items():
            axis = name.removeprefix("deepspeed ")
            # DeepSpeed's grid leaves out axes of one rank.
            ours = list(layout.groups(*axis.split("+"))) if groups else []
            assert sorted(map(sorted, groups)) == ours, (str(layout), name)


@pytest.mark.parametrize("setting", worlds(THOUSAND_CP))
def test_groups_of_an_axis_partition_the_world(setting: Setting) -> None:
    layout = setting.parallel.layout
    for axes in (("tp",), ("cp",), ("dp",), ("pp",), ("cp", "dp"), ("tp", "pp")):
        groups = list(layout.groups(*axes))
        assert sorted(rank for group in groups for rank in group) == list(range(layout.world))
        for group in groups[:: max(1, len(groups) // 20)]:
            assert all(layout.members(rank, *axes) == group for rank in group)


# --- what a rank builds ---------------------------------------------------------------------------


def test_the_model_has_thirty_billion_parameters() -> None:
    assert compose_run(["model=w6144d48", "horizon.steps=1"]).model.width == MODEL.width
    assert 28e9 < count_params(MODEL).total < 32e9


@pytest.mark.parametrize("setting", worlds(THOUSAND_CP))
def test_a_rank_of_a_large_world_builds_its_part(setting: Setting) -> None:
    parallel, ranks = setting.parallel, some_ranks(setting.parallel.layout.world)
    parallel.check(MODEL, parallel.layout.dp * setting.micros)
    layout, whole = parallel.layout, rank_shapes(MODEL, Layout(), 1, Layout().coordinates(0))
    job = "tests.trainer.parallel.scale:build_ranks"
    for found in in_child(job, MODEL, setting, ranks):
        rank, place = found["rank"], layout.coordinates(found["rank"])
        for name, members in found["groups"].items():
            assert members == layout.members(rank, *found["axes"][name]), name
        assert {"replicas", "model", "tp", "pp"} <= set(found["groups"])
        assert ("cp" in found["groups"]) == (layout.cp > 1)
        shapes = {name: tuple(shape) for name, shape in found["shapes"].items()}
        assert shapes == rank_shapes(MODEL, layout, parallel.interleave, place)
        for name, shape in shapes.items():
            split = specification_of(MODEL).cuts.get(name)
            assert shape == (split.shape(whole[name], layout.tp) if split else whole[name]), name
        assert found["heads"] == [MODEL.num_heads // layout.tp]
        assert found["devices"] == ["meta"]


def test_all_stages_together_hold_the_model_once() -> None:
    for setting in WORLDS:
        layout, interleave = setting.parallel.layout, setting.interleave
        places = [layout.coordinates(rank) for rank in layout.members(0, "tp", "pp")]
        total = sum(rank_params(MODEL, layout, interleave, place) for place in places)
        whole = rank_shapes(MODEL, Layout(), 1, Layout().coordinates(0))
        repeated = sum(_size(s) for n, s in whole.items() if n not in specification_of(MODEL).cuts)
        assert total == count_params(MODEL).total + (layout.tp - 1) * repeated


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


# --- what a rank holds and sends ------------------------------------------------------------------


def check_inside_stage(recorded: dict[str, list[int]], expected: Traffic) -> None:
    """Assert that calls and payloads of tensor and context parallelism are exact."""
    for name, flow in expected.flows():
        if name in EXACT and name != "pp_send":
            counts = [c for key, c in recorded.items() if RECORDED.get(key) == name]
            calls, payload = (sum(c[i] for c in counts) for i in (0, 1))
            assert (calls, payload) == (flow.calls, flow.payload), name


def held(expected: RankBytes) -> list[int]:
    return [getattr(expected, kind) for kind in BYTES]


def sent_by_axis(traffic: Traffic) -> list[int]:
    """Return the bytes sent in rings along each axis."""
    return [sum(f.wire for name, f in traffic.flows() if name.startswith(a)) for a in SENT]


def name_of(setting: Setting) -> str:
    """Return a short name: axes, ZeRO stage, precision, micro-batches."""
    return f"{setting.parallel.layout} z{setting.zero} {setting.precision} m{setting.micros}"


@pytest.mark.parametrize("setting", worlds(FOUR_THOUSAND_PP))
def test_a_fake_step_of_the_whole_model_sends_what_the_closed_form_says(
    setting: Setting, summary_table: Callable[..., Callable[..., None]]
) -> None:
    row = summary_table(
        "29B parameters: GiB a rank, and GiB it sends in a step on packs of 65,536 tokens", COLUMNS
    )
    parallel, layout = setting.parallel, setting.parallel.layout
    rank = some_ranks(layout.world)[-1]
    place = layout.coordinates(rank)
    job = "tests.trainer.parallel.scale:fake_step"
    found = in_child(job, MODEL, setting, rank, ROWS, LENGTHS)
    work = fake_work(ROWS, LENGTHS)
    check_inside_stage(found["traffic"], step_traffic(MODEL, parallel, place, work))
    message = message_values(MODEL, layout, work) * (2 if setting.precision == "bf16" else 4)
    assert set(found["messages"]) == {message}  # none of these ranks is on the last stage
    assert found["rows"] == [ROWS // layout.row_shards, ROWS // layout.cp]
    expected = rank_bytes(MODEL, parallel, place)
    error = abs(found["params"] / expected.params - 1)
    assert error < TOLERANCE
    params = rank_params(MODEL, layout, setting.interleave, place)
    assert abs(expected.optimizer / (12 * params / layout.replicas) - 1) < TOLERANCE
    if setting.zero == 1:
        assert found["gradients"] == expected.gradients
    sent = sent_by_axis(step_traffic(MODEL, parallel, place, Work(65536, 8, 512, setting.micros)))
    sizes, flows = ([f"{n / 2**30:.3f}" for n in numbers] for numbers in (held(expected), sent))
    row(name_of(setting), layout.world, rank, *sizes, f"{error:.4%}", *flows)


@pytest.mark.parametrize("setting", worlds(THOUSAND_CP))
def test_a_narrow_model_trains_a_step_as_a_rank_of_a_large_world(
    setting: Setting, summary_table: Callable[..., Callable[..., None]]
) -> None:
    row = summary_table(
        "a narrow model under DeepSpeed at scale: bytes a rank, and bytes it sends", COLUMNS
    )
    model = narrow(setting)
    layout = setting.parallel.layout
    rank = some_ranks(layout.world)[-1]
    place = layout.coordinates(rank)
    found = in_child("tests.trainer.parallel.scale:small_steps", model, setting, rank)
    expected = rank_bytes(model, setting.parallel, place)
    errors = [abs(found["bytes"][k] / max(getattr(expected, k), 1) - 1) for k in BYTES]
    traffic = step_traffic(model, setting.parallel, place, setting.work)
    errors.append(compare_traffic(found["traffic"], traffic))
    sizes = (found["bytes"][k] for k in BYTES)
    row(name_of(setting), layout.world, rank, *sizes, f"{max(errors):.4%}", *sent_by_axis(traffic))
    assert max(errors) < TOLERANCE


def narrow(setting: Setting) -> ModelConfig:
    """Return a narrow model deep enough for the chunks of a setting."""
    chunks = setting.pp * setting.interleave
    return ModelConfig(**{**vars(NARROW), "depth": max(NARROW.depth, chunks)})


# --- one minute of 720p ---------------------------------------------------------------------------

CLIP = [
    "model=w6144d48",
    "data.pack_tokens=1300000",
    "data.packs_per_step=16",
    "parallel.processes=1024",
    "parallel.tp=8",
    "parallel.cp=8",
    "parallel.pp=4",
    "parallel.zero_stage=1",
    "parallel.precision=bf16",
    "parallel.recompute=full",
    "horizon.steps=1",
]


def test_a_minute_of_720p_is_one_segment_of_a_pack_over_64_ranks(
    summary_table: Callable[..., Callable[..., None]],
) -> None:
    run = compose_run(CLIP)
    run.parallel.check(run.model, run.data.packs_per_step)
    layout = run.parallel.layout
    frames, rows, columns = run.codec.latent_shape(60 * 24 + 1, 720, 1280)
    tokens = frames * (rows // 2) * (columns // 2)
    assert (frames, rows // 2, columns // 2, tokens) == (361, 45, 80, 1_299_600)
    assert tokens <= run.data.pack_tokens
    padded = padded_rows(run.data.pack_tokens, layout)
    setting = Setting(tp=8, cp=8, dp=4, pp=4, zero=1, precision="bf16", recompute="full")
    assert setting.parallel.layout == layout
    rank = layout.world // 3
    place = layout.coordinates(rank)
    job = "tests.trainer.parallel.scale:fake_step"
    found = in_child(job, run.model, setting, rank, padded, [tokens])
    work = fake_work(padded, [tokens])
    assert found["rows"] == [padded // 64, padded // 8]
    check_inside_stage(found["traffic"], step_traffic(run.model, run.parallel, place, work))
    one = checkpoint_bytes(run.model, run.parallel, place, work)
    assert abs(found["saved"] / one - 1) < TOLERANCE
    kept = checkpoint_bytes(run.model, run.parallel, place, replace(work, micros=4))
    whole = in_child(job, run.model, replace(setting, recompute="none"), rank, padded, [tokens])
    shapes = rank_shapes(run.model, layout, 1, place)
    blocks = sum(name.endswith(".offset") for name in shapes)
    flops = count_flops(run.model, [tokens], [7])
    assert flops.self_attention > 0.9 * flops.total  # a minute is mostly attention
    row = summary_table("one minute of 720p, 24 frames a second", ["what", "value"])
    state = rank_bytes(run.model, run.parallel, place)
    shares = f"{padded // 64:,}; {padded // 8:,}; {padded:,}"
    row("tokens", f"{tokens:,}")
    row("layout", layout)
    row("rows a rank holds, its projections see, its attention sees", shares)
    row("heads of its attention", run.model.num_heads // layout.tp // layout.cp)
    row("FLOPs of a step on it, forward and backward", f"{flops.total:.3g}")
    row("state a rank, GiB", f"{state.state / 2**30:.1f}")
    micro = found["saved"] / 2**30
    row("kept for the backward pass, a micro-batch, GiB", f"{micro:.2f}")
    row("the same on this stage with all micro-batches under way, GiB", f"{kept / 2**30:.2f}")
    row("kept without recomputation, a block, GiB", f"{whole['saved'] / blocks / 2**30:.2f}")
