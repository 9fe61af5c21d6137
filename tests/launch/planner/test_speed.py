"""Time of a step: its bytes are the trainer's, its speeds those that were published."""

from dataclasses import replace

import pytest

from benchmarks import plan_stacks
from benchmarks.fit_data import ABSENT
from benchmarks.plan_speed import predictions, read_rows
from launch.planner.machine import LinkConfig, load_machine
from launch.planner.network import Network
from launch.planner.speed import (
    Batch,
    Execution,
    _context,
    _data,
    _tensor,
    bandwidth,
    exchange_seconds,
    step_time,
    training_flops,
)
from models.config import AttentionKernel, ModelConfig
from models.count import count_flops, count_params
from trainer.layout.config import ParallelConfig, Precision, Recompute
from trainer.layout.cost import Work
from trainer.layout.layout import Coordinates
from trainer.layout.optimizer import OptimizerKind
from trainer.layout.traffic import step_traffic

MODEL = ModelConfig(width=1024, depth=8, head_dim=64)
ROWS = read_rows()


def byte_a_second():
    """A machine whose seconds of communication are the bytes sent."""
    machine = load_machine("h100", ["efficiency.link=1"])
    machine.node_link = machine.network = LinkConfig(1.0, 0.0)
    return machine


def test_flops_are_those_of_the_model():
    exact = count_flops(MODEL, [4096] * 4, [64] * 4).total
    mine = training_flops(Network.of(MODEL), 4 * 4096, 4096, 64)
    assert mine == pytest.approx(exact, rel=0.002)  # less the conditioning of segments
    assert Network.of(MODEL).params == count_params(MODEL).total


@pytest.mark.parametrize("mode", list(Recompute))
@pytest.mark.parametrize(("tp", "cp"), [(4, 1), (1, 4), (2, 2)])
def test_bytes_of_tensor_and_context_ranks_are_the_trainers(tp, cp, mode):
    parallel = ParallelConfig(processes=tp * cp, tp=tp, cp=cp, zero_stage=1, recompute=mode)
    batch, network = Batch(8192, 4096, 2, 64), Network.of(MODEL)
    traffic = step_traffic(MODEL, parallel, Coordinates(), Work(8192, 2, 128))
    how, machine = Execution.of(parallel, MODEL), byte_a_second()
    mine = _tensor(network, machine, how, batch, MODEL.depth)
    theirs = traffic.tp_gather.wire + traffic.tp_reduce_scatter.wire
    assert mine == pytest.approx(theirs, rel=0.01)
    mine = _context(network, machine, how, batch, MODEL.depth, attention=0.0)
    assert mine == pytest.approx(traffic.cp_all_to_all.wire, rel=1e-6)


@pytest.mark.parametrize("mode", list(Recompute))
@pytest.mark.parametrize(("cp", "head_ranks"), [(4, 2), (4, 1), (32, 0)])
def test_bytes_of_ranks_that_gather_keys_are_the_trainers(cp, head_ranks, mode):
    parallel = ParallelConfig(processes=cp, cp=cp, head_ranks=head_ranks, recompute=mode)
    batch, network = Batch(8192, 4096, 2, 64), Network.of(MODEL)
    traffic = step_traffic(MODEL, parallel, Coordinates(), Work(8192, 2, 128))
    how, machine = Execution.of(parallel, MODEL), byte_a_second()
    machine.devices_per_node = cp
    mine = _context(network, machine, how, batch, MODEL.depth, attention=0.0)
    theirs = (traffic.cp_all_to_all, traffic.cp_gather, traffic.cp_reduce_scatter)
    assert mine == pytest.approx(sum(flow.wire for flow in theirs), rel=1e-6)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bytes_of_zero_are_the_trainers(stage):
    parallel = ParallelConfig(processes=8, zero_stage=stage)
    traffic = step_traffic(MODEL, parallel, Coordinates(), Work(1024, 1, 32, micros=3))
    params = count_params(MODEL).total
    how = Execution.of(parallel, MODEL)
    mine = _data(byte_a_second(), how, 3, params, 1.0, MODEL.depth)
    assert mine == pytest.approx(traffic.wire, rel=0.01)


@pytest.mark.parametrize("stage", [1, 2])
def test_bytes_of_scattered_gradients_are_the_trainers_and_fewer(stage):
    ways = [ParallelConfig(processes=8, zero_stage=stage, reduce_scatter=s) for s in (False, True)]
    params, work = count_params(MODEL).total, Work(1024, 1, 32, micros=3)
    seconds = []
    for parallel in ways:
        traffic = step_traffic(MODEL, parallel, Coordinates(), work)
        how = Execution.of(parallel, MODEL)
        seconds.append(_data(byte_a_second(), how, 3, params, 1.0, MODEL.depth))
        assert seconds[-1] == pytest.approx(traffic.wire, rel=0.01)
    reductions = 3 if stage == 2 else 1
    assert seconds[0] - seconds[1] == pytest.approx(reductions * 4 * params * 7 / 8, rel=0.01)


def test_overlapping_reductions_hide_behind_the_backward_pass_and_gathers_do_not():
    machine, params = load_machine("h100"), 8e9
    plain = Execution(dp=8, zero_stage=2)
    slow, fast = (
        _data(machine, replace(plain, overlaps=overlaps), 4, params, 0.1, 32)
        for overlaps in (False, True)
    )
    gathered = _data(machine, plain, 0, params, 0.1, 32)  # of no micro-batch: parameters alone
    assert 0 < gathered < fast
    assert slow - fast == pytest.approx(machine.efficiency.hidden * 4 * 2 / 3 * 0.1)
    assert _data(machine, replace(plain, overlaps=True), 4, params, 1e6, 32) == gathered
    sharded = replace(plain, zero_stage=3)
    third = _data(machine, sharded, 4, params, 1e6, 32)
    assert _data(machine, replace(sharded, overlaps=True), 4, params, 1e6, 32) == pytest.approx(
        machine.efficiency.exposed * third
    )


def test_only_transformer_engines_attention_is_planned_as_a_vendors():
    half = {"precision": Precision.bf16, "zero_stage": 1}
    planned = {
        kernel: Execution.of(ParallelConfig(attention=kernel, **half), MODEL).fused
        for kernel in AttentionKernel
    }
    assert [kernel for kernel, fused in planned.items() if fused] == [AttentionKernel.te]


def test_a_group_across_nodes_leaves_by_as_many_adapters_as_it_has_members_there():
    machine = load_machine("h100", ["efficiency.link=1"])
    inside, adapter = machine.node_link.bytes_per_second, machine.network.bytes_per_second
    assert bandwidth(machine, 8, 1) == inside
    assert bandwidth(machine, 16, 1) == min(inside, 8 * adapter)
    assert bandwidth(machine, 16, 8) == adapter
    assert bandwidth(machine, 4, 4) == 2 * adapter


def test_an_exchange_across_nodes_leaves_by_each_ranks_own_adapter():
    machine = load_machine("h100", ["efficiency.link=1"])
    inside, adapter = machine.node_link.bytes_per_second, machine.network.bytes_per_second
    assert exchange_seconds(machine, 8, 1, 8.0) == pytest.approx(7 / inside)
    assert exchange_seconds(machine, 64, 1, 64.0) == pytest.approx(56 / adapter)
    ring = 63 / bandwidth(machine, 64, 1)
    assert exchange_seconds(machine, 64, 1, 64.0) > 7 * ring  # a ring leaves a node once for all
    assert exchange_seconds(machine, 4, 8, 4.0) == pytest.approx(3 / adapter)  # beside tp8


def test_half_of_the_traffic_of_sharded_parameters_stays_however_long_the_compute():
    machine, how = load_machine("h100"), Execution(dp=8, zero_stage=3, tuned=True)
    slow = _data(machine, replace(how, tuned=False), 1, 8e9, 1e6, 32)
    assert _data(machine, how, 1, 8e9, 1e6, 32) == pytest.approx(0.5 * slow)
    assert _data(machine, replace(how, zero_stage=1), 1, 8e9, 1e6, 32) == 0.0


def test_pytorchs_attention_is_slower_than_a_vendors_and_slower_still_where_causal():
    machine = load_machine("h100")
    share = machine.efficiency
    assert machine.attention_share(fused=True, causal=True) == share.fused_attention
    assert machine.attention_share(fused=False, causal=False) == share.attention
    assert machine.attention_share(fused=False, causal=True) == share.causal * share.attention
    network, batch = Network.of(MODEL), Batch(8192, 8192)
    ours = step_time(network, machine, Execution(), batch).attention
    fused = step_time(network, machine, Execution(fused=True), batch).attention
    assert ours / fused == pytest.approx(share.fused_attention / share.attention)


def test_more_packs_shrink_the_bubble_and_nothing_is_lost():
    network, machine = Network.of(MODEL), load_machine("h100")
    parallel = ParallelConfig(processes=8, pp=4, zero_stage=1, precision=Precision.bf16)
    how = Execution.of(parallel, MODEL)
    shares = []
    for micros in (1, 4, 16):
        time = step_time(network, machine, how, Batch(8192, 8192, micros=micros))
        assert time.total == pytest.approx(time.compute + time.communication + time.bubble)
        shares.append(time.bubble / time.total)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(0.75, abs=0.02)  # three of four stages wait


def test_full_recomputation_costs_a_forward_pass():
    network, machine = Network.of(MODEL), load_machine("h100")
    batch = Batch(8192, 8192)
    none, full = (
        step_time(network, machine, Execution(again=again), batch) for again in (0.0, 1.0)
    )
    assert full.attention == pytest.approx(4 / 3 * none.attention)
    assert full.matmul < 4 / 3 * none.matmul * 1.001


@pytest.mark.parametrize(
    ("row", "flops"),
    [(r, f) for r, f, _ in predictions(ROWS)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_published_speed_is_predicted_within_15_percent_without_its_own_figure(row, flops):
    if row.reason:  # the file says why this one is out of reach
        assert not row.is_fitted
        assert abs(flops / row.measured - 1) < 0.35
    else:
        assert flops / row.measured == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("row", [r for r in ROWS if r.tokens_per_second], ids=lambda row: row.name)
def test_the_convention_of_counting_gives_the_published_tokens_a_second(row):
    tolerance = 0.02 if row.is_fitted else 0.04  # the others are older, and from memory
    found = row.measured / row.counted
    assert found == pytest.approx(row.tokens_per_second, rel=tolerance)


def test_the_machines_constants_are_those_of_the_calibration():
    from benchmarks.plan_speed import calibrate

    fitted = calibrate([r for r in ROWS if r.is_fitted and r.machine.name == "h100"])
    stated = load_machine("h100").efficiency
    assert stated.matmul == pytest.approx(fitted.matmul, abs=0.01)
    assert stated.fused_attention == pytest.approx(fitted.fused_attention, abs=0.01)
    shares = {"matmul": stated.matmul, "fused_attention": stated.fused_attention}
    assert replace(fitted, **shares) == stated


@pytest.mark.skipif(not plan_stacks.FILE.is_file(), reason=ABSENT)
def test_a_stack_that_was_left_out_is_predicted_within_15_percent_on_four_rows_of_five():
    rows = [*plan_stacks.read(), plan_stacks.automodel()]
    errors = [abs(error) for _, error in plan_stacks.errors(rows)]
    assert sum(error <= 0.15 for error in errors) >= 0.8 * len(rows)
    share = plan_stacks.attention_share([row for row in rows if not row.how.fused])
    assert load_machine("h100").efficiency.attention == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize("tp", [1, 2])
def test_seconds_of_muon_are_its_products_and_the_momenta_it_waits_for(zero, tp):
    parallel = ParallelConfig(processes=4 * tp, tp=tp, zero_stage=zero, precision=Precision.fp32)
    network, batch = Network.of(MODEL), Batch(8192, 4096, 2, 64)
    machine = load_machine("h100")
    plain, muon = (
        step_time(network, machine, Execution.of(parallel, MODEL, kind), batch)
        for kind in OptimizerKind
    )
    # A block: queries, keys, values and outputs of both attentions, eight matrices of D x D (keys
    # and values of captions among them), and two of D x 4 D.
    d = MODEL.width
    square, wide = 5 * (4 * d**3 + 2 * d**3), 5 * (16 * d**3 + 2 * d**3)
    flops = MODEL.depth * (8 * square + 2 * wide)
    whole = 4 * MODEL.depth * (8 + 2 * 4) * d * d  # fp32 bytes of all matrices
    share = machine.matmul_share(d) * machine.peak("fp32")
    products = flops / share
    seconds = muon.optimizer - plain.optimizer
    joined = (tp - 1) * whole / tp / bandwidth(machine, 2, 1)
    if zero == 0:
        assert seconds == pytest.approx(products + joined, rel=1e-6)
    else:  # a rank of four works on a quarter, and on what reaches over its edges
        seconds -= 3 * whole / tp / 4 / bandwidth(machine, 4, tp)
        assert (products + joined) / 4 * (1 - 1e-9) <= seconds < (products + joined) / 2
    assert replace(muon, optimizer=0.0) == replace(plain, optimizer=0.0)
