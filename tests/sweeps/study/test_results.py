"""From run folders to runs.csv: nothing is lost, what is left out says why."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.fit.law import fit_table
from sweeps.fit.options import FitOptions
from sweeps.kinds.isoflop.pilot import compare_twins
from sweeps.study.results import (
    COLUMNS,
    collect,
    excluded_rows,
    read_result,
    seed_noise,
    write_rows,
)
from sweeps.study.spec import Phase, Spec


def result(name: str, **values: Any) -> dict[str, Any]:
    whole = {"name": name, "status": "finished", "params": 50_000, "tokens": 1e6, "flops": 4e11}
    whole |= {"flops_6nd": 3e11, "loss": 0.5, "loss_noise": 0.003, "lr": 5e-3}
    whole |= {"batch_tokens": 512, "width": 48, "depth": 1, "steps": 100, "seconds": 3.0}
    return whole | {"world_size": 1, "zero_stage": 0} | values


@pytest.fixture
def runs(tmp_path: Path) -> tuple[list[Spec], dict[str, Path]]:
    """Return a study's specs and folders: every phase, a diverged run and one without a result."""
    specs = [
        Spec(name, Phase(phase), 4e11)
        for name, phase in (
            ("pilot", "pilot"), ("good", "grid"), ("more", "extend"), ("again", "replicate"),
            ("twin", "twin"), ("burst", "grid"), ("gone", "grid"),
        )
    ]  # fmt: skip
    folders = {spec.name: tmp_path / f"{spec.name}-0123456789" for spec in specs}
    for spec in specs:
        folder = folders[spec.name]
        folder.mkdir()
        if spec.name == "burst":
            value = {"name": folder.name, "status": "diverged", "reason": "loss is nan at step 7"}
            (folder / "result.json").write_text(json.dumps(value | {"steps": 7}))
        elif spec.name != "gone":
            (folder / "result.json").write_text(json.dumps(result(folder.name)))
    return specs, folders


def test_every_run_has_a_row_and_what_is_left_out_a_reason(runs: tuple) -> None:
    specs, folders = runs
    rows = collect(specs, folders, None)
    assert [row["name"] for row in rows] == [folders[spec.name].name for spec in specs]
    reasons = {row["name"].split("-")[0]: row["reason"] for row in rows if row["excluded"]}
    assert reasons == {
        "pilot": "pilot: chose the grids",
        "twin": "twin: shows that the layout is invisible",
        "burst": "diverged: loss is nan at step 7",
        "gone": "missing: no result.json",
    }
    assert all(row["reason"] == "" for row in rows if not row["excluded"])


def test_noise_of_draws_and_of_seeds_add_in_squares(runs: tuple) -> None:
    specs, folders = runs
    noise = seed_noise([[0.496, 0.5, 0.504]])
    assert noise is not None
    assert noise.relative == pytest.approx(0.008)
    rows = {row["name"].split("-")[0]: row for row in collect(specs, folders, noise)}
    assert rows["good"]["loss_noise"] == pytest.approx((0.003**2 + 0.004**2) ** 0.5)
    assert rows["gone"]["loss_noise"] is None
    plain = {row["name"].split("-")[0]: row for row in collect(specs, folders, None)}
    assert plain["good"]["loss_noise"] == 0.003


def test_one_seed_tells_no_noise() -> None:
    assert seed_noise([]) is None
    assert seed_noise([[0.5], []]) is None


def test_points_pool_their_relative_variances_by_degrees_of_freedom() -> None:
    noise = seed_noise([[0.396, 0.4, 0.404], [0.9], [0.19, 0.21]])
    assert noise is not None
    assert (noise.mean, noise.n) == (pytest.approx(0.2), 5)
    expected = ((2 * 0.01**2 + (0.02 / 2**0.5 / 0.2) ** 2) / 3) ** 0.5
    assert noise.relative == pytest.approx(expected)


def test_the_table_reads_back_as_written(runs: tuple, tmp_path: Path) -> None:
    specs, folders = runs
    rows = collect(specs, folders, None)
    rows[1]["reason"] = 'a "quoted", comma\nand line'
    path = tmp_path / "runs.csv"
    write_rows(path, rows)
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert tuple(found[0]) == COLUMNS
    for row, text in zip(rows, found, strict=True):
        assert text == {key: "" if row[key] is None else str(row[key]) for key in COLUMNS}
    assert not list(tmp_path.glob("*.tmp"))
    assert {item["name"].split("-")[0] for item in excluded_rows(path)} == {
        "pilot", "twin", "burst", "gone",
    }  # fmt: skip


def test_the_fitter_reads_the_table_and_misses_only_runs(runs: tuple, tmp_path: Path) -> None:
    specs, folders = runs
    write_rows(tmp_path / "runs.csv", collect(specs, folders, None))
    with pytest.raises(ValueError, match=r"runs=1: form=chinchilla .* needs at least 6"):
        fit_table(tmp_path / "runs.csv", options=FitOptions(resamples=5))


def test_a_run_without_a_result_has_none(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None


def test_twins_are_compared_by_their_worse_loss() -> None:
    one = result("one", loss=0.5, loss_real=0.8)
    two = result("two", loss=0.5, loss_real=0.8004, world_size=2, zero_stage=1)
    twins = compare_twins([one, two])
    assert twins is not None
    assert twins["max_relative_difference"] == pytest.approx(5e-4)
    assert twins["world_sizes"] == [1, 2]
    assert twins["zero_stages"] == [0, 1]
    assert twins["equal_tokens"]
    assert compare_twins([one]) is None
    shorter = compare_twins([one, two | {"tokens": 9e5}])
    assert shorter is not None
    assert not shorter["equal_tokens"]
