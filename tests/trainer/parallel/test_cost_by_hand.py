"""Bytes, calls and cuts counted one by one; what engines really do is in test_cost.py."""

import math
from itertools import combinations, pairwise

import pytest

from models.config import ModelConfig
from trainer.layout.config import ParallelConfig, Precision, Recompute
from trainer.layout.cost import Work, checkpoint_bytes, rank_bytes
from trainer.layout.layout import Coordinates, Layout
from trainer.layout.messages import schedule
from trainer.layout.shapes import rank_params, rank_shapes
from trainer.layout.stages import chunks_of, cut_chunks, part_costs
from trainer.layout.traffic import step_traffic

MODEL = ModelConfig(width=48, depth=5, head_dim=12, text_width=20, time_features=10)
EMBEDDINGS = ("patch_in.", "place_in.", "condition.0.", "caption_in.")
WORK = Work(rows=96, spans=3, captions=11, micros=4)


def groups(parallel: ParallelConfig, place: Coordinates) -> list[list[int]]:
    """Return the sizes of the parameters without decay and with, in the optimizer's order."""
    shapes = rank_shapes(MODEL, parallel.layout, parallel.interleave, place).items()
    vectors = [math.prod(s) for _, s in shapes if len(s) == 1]
    embeddings = [math.prod(s) for n, s in shapes if len(s) > 1 and n.startswith(EMBEDDINGS)]
    heads = [math.prod(s) for n, s in shapes if n == "head.weight"]
    others = [
        math.prod(s) for n, s in shapes
        if len(s) > 1 and n != "head.weight" and not n.startswith(EMBEDDINGS)
    ]  # fmt: skip
    return [embeddings + vectors, others + heads]


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_rank_holds_its_elements_counted_one_by_one(
    zero: int, size: int, precision: Precision
) -> None:
    parallel = ParallelConfig(
        processes=2 * 2 * size, cp=2, tp=2, zero_stage=zero, precision=precision
    )
    e = 2 if precision is Precision.bf16 else 4
    for dp in range(size):
        place = Coordinates(cp=1, dp=dp)
        ranks, rank = 2 * size, 2 * dp + 1
        found = rank_bytes(MODEL, parallel, place)
        all_sizes = groups(parallel, place)
        params = sum(map(sum, all_sizes))
        assert params == rank_params(MODEL, parallel.layout, 1, place)
        if zero == 0:
            expected = [e * params, e * params, 8 * params, 4 * params, e * params]
        elif zero == 3:
            shares = [math.ceil(n / ranks) for sizes in all_sizes for n in sizes]
            own = [
                len(range(n)[rank * share : (rank + 1) * share])
                for n, share in zip([*all_sizes[0], *all_sizes[1]], shares, strict=True)
            ]
            held = sum(shares)
            expected = [e * held, e * held, 12 * held, 4 * sum(own), e * 2 * params]
        else:
            padded = touched = owned = 0
            for sizes in all_sizes:
                owners = [i for i, n in enumerate(sizes) for _ in range(n)]
                flat = math.ceil(len(owners) / (2 * ranks)) * 2
                mine = owners[rank * flat : (rank + 1) * flat]
                padded, owned = padded + flat, owned + len(mine)
                touched += sum(sizes[i] for i in set(mine))
            kept = params if zero == 1 else touched
            second = 0 if zero == 1 else touched
            expected = [
                e * padded * ranks, e * kept, 12 * padded, 4 * owned, e * (params + second)
            ]  # fmt: skip
        names = ("params", "gradients", "optimizer", "ema", "buffers")
        assert [getattr(found, name) for name in names] == expected
        assert found.state == sum(expected[:4])
        assert found.total == sum(expected)


# How often a block gathers and scatters: forward, backward, and computed again.
PASSES = {Recompute.none: (2, 2), Recompute.selective: (3, 2), Recompute.full: (3, 3)}


@pytest.mark.parametrize("recompute", list(Recompute))
def test_tensor_and_context_ranks_send_what_each_block_sends(recompute: Recompute) -> None:
    parallel = ParallelConfig(processes=4, tp=2, cp=2, recompute=recompute, zero_stage=1)
    traffic = step_traffic(MODEL, parallel, Coordinates(), WORK)
    gathers, scatters = (4 * 5 * 3 * n for n in PASSES[recompute])
    own = 96 // 4 * 48 * 4
    joined = 4 * 3 * 4 * (6 * 48 // 2 + 2 * 48 // 2)  # both modulations, once a micro-batch
    flow = traffic.tp_gather
    assert (flow.calls, flow.payload) == (gathers + 4 * 2, gathers * own + joined)
    assert flow.wire == flow.payload
    flow = traffic.tp_reduce_scatter
    assert (flow.calls, flow.payload) == (scatters + 4 * 2, 2 * (scatters * own + joined))
    assert flow.wire == flow.payload // 2
    shapes = rank_shapes(MODEL, Layout(), 1, Coordinates())
    halves = rank_shapes(MODEL, parallel.layout, 1, Coordinates())
    whole = [math.prod(s) for n, s in shapes.items() if halves[n] == s]
    whole += [
        math.prod(s) for n, s in halves.items() if n.startswith("head_mod") and s == shapes[n]
    ]
    flow = traffic.tp_all_reduce
    assert flow.wire == flow.payload == 4 * 4 * sum(whole[: flow.calls // 4])
    passes = 4 * 5 * (3 if recompute is Recompute.full else 2)
    flow = traffic.cp_all_to_all
    assert (flow.calls, flow.payload) == (2 * passes, passes * 4 * (96 // 2) * (48 // 2) * 4)
    assert flow.wire == flow.payload // 2
    assert traffic.pp_send.calls == 0


def test_stages_send_their_whole_stream_forward_and_back() -> None:
    parallel = ParallelConfig(processes=2, pp=2, precision=Precision.bf16, zero_stage=1)
    for stage in range(2):
        flow = step_traffic(MODEL, parallel, Coordinates(pp=stage), WORK).pp_send
        values = 48 * (96 + (1 + 6) * 3 + 11)  # rows, condition and modulation, captions
        assert (flow.calls, flow.payload, flow.wire) == (4, 4 * 2 * values, 4 * 2 * values)


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_replicas_send_what_zero_says(zero: int) -> None:
    parallel = ParallelConfig(processes=3, zero_stage=zero)
    traffic = step_traffic(MODEL, parallel, Coordinates(), WORK)
    sizes = groups(parallel, Coordinates())
    params = sum(map(sum, sizes))
    flat = sum(math.ceil(sum(s) / 6) * 2 for s in sizes)
    shards = sum(math.ceil(n / 3) for s in sizes for n in s)
    reduced = {0: (1, params), 1: (1, params), 2: (4, 4 * params), 3: (0, 0)}[zero]
    gathered = {0: (0, 0), 1: (2, flat), 2: (2, flat), 3: (4, 4 * (2 * shards - shards))}[zero]
    scattered = (4, 4 * 3 * shards) if zero == 3 else (0, 0)
    for flow, (calls, elements), share in (
        (traffic.zero_all_reduce, reduced, 4 / 3),
        (traffic.zero_gather, gathered, 2),
        (traffic.zero_reduce_scatter, scattered, 2 / 3),
    ):
        assert (flow.calls, flow.payload) == (calls, 4 * elements)
        assert flow.wire == int(4 * elements * share)


@pytest.mark.parametrize(("stages", "interleave"), [(1, 1), (2, 1), (4, 1), (2, 2), (2, 3)])
def test_a_stage_keeps_the_chunks_that_its_schedule_has_under_way(
    stages: int, interleave: int
) -> None:
    model = ModelConfig(width=48, depth=stages * interleave, head_dim=12)
    parallel = ParallelConfig(processes=stages, pp=stages, interleave=interleave)
    for micros in (stages, 2 * stages, 6 * stages):
        work = Work(rows=64, spans=2, captions=3, micros=micros)
        for stage in range(stages):
            under_way = most = 0
            for action in schedule(stage, stages, interleave, micros):
                under_way += 1 if action.forward else -1
                most = max(most, under_way)
            each = 64 * 48 * 4 + 64 * 6 * 8  # a block's rows, and a chunk's rotation
            found = checkpoint_bytes(model, parallel, Coordinates(pp=stage), work)
            assert found == most * each, (micros, stage)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("values", [24, 96])
def test_cuts_make_the_costliest_chunk_as_cheap_as_any_cuts(count: int, values: int) -> None:
    model = ModelConfig(
        width=48, depth=6, head_dim=12, values_per_token=values, spread=[1.0] * (values // 4)
    )
    (first, last), block = part_costs(model)
    costs = [block] * 6
    costs[0], costs[-1] = costs[0] + first, costs[-1] + last

    def costliest(stops: tuple[int, ...]) -> float:
        edges = (0, *stops, 6)
        return max(sum(costs[a:b]) for a, b in pairwise(edges))

    chunks = cut_chunks(model, count)
    assert [n for chunk in chunks for n in chunk.blocks] == list(range(6))
    assert [chunk.is_first for chunk in chunks] == [i == 0 for i in range(count)]
    assert [chunk.is_last for chunk in chunks] == [i == count - 1 for i in range(count)]
    least = min(costliest(stops) for stops in combinations(range(1, 6), count - 1))
    assert costliest(tuple(chunk.blocks.stop for chunk in chunks[:-1])) == pytest.approx(least)
    if count == 6:
        assert chunks_of(chunks, 1, 3) == [chunks[1], chunks[4]]


def test_the_ends_of_a_network_cost_their_own_products() -> None:
    # 1024 tokens with 32 words: 2 FLOPs a product, three passes.
    D, V, T, text = 48, 24, 10, 20
    (first, last), block = part_costs(MODEL)
    per_block = 1024 * (4 + 2 + 8) * D * D + 32 * 2 * D * D + 2 * 1024 * (1024 + 32) * D
    assert block == 6 * per_block
    embedding = 1024 * (V + 18) * D + 2 * T * D + D * D + 6 * D * D + 32 * text * D
    assert first == 6 * embedding
    assert last == 6 * (1024 * D * V + 2 * D * D)


@pytest.mark.parametrize(
    ("changes", "packs", "said"),
    [
        ({"device": "tpu"}, 1, r"device=tpu: must be one of auto, cpu, cuda"),
        ({"processes": 3, "tp": 2, "cp": 2}, 1, r"processes=3: .* = 4\. Use 4\."),
        ({"processes": 9, "tp": 2, "cp": 2}, 1, r"processes=9: .* = 4\. Use 8\."),
        (
            {"processes": 6, "pp": 6},
            6,
            r"interleave=6: must be at most model.depth=5.*parallel.pp=5 i",
        ),
        ({"processes": 3}, 7, r"packs_per_step=7: .* dp=3\. Use 6\."),
        ({"processes": 3}, 2, r"packs_per_step=2: .* dp=3\. Use 3\."),
        ({"processes": 4, "pp": 2, "interleave": 2}, 6, r"each rank 3 packs, .*pp=2 .*Use 4\."),
    ],
)
def test_a_layout_that_does_not_divide_says_what_does(changes: dict, packs: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ParallelConfig(**changes).check(MODEL, packs)


@pytest.mark.parametrize(
    ("changes", "packs"),
    [
        ({"processes": 5, "pp": 5}, 1),
        ({"processes": 2, "pp": 2, "interleave": 2}, 2),
        ({"processes": 4, "pp": 2, "interleave": 2}, 4),
        ({"processes": 4, "cp": 4}, 1),
        ({"zero_stage": 3, "recompute": Recompute.full}, 1),
        ({"zero_stage": 2, "recompute": Recompute.selective}, 1),
        ({"zero_stage": 1, "precision": Precision.bf16}, 1),
        ({"zero_stage": 1, "offload": True}, 1),
    ],
)
def test_a_layout_at_the_edge_of_a_rule_is_taken(changes: dict, packs: int) -> None:
    ParallelConfig(**changes).check(MODEL, packs)


def test_a_layout_is_named_by_its_axes_beyond_one() -> None:
    assert str(Layout()) == "single"
    assert str(Layout(tp=2, dp=3)) == "tp2-dp3"
    table = Layout(tp=2, cp=2).table(4).splitlines()
    assert len(table) == 2 + 4
    assert table[1].split() == ["rank", "tp", "cp", "dp", "pp"]
    assert table[4].split() == ["2", "0", "1", "0", "0"]
    four = Layout(2, 3, 5, 7)
    assert (four.sizes, four.replicas, four.row_shards) == ((2, 3, 5, 7), 15, 6)
