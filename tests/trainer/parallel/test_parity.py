"""The layout is invisible: tensor, context, pipeline and data parallel compute what one does.

Every layout of {1, 2}^4 on up to eight processes trains five steps on gloo: packed sequences of
images and videos of unequal size, clipping in effect, one and four micro-batches a rank. ``make
test`` takes each layout once, ``make test-dist`` with every ZeRO stage and accumulation.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import write_latents
from .parity import (
    COMPILED,
    MISTAKES,
    MIXED,
    MIXED_REST,
    REDUCED,
    SPECIAL,
    Case,
    all_cases,
    compare,
    few_cases,
)
from .worlds import run_world

pytestmark = pytest.mark.dist

# Relative, in fp32: losses, global gradient norms, validation; and each parameter's movement over
# five steps. Measured: see the table that these tests print.
TOLERANCE = 1e-5
FEW = few_cases()
REST = [case for case in all_cases() if case not in FEW]
COLUMNS = ["layout", "processes", "ZeRO", "accumulation", "loss", "norm", "weights", "validation"]


def train(cases: list[Case], root: Path) -> Path:
    """Train cases and the single processes they are compared with, world by world."""
    latents = root / "latents"
    write_latents(latents)
    wanted = {case.name: case for case in cases}
    wanted |= {case.reference.name: case.reference for case in cases}
    for world in sorted({case.world for case in wanted.values()}):
        mine = [case for case in wanted.values() if case.world == world]
        run_world(world, "tests.trainer.parallel.parity:train_cases", mine, latents, root)
    return root


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the cases of ``make test`` left what they found."""
    return train([*FEW, *SPECIAL, *MISTAKES], tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the cases whose segments have spans."""
    return train(MIXED, tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the cases that reduce gradients in other ways."""
    return train(REDUCED, tmp_path_factory.mktemp("reduced"))


@pytest.fixture(scope="module")
def mixed_rest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the other layouts whose segments have spans."""
    return train(MIXED_REST, tmp_path_factory.mktemp("mixed_rest"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the cases whose blocks are compiled."""
    return train(COMPILED, tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all other cases."""
    return train(REST, tmp_path_factory.mktemp("rest"))


def check(case: Case, root: Path, table: Callable[..., None]) -> None:
    found = compare(case, root / "latents", root)
    note = " ".join(
        p
        for p in (
            "mixed spans" * case.mixed,
            f"interleave{case.interleave}" * (case.interleave > 1),
            case.extra,
        )
        if p
    )
    layout = f"{case.layout} {note.replace('parallel.', '')}".strip()
    errors = (found.loss, found.norm, found.weights, found.validation)
    table(layout, case.world, case.zero, case.accumulation, *(f"{e:.1e}" for e in errors))
    assert found.worst < TOLERANCE, found


@pytest.fixture
def parity_row(summary_table: Callable[..., Callable[..., None]]) -> Callable[..., None]:
    """Return what adds a row to the table at the end."""
    return summary_table("parity with a single process, relative, fp32", COLUMNS)


@pytest.mark.parametrize("case", [*FEW, *SPECIAL], ids=lambda case: case.name)
def test_a_layout_computes_what_one_process_does(
    few: Path, case: Case, parity_row: Callable[..., None]
) -> None:
    check(case, few, parity_row)


@pytest.mark.parametrize("case", MIXED, ids=lambda case: case.name)
def test_a_layout_computes_what_one_process_does_where_segments_have_spans(
    mixed: Path, case: Case, parity_row: Callable[..., None]
) -> None:
    check(case, mixed, parity_row)


@pytest.mark.parametrize("case", REDUCED, ids=lambda case: case.name)
def test_ways_to_reduce_gradients_compute_what_one_process_does(
    reduced: Path, case: Case, parity_row: Callable[..., None]
) -> None:
    check(case, reduced, parity_row)


@pytest.mark.slow
@pytest.mark.parametrize("case", MIXED_REST, ids=lambda case: case.name)
def test_every_layout_computes_what_one_process_does_where_segments_have_spans(
    mixed_rest: Path, case: Case, parity_row: Callable[..., None]
) -> None:
    check(case, mixed_rest, parity_row)


@pytest.mark.slow
@pytest.mark.parametrize("case", COMPILED, ids=lambda case: case.name)
def test_compiled_blocks_of_a_layout_compute_what_one_process_does(
    compiled: Path, case: Case, parity_row: Callable[..., None]
) -> None:
    check(case, compiled, parity_row)


@pytest.mark.slow
@pytest.mark.parametrize("case", REST, ids=lambda case: case.name)
def test_every_layout_and_stage_computes_what_one_process_does(
    rest: Path, case: Case, parity_row: Callable[..., None]
) -> None:
    check(case, rest, parity_row)


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: case.name)
def test_a_mistake_of_public_stacks_would_be_noticed(
    few: Path, case: Case, parity_row: Callable[..., None]
) -> None:
    found = compare(case, few / "latents", few)
    errors = (found.loss, found.norm, found.weights, found.validation)
    row = (f"{case.layout} {case.mistake}", case.world, case.zero, case.accumulation)
    parity_row(*row, *(f"{e:.1e}" for e in errors))
    assert found.worst > 100 * TOLERANCE


def test_the_cases_are_all_layouts() -> None:
    assert len({case.layout for case in FEW}) == 14 == len(FEW)
    assert {case.zero for case in FEW} == {0, 1, 2, 3}
    assert {case.accumulation for case in FEW} == {1, 4}
    assert {case.layout for case in [*MIXED, *MIXED_REST]} == {case.layout for case in FEW}
    assert {case.zero for case in MIXED if case.layout == "dp2"} == {0, 1, 2, 3}
    assert max(case.world for case in FEW) == 8 <= 4 * (os.cpu_count() or 1) * 8
