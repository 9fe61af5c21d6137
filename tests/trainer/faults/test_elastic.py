"""Elastic exact data: killed and resumed on other layouts, every sample of an epoch counts once."""

from pathlib import Path
from random import Random

import pytest

from .conftest import Inject, Twin, finish
from .harness import Group
from .inject import kill
from .runs import (
    STEPS,
    assert_exactly_once,
    logged_steps,
    prepare,
    records,
    samples_by_step,
    update_error,
)

pytestmark = pytest.mark.dist
slow = pytest.mark.slow
# Relative tolerances in fp32, as in test_layouts.
LOSS, PARAMS = 1e-5, 1e-4
PACKS = "data.packs_per_step=4"

# What each attempt runs on: ranks and overrides of parallel.*.
LAYOUTS = {
    "1": (1, []),
    "2": (2, ["zero_stage=1"]),
    "2z3": (2, ["zero_stage=3"]),
    "4": (4, ["zero_stage=1"]),
    "tp2": (2, ["tp=2"]),
    "pp2": (2, ["pp=2", "zero_stage=1"]),
    "cp2": (2, ["cp=2", "zero_stage=1"]),
    "tp2dp2": (4, ["tp=2", "zero_stage=1"]),
}
# Every attempt but the last dies at a random step.
CHAINS = ["1 2 4", "4 1 2", "2 4 1", "4 2 1 4", "2 2z3 2 1", "tp2 pp2 2", "pp2 1 tp2dp2", "cp2 4 1"]


def overrides(name: str) -> tuple[int, list[str]]:
    """Return the number of ranks of a layout and its overrides."""
    world, settings = LAYOUTS[name]
    layout = [f"parallel.{setting}" for setting in settings]
    return world, [PACKS, "checkpoint.steps=1", f"parallel.processes={world}", *layout]


@pytest.mark.parametrize(
    "chain", [pytest.param(c, marks=() if i == 0 else slow) for i, c in enumerate(CHAINS)]
)
def test_a_run_killed_on_one_layout_goes_on_on_another(
    latents: Path, tmp_path: Path, twin: Twin, inject: Inject, chain: str
) -> None:
    folder, names, draw = tmp_path / "run", chain.split(), Random(chain)
    row = None
    for name in names[:-1]:
        world, settings = overrides(name)
        prepare(latents, folder, *settings)
        row = inject("kill -9, resumed on another layout")
        victim, step = draw.randrange(world), draw.randint(1, 3)
        with Group(
            folder, world, {victim: kill("trainer.diffusion.loop:accumulate", step)}
        ) as group:
            codes = group.wait()
            assert codes[victim] == -9, group.logs()
        row.detect()
    world, settings = overrides(names[-1])
    finish(prepare(latents, folder, *settings), world)
    expected = twin(1, PACKS)
    assert samples_by_step(folder) == samples_by_step(expected)
    assert_exactly_once(folder, epochs=2)
    assert logged_steps(folder) == list(range(1, STEPS + 1))
    assert update_error(folder, expected) < PARAMS
    for found, wanted in zip(records(folder), records(expected), strict=True):
        assert found == pytest.approx(wanted, rel=LOSS)
    assert row is not None
    row.recovered += len(names) - 2
    row.recover(folder, expected)
