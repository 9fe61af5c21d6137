"""The seat of an architecture: a toy of one file trains under every kind of parallelism.

The rooms do not know it. Its file and this test are all that it touches.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch

from launch.planner.activations import PackShape
from launch.planner.machine import load_machine
from launch.planner.memory import plan_memory
from launch.planner.network import Network
from launch.planner.speed import Batch, Execution, step_time
from models.architecture import check_model, specification_of
from models.config import ModelConfig
from models.count import count_flops, count_params
from models.network import build_network
from trainer.config import compose_run
from trainer.identity import run_name
from trainer.layout.config import ParallelConfig
from trainer.layout.layout import Layout
from trainer.layout.shapes import rank_params

from ...models.test_count import PACKS, counted
from .parity import Case
from .test_parity import COLUMNS, check, train

ROOT = Path(__file__).parents[3]
ROOMS = ("models", "data", "trainer", "launch", "sweeps")
NAME = "tests.trainer.parallel.toy"
KNOWN = re.compile(r"(from|import) models\.(architectures|dit\.(model|blocks|modulation|rope))")
MODEL = ModelConfig(width=64, depth=4, architecture=NAME, options={"hidden": 1.5})
CASES = [
    Case(dp=2, zero=1, architecture=NAME),
    Case(tp=2, zero=1, architecture=NAME),
    Case(pp=2, zero=2, accumulation=2, architecture=NAME),
    Case(cp=2, zero=3, architecture=NAME),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the cases left what they found."""
    return train(CASES, tmp_path_factory.mktemp("toy"))


@pytest.mark.dist
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.layout)
def test_the_toy_computes_under_a_layout_what_one_process_does(
    root: Path, case: Case, summary_table: Callable[..., Callable[..., None]]
) -> None:
    table = summary_table("parity of the toy with a single process, relative, fp32", COLUMNS)
    check(case, root, table)


def test_the_specification_names_the_parameters_of_the_toy() -> None:
    with torch.device("meta"):
        network = build_network(MODEL)
    found = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert list(found.items()) == list(specification_of(MODEL).shapes.items())
    assert count_params(MODEL).total == sum(map(prod, found.values()))
    stages = [Layout(pp=2).coordinates(rank) for rank in range(2)]
    held = sum(rank_params(MODEL, Layout(pp=2), 1, place) for place in stages)
    assert held == count_params(MODEL).total


@pytest.mark.parametrize("shapes", PACKS, ids=str)
def test_the_toys_flops_are_torchs(shapes: list[tuple[int, int]]) -> None:
    ours = count_flops(MODEL, [s for s, _ in shapes], [max(1, c) for _, c in shapes], False)
    assert ours.total == counted(MODEL, shapes, backward=False)
    assert ours.cross_attention == 0


def test_the_planner_sees_a_toy_with_more_hidden_units_as_larger_and_slower() -> None:
    parallel, machine = ParallelConfig(processes=2, tp=2, zero_stage=1), load_machine("h100")
    pack, batch = PackShape(rows=1024, spans=4, captions=4), Batch(1024, 256, 4, 1)
    small, large = (replace(MODEL, options={"hidden": hidden}) for hidden in (1, 8))
    memory = [plan_memory(m, parallel, pack, 1, machine) for m in (small, large)]
    assert memory[0].activations < memory[1].activations
    assert memory[0].params < memory[1].params
    how = Execution.of(parallel, MODEL)
    times = [step_time(Network.of(m), machine, how, batch).matmul for m in (small, large)]
    assert times[0] < times[1]


def test_an_option_is_checked_and_makes_another_run() -> None:
    base = ["experiment=cpu_smoke", "data.root=x", f"model.architecture={NAME}"]
    runs = [compose_run([*base, *more]) for more in ([], ["model.options.hidden=3"])]
    assert len({run_name(run) for run in [*runs, compose_run(base[:2])]}) == 3
    assert runs[1].model.options == {"hidden": 3.0}
    with pytest.raises(ValueError, match=r"options.hiden=3.* Options: hidden\."):
        check_model(replace(MODEL, options={"hiden": 3.0}))


def test_the_toy_touches_its_own_file_and_this_test() -> None:
    kinds = (".py", ".yaml", ".toml", ".md")
    rooms = (
        "models",
        "data",
        "trainer",
        "launch",
        "sweeps",
        "kinescale",
        "tests",
        "benchmarks",
        "docs",
    )
    files = [p for room in rooms for p in (ROOT / room).rglob("*") if p.suffix in kinds]
    named = {p.name for p in files if NAME in p.read_text(encoding="utf-8")}
    assert named == {Path(__file__).name}
    imported = {p.name for p in files if "import toy" in p.read_text(encoding="utf-8")}
    assert imported <= {Path(__file__).name}
    assert (ROOT / "/".join(NAME.split("."))).with_suffix(".py").is_file()


def test_no_other_room_knows_a_network_by_name() -> None:
    for room in ROOMS[1:]:
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not KNOWN.search(text), path
