"""Bytes kept for the backward pass, against the allocator and the trainer's own schedule."""

from dataclasses import replace

import pytest

from benchmarks.plan_memory import measure, predict
from launch.planner.activations import (
    PackShape,
    block_bytes,
    packs_in_flight,
    rotation_bytes,
    working_bytes,
)
from models.config import ModelConfig
from trainer.layout.config import ParallelConfig, Recompute
from trainer.layout.cost import Work, checkpoint_bytes
from trainer.layout.layout import Coordinates
from trainer.layout.messages import schedule

MODEL = ModelConfig(width=128, depth=3, head_dim=32)
CLIPS = [((2, 8, 12), 16)] * 2


@pytest.mark.parametrize("mode", list(Recompute))
def test_the_closed_form_is_what_the_allocator_saw(mode):
    parallel = ParallelConfig(recompute=mode, device="cpu")
    kept, peak, pack = measure(MODEL, parallel, CLIPS, gathers=True)
    predicted = predict(MODEL, parallel, pack, gathers=True)
    assert predicted[0] == pytest.approx(kept, rel=0.05)
    assert predicted[1] == pytest.approx(peak, rel=0.06)


@pytest.mark.parametrize(
    ("pp", "interleave", "micros"), [(4, 1, 8), (4, 1, 2), (2, 2, 4), (4, 3, 8)]
)
def test_packs_in_flight_are_those_of_the_schedule(pp, interleave, micros):
    parallel = ParallelConfig(processes=pp, pp=pp, interleave=interleave)
    for stage in range(pp):
        held = most = 0
        for action in schedule(stage, pp, interleave, micros):
            held += 1 if action.forward else -1
            most = max(most, held)
        assert packs_in_flight(parallel, stage, micros) == pytest.approx(most / interleave)


@pytest.mark.parametrize(("tp", "cp", "pp"), [(1, 1, 1), (2, 1, 2), (1, 4, 1), (2, 2, 4)])
def test_full_recomputation_keeps_what_the_trainers_closed_form_says(tp, cp, pp):
    model = replace(MODEL, depth=8, width=256)
    parallel = ParallelConfig(
        processes=tp * cp * pp, tp=tp, cp=cp, pp=pp, zero_stage=1, recompute=Recompute.full
    )
    pack = PackShape(rows=1024, spans=3, captions=60)
    block = block_bytes(model, parallel, pack, True, Recompute.full)
    blocks = 8 // pp
    flight = packs_in_flight(parallel, 0, 16)
    mine = flight * (blocks * block + rotation_bytes(model, parallel, pack))
    assert mine == checkpoint_bytes(model, parallel, Coordinates(), Work(1024, 3, 60, micros=16))


def test_every_axis_and_mode_keeps_less():
    pack = PackShape(rows=4096, spans=4, captions=128)

    def kept(**axes):
        processes = axes.get("tp", 1) * axes.get("cp", 1)
        parallel = ParallelConfig(processes=processes, zero_stage=1, **axes)
        return block_bytes(MODEL, parallel, pack, True, parallel.recompute)

    modes = [kept(recompute=mode) for mode in Recompute]
    assert modes == sorted(modes, reverse=True)
    assert kept(tp=2) < kept()
    assert kept(cp=2) < kept()
    assert kept(tp=2, cp=2) < min(kept(tp=2), kept(cp=2))


def test_what_is_not_kept_is_needed_again_for_one_block():
    pack = PackShape(rows=4096, spans=4, captions=128)
    working = [
        working_bytes(MODEL, ParallelConfig(recompute=mode), pack, True) for mode in Recompute
    ]
    assert working == sorted(working)
