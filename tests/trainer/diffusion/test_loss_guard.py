"""What becomes of a step whose loss or gradient is not a number, or whose loss jumps."""

import json
import math
import random
import subprocess
import sys

import pytest

from trainer.config import FaultConfig, NanPolicy, SpikePolicy
from trainer.diffusion.loss_guard import Guard, GuardState, Verdict

NAN, INF = math.nan, math.inf
update, skip, rewind, stop = Verdict.update, Verdict.skip, Verdict.rewind, Verdict.stop


def make(losses: int = 0, **faults: object) -> Guard:
    """Return a guard with a window of 8 that has applied some steps of loss 1."""
    guard = Guard(FaultConfig(**({"spike_window": 8, "spike_factor": 3.0} | faults)))
    for _ in range(losses):
        assert guard.judge(1.0, True) == (update, "")
    return guard


def verdicts(guard: Guard, *losses: float) -> list[Verdict]:
    return [guard.judge(loss, True)[0] for loss in losses]


@pytest.mark.parametrize(("loss", "finite"), [(NAN, True), (INF, True), (-INF, True), (1.0, False)])
def test_a_step_that_is_not_a_number_stops_the_run_by_default(loss: float, finite: bool) -> None:
    verdict, reason = make().judge(loss, finite)
    assert verdict is stop
    assert reason.startswith("faults.on_nan=stop: ")
    assert ("gradient norm" in reason) == math.isfinite(loss)


@pytest.mark.parametrize(("loss", "finite"), [(NAN, True), (INF, True), (1.0, False)])
def test_a_step_that_is_not_a_number_can_be_skipped(loss: float, finite: bool) -> None:
    guard = make(3, on_nan=NanPolicy.skip)
    verdict, reason = guard.judge(loss, finite)
    assert (verdict, bool(reason)) == (skip, True)
    assert guard.state == GuardState([1.0] * 3, skipped=1, skipped_in_row=1)


def test_more_skips_in_a_row_than_allowed_stop_the_run() -> None:
    guard = make(on_nan=NanPolicy.skip, max_skips=2)
    assert verdicts(guard, NAN, NAN, 1.0, NAN, NAN) == [skip, skip, update, skip, skip]
    verdict, reason = guard.judge(NAN, True)
    assert verdict is stop
    assert "faults.max_skips=2" in reason
    assert guard.state.skipped == 5


def test_no_skip_is_allowed_when_none_may_follow() -> None:
    assert verdicts(make(on_nan=NanPolicy.skip, max_skips=0), NAN) == [stop]


def test_a_spike_is_logged_by_default_and_enters_the_window() -> None:
    guard = make(8)
    verdict, reason = guard.judge(3.5, True)
    assert verdict is update
    assert reason == "the loss 3.5 is above 3 x 1, the median of the last 8 steps"
    assert guard.state == GuardState([1.0] * 7 + [3.5], spikes=1)


def test_a_loss_at_the_factor_is_no_spike() -> None:
    assert make(8).judge(3.0, True) == (update, "")


def test_half_a_window_of_losses_is_needed_to_see_a_spike() -> None:
    assert make(3).judge(100.0, True) == (update, "")
    assert make(4).judge(100.0, True)[1] != ""


def test_one_earlier_spike_does_not_hide_the_next() -> None:
    guard = make(8)
    assert [bool(guard.judge(loss, True)[1]) for loss in (50.0, 50.0, 1.0, 50.0)] == [
        True,
        True,
        False,
        True,
    ]
    assert guard.state.spikes == 3


def test_a_skipped_spike_stays_out_of_the_window() -> None:
    guard = make(8, on_spike=SpikePolicy.skip)
    assert verdicts(guard, 9.0, 1.0) == [skip, update]
    assert guard.state == GuardState([1.0] * 8, skipped=1, spikes=1)


def test_a_loss_that_stays_high_is_not_skipped_for_ever() -> None:
    guard = make(8, on_spike=SpikePolicy.skip, on_nan=NanPolicy.skip, max_skips=3)
    assert verdicts(guard, 9.0, NAN, 9.0, 9.0) == [skip, skip, skip, stop]


def test_a_spike_can_rewind_but_not_more_often_than_allowed() -> None:
    guard = make(8, on_spike=SpikePolicy.rewind, max_rewinds=2)
    assert verdicts(guard, 9.0, 1.0, 9.0, 1.0) == [rewind, update, rewind, update]
    verdict, reason = guard.judge(9.0, True)
    assert verdict is stop
    assert "faults.max_rewinds=2" in reason
    assert guard.state == GuardState([1.0] * 8, spikes=3, rewinds=3)


def test_a_rewind_takes_the_losses_of_the_checkpoint_and_keeps_the_counts() -> None:
    guard = make(6, on_spike=SpikePolicy.rewind)
    saved = guard.state_dict()
    assert verdicts(guard, 2.0, 9.0) == [update, rewind]
    guard.rewind_to(saved)
    assert guard.state == GuardState([1.0] * 6, spikes=1, rewinds=1)
    assert verdicts(guard, 2.0) == [update]
    assert saved["losses"] == [1.0] * 6


def test_a_run_that_spikes_at_the_same_place_after_each_rewind_ends() -> None:
    guard = make(6, on_spike=SpikePolicy.rewind, max_rewinds=2)
    saved = guard.state_dict()
    for expected in (rewind, rewind, stop):
        assert verdicts(guard, 1.0, 9.0) == [update, expected]
        guard.rewind_to(saved)


def test_losses_that_are_not_positive_are_never_spikes() -> None:
    guard = make()
    assert [guard.judge(loss, True) for loss in [-1.0] * 8 + [5.0]] == [(update, "")] * 9


def test_a_state_dict_is_a_copy() -> None:
    guard = make(2)
    saved = guard.state_dict()
    saved["losses"].append(5.0)
    restored = Guard.from_dict(guard.config, saved)
    restored.judge(1.0, True)
    assert (guard.state.losses, saved["losses"]) == ([1.0] * 2, [1.0, 1.0, 5.0])


def test_a_window_made_smaller_forgets_the_oldest_losses() -> None:
    saved = GuardState([float(i) for i in range(20)])
    guard = Guard(FaultConfig(spike_window=8), saved)
    assert guard.state.losses == [float(i) for i in range(12, 20)]


def draw_steps(draw: random.Random, count: int) -> list[tuple[float, bool]]:
    """Return losses that fall, jump now and then, and now and then are not numbers."""
    special = {0: (NAN, True), 1: (INF, True), 2: (1.0, False)}
    steps = []
    for i in range(count):
        loss = draw.lognormvariate(-i / count, 0.4) * (4 if draw.random() < 0.08 else 1)
        steps.append(special.get(draw.randrange(40), (loss, True)))
    return steps


@pytest.mark.parametrize("seed", range(20))
def test_resuming_anywhere_changes_no_verdict(seed: int) -> None:
    draw = random.Random(seed)
    config = FaultConfig(
        on_nan=draw.choice(list(NanPolicy)),
        on_spike=draw.choice(list(SpikePolicy)),
        max_skips=draw.randrange(4),
        spike_window=draw.randrange(8, 40),
        spike_factor=draw.uniform(1.1, 4),
    )
    steps = draw_steps(draw, 200)
    whole, resumed = Guard(config), Guard(config)
    for loss, finite in steps:
        if draw.random() < 0.2:
            resumed = Guard.from_dict(config, json.loads(json.dumps(resumed.state_dict())))
        assert resumed.judge(loss, finite) == whole.judge(loss, finite)
        assert resumed.state == whole.state
        assert len(whole.state.losses) <= config.spike_window
        assert all(map(math.isfinite, whole.state.losses))


def test_the_module_does_not_import_torch() -> None:
    code = "import sys, trainer.diffusion.loss_guard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0
