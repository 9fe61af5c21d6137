"""What breaks a run from inside: a NaN in a batch, a loss that jumps."""

from dataclasses import dataclass
from math import nan
from pathlib import Path

import pytest

from ..conftest import read_json
from .conftest import Inject, Twin
from .harness import Group
from .inject import Both, Corrupt, InfiniteGradient, KeepRewound, kill
from .runs import (
    STEPS,
    assert_exactly_once,
    differing,
    events,
    final,
    logged_steps,
    prepare,
    records,
    sample_lines,
    samples_by_step,
    saved_at,
    two_ranks,
)

pytestmark = pytest.mark.dist
slow = pytest.mark.slow
BAD = 3  # 0-based step that the fault hits
EVERY_STEP = ["checkpoint.steps=1", "checkpoint.keep=20"]
SKIP = ["faults.on_nan=skip", *EVERY_STEP]


@dataclass(frozen=True)
class Layout:
    """A layout by its overrides."""

    world: int
    overrides: tuple[str, ...]


LAYOUTS = {
    "one rank": Layout(1, ()),
    "ZeRO 0 on two": Layout(2, tuple(two_ranks(0))),
    "ZeRO 1 on two": Layout(2, tuple(two_ranks(1))),
    "ZeRO 2 on two": Layout(2, tuple(two_ranks(2))),
    "ZeRO 3 on two": Layout(2, tuple(two_ranks(3))),
    "bf16": Layout(1, ("parallel.zero_stage=1", "parallel.precision=bf16")),
    "bf16 on two": Layout(2, (*two_ranks(1), "parallel.precision=bf16")),
    "two stages": Layout(2, (*two_ranks(1), "parallel.pp=2")),
    "two context ranks": Layout(2, (*two_ranks(1), "parallel.cp=2")),
    "two tensor ranks": Layout(2, (*two_ranks(1), "parallel.tp=2")),
}
FAST = {"one rank", "ZeRO 1 on two", "bf16"}
WHOLE = {name for name in LAYOUTS if "ZeRO" in name} | {"one rank", "bf16", "bf16 on two"}


def culprit(latents: Path, twin: Twin) -> str:
    """Return a sample of the bad step that no other step shows."""
    steps = samples_by_step(twin(1))
    others = {key for step, seen in steps.items() if step != BAD for key, _ in seen}
    return next(key for key, _ in steps[BAD] if key not in others)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FAST else slow) for n in LAYOUTS]
)
def test_a_nan_costs_one_update_and_no_bit_of_state(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject, name: str
) -> None:
    layout, key = LAYOUTS[name], culprit(latents, twin)
    folder = prepare(latents, tmp_path / "run", *layout.overrides, *SKIP)
    row = inject("NaN in a batch, skipped", policy=True)
    with Group(folder, layout.world, every(layout.world, Corrupt(nan, keys=[key]))) as group:
        assert group.wait() == [0] * layout.world, group.logs()
    assert [(e["event"], e["keys"]) for e in events(folder)] == [("skip", [key])]
    row.detect()
    assert differing(saved_at(folder, BAD), saved_at(folder, BAD + 1)) == []
    assert len(differing(saved_at(folder, BAD + 1), saved_at(folder, BAD + 2))) > 50
    result = read_json(folder / "result.json")
    assert (result["steps"], result["updates"]) == (STEPS, STEPS - 1)
    assert logged_steps(folder) == list(range(1, STEPS + 1))
    assert [r["step"] for r in records(folder) if "train_loss" not in r] == [BAD + 1, STEPS]
    assert "NaN" not in (folder / "metrics.jsonl").read_text()
    assert_exactly_once(folder)
    row.recover(folder)


def every(world: int, fault: Corrupt) -> dict[int, Corrupt]:
    """Install a fault on all ranks; it strikes where the sample is."""
    return dict.fromkeys(range(world), fault)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "ZeRO 1 on two" else slow) for n in sorted(WHOLE)]
)
def test_an_infinite_gradient_of_one_rank_costs_one_update_and_no_bit(
    latents: Path, tmp_path: Path, inject: Inject, name: str
) -> None:
    layout = LAYOUTS[name]
    folder = prepare(latents, tmp_path / "run", *layout.overrides, *SKIP)
    row = inject("infinite gradient, skipped", policy=True)
    packs = 2 // layout.world
    with Group(
        folder, layout.world, {layout.world - 1: InfiniteGradient(BAD * packs + 1)}
    ) as group:
        assert group.wait() == [0] * layout.world, group.logs()
    (event,) = events(folder)
    assert (event["event"], event["step"]) == ("skip", BAD + 1)
    assert sorted(event["keys"]) == sorted(key for key, _ in samples_by_step(folder)[BAD])
    row.detect()
    assert differing(saved_at(folder, BAD), saved_at(folder, BAD + 1)) == []
    assert len(differing(saved_at(folder, BAD + 1), saved_at(folder, BAD + 2))) > 50
    assert read_json(folder / "result.json")["updates"] == STEPS - 1
    row.recover(folder)


@slow
def test_a_run_that_dies_after_a_skipped_nan_resumes_bit_for_bit(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject
) -> None:
    poison = Corrupt(nan, keys=[culprit(latents, twin)])
    whole, cut = (prepare(latents, tmp_path / name, *SKIP) for name in ("whole", "cut"))
    with Group(whole, 1, {0: poison}) as group:
        assert group.wait() == [0]
    row = inject("kill -9 after a skipped NaN")
    with Group(cut, 1, {0: Both((poison, kill("trainer.diffusion.loop:accumulate", 6)))}) as group:
        group.wait()
    row.detect()
    with Group(cut, 1, {0: poison}) as group:
        assert group.wait() == [0], group.logs()
    assert differing(final(cut), final(whole)) == []
    assert records(cut) == records(whole)
    assert final(cut).state["guard"] == final(whole).state["guard"]
    row.recover(cut, whole)


def test_a_nan_stops_the_run_by_policy_and_is_named(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject
) -> None:
    key = culprit(latents, twin)
    folder = prepare(latents, tmp_path / "run", "faults.on_nan=stop")
    row = inject("NaN in a batch, stopped by policy", policy=True)
    with Group(folder, 1, {0: Corrupt(nan, keys=[key])}) as group:
        assert group.wait() == [0], group.logs()
    result = read_json(folder / "result.json")
    assert result["status"] == "diverged"
    assert f"['{key}']" in result["reason"]
    assert [(e["event"], e["keys"]) for e in events(folder)] == [("stop", [key])]
    row.detect()


@slow
def test_nans_in_a_row_end_the_run(latents: Path, tmp_path: Path, inject: Inject) -> None:
    folder = prepare(latents, tmp_path / "run", "faults.on_nan=skip", "faults.max_skips=2")
    row = inject("NaN in a batch, stopped by policy", policy=True)
    with Group(folder, 1, {0: Corrupt(nan, steps=list(range(1, STEPS)))}) as group:
        assert group.wait() == [0], group.logs()
    result = read_json(folder / "result.json")
    assert (result["status"], result["steps"]) == ("diverged", 4)
    assert "faults.max_skips=2" in result["reason"]
    assert [e["event"] for e in events(folder)] == ["skip", "skip", "stop"]
    row.detect()


# --- a loss spike ---------------------------------------------------------------------------------

SPIKE_STEPS, SPIKE = 9, 6
JUMP = Corrupt(30.0, steps=[SPIKE])
SPIKES = [f"horizon.steps={SPIKE_STEPS}", "faults.spike_window=8", "faults.spike_factor=6"]


DONE = {"log": "logged", "skip": "skipped"}


@pytest.mark.parametrize("policy", list(DONE))
def test_a_spike_is_logged_or_skipped_by_policy(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject, policy: str
) -> None:
    folder = prepare(latents, tmp_path / "run", *SPIKES, *EVERY_STEP, f"faults.on_spike={policy}")
    row = inject(f"a loss spike, {DONE[policy]}", policy == "skip")
    with Group(folder, 1, {0: JUMP}) as group:
        assert group.wait() == [0], group.logs()
    (event,) = events(folder)
    assert event["event"] == ("spike" if policy == "log" else "skip")
    assert "above 6 x" in event["reason"]
    expected = sorted(key for key, _ in samples_by_step(folder)[SPIKE])
    assert sorted(event["keys"]) == expected
    row.detect()
    changed = differing(saved_at(folder, SPIKE), saved_at(folder, SPIKE + 1))
    assert (len(changed) > 50) if policy == "log" else changed == []
    updates = read_json(folder / "result.json")["updates"]
    assert updates == SPIKE_STEPS - (policy == "skip")
    assert logged_steps(folder) == list(range(1, SPIKE_STEPS + 1))
    row.recover(folder, twin(1))


@pytest.mark.parametrize("name", ["one rank", pytest.param("ZeRO 1 on two", marks=slow)])
def test_a_spike_rewinds_to_the_checkpoint_and_its_batches_are_skipped(
    latents: Path, tmp_path: Path, inject: Inject, name: str
) -> None:
    layout = LAYOUTS[name]
    overrides = [*layout.overrides, *SPIKES, "faults.on_spike=rewind", "checkpoint.steps=4"]
    folder = prepare(latents, tmp_path / "run", *overrides, "checkpoint.keep=20")
    row = inject("a loss spike, rewound", policy=True)
    faults = dict.fromkeys(range(layout.world), Both((JUMP, KeepRewound(100))))
    with Group(folder, layout.world, faults) as group:
        assert group.wait() == [0] * layout.world, group.logs()
    assert [(e["event"], e["step"]) for e in events(folder)] == [("rewind", SPIKE + 1)]
    row.detect()
    # What the run had in memory right after it went back, against what was saved.
    kept = saved_at(folder.with_name("run-rewound"), 100)
    assert differing(kept, saved_at(folder, 4)) == []
    progress = final(folder).state["progress"]
    assert (progress["rewinds"], progress["rewound_steps"]) == (1, 3)
    assert (progress["step"], progress["updates"]) == (SPIKE_STEPS, SPIKE_STEPS)
    assert logged_steps(folder) == list(range(1, SPIKE_STEPS + 1))
    seen = [sample for line in sample_lines(folder) for sample in line[3]]
    assert len(set(seen)) == len(seen)  # no batch again, neither the bad nor the rewound ones
    assert len({step for _, step, _, _ in sample_lines(folder)}) == SPIKE_STEPS
    row.recover(folder)


@slow
def test_a_run_that_dies_after_a_rewind_resumes_bit_for_bit(
    latents: Path, tmp_path: Path, inject: Inject
) -> None:
    overrides = [*SPIKES, "faults.on_spike=rewind", "checkpoint.steps=4"]
    whole, cut = (prepare(latents, tmp_path / name, *overrides) for name in ("whole", "cut"))
    with Group(whole, 1, {0: JUMP}) as group:
        assert group.wait() == [0]
    row = inject("kill -9 after a rewind")
    with Group(cut, 1, {0: Both((JUMP, kill("trainer.diffusion.loop:accumulate", 9)))}) as group:
        group.wait()
    row.detect()
    with Group(cut, 1, {0: JUMP}) as group:
        assert group.wait() == [0], group.logs()
    assert differing(final(cut), final(whole)) == []
    assert records(cut) == records(whole)
    row.recover(cut, whole)


def test_a_run_that_must_rewind_too_often_has_diverged(
    latents: Path, tmp_path: Path, inject: Inject
) -> None:
    overrides = [*SPIKES, "faults.on_spike=rewind", "checkpoint.steps=4", "faults.max_rewinds=1"]
    folder = prepare(latents, tmp_path / "run", *overrides)
    row = inject("a loss spike, stopped by policy", policy=True)
    with Group(folder, 1, {0: Corrupt(30.0, steps=list(range(SPIKE, 100)))}) as group:
        assert group.wait() == [0], group.logs()
    result = read_json(folder / "result.json")
    assert result["status"] == "diverged"
    assert "faults.max_rewinds=1" in result["reason"]
    assert [e["event"] for e in events(folder)] == ["rewind", "stop"]
    row.detect()
