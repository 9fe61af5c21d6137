"""The claim of the roles: activations change as much in a wide model as in a narrow one."""

from dataclasses import replace

import pytest

from benchmarks.coordinate_check import (
    BASE,
    DEPTH_RULES,
    DEPTHS,
    RULES,
    WIDTHS,
    Row,
    measure,
    powers,
)
from trainer.layout.optimizer import OptimizerKind
from trainer.optim_config import OptimConfig

STEPS = 3
OPTIM = OptimConfig(lr=5e-3, beta2=0.95)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return measure(BASE, WIDTHS, OPTIM, steps=STEPS, seeds=2)


@pytest.mark.heavy
def test_under_the_roles_no_change_grows_or_shrinks_with_the_width(rows: list[Row]) -> None:
    assert max(WIDTHS) == 8 * min(WIDTHS)
    found = powers(rows, RULES[0], STEPS)
    assert {"head", "modulation", "blocks.1", "blocks.1.mlp", "scores of self-attention"} < set(
        found
    )
    assert {part: power for part, power in found.items() if abs(power) > 0.25} == {}


@pytest.mark.heavy
def test_with_one_rate_for_all_parameters_changes_grow_with_the_width(rows: list[Row]) -> None:
    # Else the check above could not fail. Matrices learn at the same rate, so what they add grows
    # with their fan-in; saturation lowers the power in later steps.
    found = powers(rows, RULES[1], 2)
    for part in ("head", "modulation", "blocks.0", "blocks.0.self_attention", "blocks.0.mlp"):
        assert found[part] > 0.5, part


@pytest.mark.heavy
def test_under_muon_no_change_grows_with_the_width_and_at_one_rate_blocks_do() -> None:
    muon = replace(OPTIM, kind=OptimizerKind.muon)
    rows = measure(BASE, WIDTHS, muon, steps=STEPS, seeds=1)
    found, control = powers(rows, RULES[0], STEPS), powers(rows, RULES[1], 2)
    assert {part: power for part, power in found.items() if abs(power) > 0.3} == {}
    for part in ("blocks.0.self_attention", "blocks.0.mlp"):
        assert control[part] > 0.6, part


@pytest.mark.heavy
def test_inputs_from_a_fixed_size_learn_alike_by_either_rule(rows: list[Row]) -> None:
    for rule in RULES:
        assert abs(powers(rows, rule, 2)["patch_in"]) < 0.1


@pytest.mark.heavy
def test_the_output_starts_at_zero_and_moves_at_once_at_every_width(rows: list[Row]) -> None:
    moved = [row.change for row in rows if row.rule == RULES[0] and row.part == "head"]
    assert min(moved) > 0
    still = [r.change for r in rows if r.part == "blocks.0.mlp" and r.step == 1]
    assert set(still) == {0.0}  # behind a head of zeros nothing gets a gradient in the first step


@pytest.fixture(scope="module")
def deep() -> list[Row]:
    return measure(BASE, DEPTHS, OPTIM, steps=STEPS, seeds=2, rules=DEPTH_RULES)


@pytest.mark.heavy
def test_with_branches_by_depth_no_change_grows_with_the_depth(deep: list[Row]) -> None:
    assert max(DEPTHS) == 8 * min(DEPTHS)
    found = powers(deep, DEPTH_RULES[0], STEPS)
    assert {part: power for part, power in found.items() if power > 0.25} == {}
    # What all branches together make keeps its size; a single one shrinks as its share does.
    for part in ("head", "last block", "modulation", "head_modulation"):
        assert abs(found[part]) < 0.25, part
    assert found["blocks.0"] < -0.5


@pytest.mark.heavy
def test_with_whole_branches_the_last_block_changes_more_the_deeper_it_lies(
    deep: list[Row],
) -> None:
    assert powers(deep, DEPTH_RULES[1], STEPS)["last block"] > 0.5
