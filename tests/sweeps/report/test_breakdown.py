"""The loss by noise level and by kind of clip: exact ratios of what the runs recorded."""

import json
from pathlib import Path

import numpy as np
import pytest

from sweeps.report.figures.breakdown import draw_breakdown
from sweeps.report.inputs.isoflop import Inputs, read_inputs
from sweeps.report.tables.breakdown import breakdown_table, breakdowns, by_time, noise_table

from ..study_files import BUDGETS, write_runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("breakdown")
    write_runs(study, np.random.default_rng(1))
    return study


@pytest.fixture
def inputs(folder: Path) -> Inputs:
    return read_inputs(folder)


def parts_of(inputs: Inputs, title: str) -> dict:
    (found,) = [b.parts for b in breakdowns(inputs) if b.title == title]
    return found


def test_groups_join_into_exact_ratios_of_sums(inputs: Inputs) -> None:
    worlds = parts_of(inputs, "world")
    assert list(worlds) == ["doom", "rooms"]
    for budget in BUDGETS:
        best = min(r.loss for r in inputs.grid_runs if r.budget == budget)
        rooms = worlds["rooms"][budget]
        assert rooms.loss == pytest.approx((0.7 + 1.0) / 2 * best, rel=1e-12)
        assert rooms.noise == pytest.approx((4 + 4) ** 0.5 / 2000)
        assert rooms.clips == 8
    assert list(parts_of(inputs, "length")) == ["image", "9 frames", "17 frames"]
    assert list(parts_of(inputs, "size")) == ["64×96 px", "96×64 px"]


def test_unequal_groups_weigh_by_their_values(inputs: Inputs) -> None:
    for result in inputs.results.values():
        still, moving, _ = result["validation"]["val_worlds"]["groups"]
        still.update(values=10.0, errors=10.0)
        moving.update(values=30.0, errors=90.0)
    assert parts_of(inputs, "world")["rooms"][BUDGETS[0]].loss == pytest.approx(100 / 40)


def test_many_sizes_and_lengths_are_joined_by_doublings(inputs: Inputs) -> None:
    group = {"world": "w", "clips": 1, "values": 1.0, "errors": 1.0, "variance": 0.0}
    groups = [{**group, "num_frames": 1 + 4 * i, "height": 32 + i, "width": 32} for i in range(20)]
    for result in inputs.results.values():
        result["validation"]["val_worlds"]["groups"] = groups
    lengths = parts_of(inputs, "length")
    assert list(lengths)[:3] == ["image", "4 to 7 frames", "8 to 15 frames"]
    assert sum(part[BUDGETS[0]].clips for part in lengths.values()) == 20
    assert list(parts_of(inputs, "size")) == ["1.02 k to 2.05 k px"]


def test_results_from_before_groups_were_recorded_give_no_breakdown(inputs: Inputs) -> None:
    for result in inputs.results.values():
        del result["validation"]["val_worlds"]["groups"]
    assert breakdowns(inputs) == []
    assert breakdown_table(inputs) is None
    assert [drawing.name for drawing in draw_breakdown(inputs)] == ["noise"]
    for result in inputs.results.values():
        result.clear()
    assert by_time(inputs) == {}
    assert noise_table(inputs) is None
    assert draw_breakdown(inputs) == []


def test_broken_groups_are_left_out(inputs: Inputs) -> None:
    for result in inputs.results.values():
        groups = result["validation"]["val_worlds"]["groups"]
        groups[0]["values"] = 0
        groups[1] = {"world": None}
        groups.append("text")
    assert list(parts_of(inputs, "world")) == ["doom"]


def test_tables_say_what_compute_improved(inputs: Inputs) -> None:
    table = breakdown_table(inputs)
    assert [row[0].text for row in table.rows][:2] == ["world: doom", "world: rooms"]
    best = [min(r.loss for r in inputs.grid_runs if r.budget == b) for b in BUDGETS]
    assert table.rows[0][-1].value == pytest.approx(best[-1] / best[0] - 1)
    levels = noise_table(inputs)
    assert [row[0].text for row in levels.rows] == [
        "0 to 0.25", "0.25 to 0.5", "0.5 to 0.75", "0.75 to 1",
    ]  # fmt: skip
    assert levels.rows[0][1].value == pytest.approx(1.6 * best[0])


def test_hostile_names_of_worlds_stay_text(inputs: Inputs, tmp_path: Path) -> None:
    name = "$x^2$ </svg><script>alert(1)</script>"
    for result in inputs.results.values():
        for group in result["validation"]["val_worlds"]["groups"]:
            group["world"] = name
    (drawing,) = [d for d in draw_breakdown(inputs) if d.name == "groups"]
    assert "<script" not in drawing.svg
    assert "&lt;script&gt;" in drawing.svg
    assert json.dumps(breakdown_table(inputs).rows[0][0].text).startswith('"world: $x^2$')
