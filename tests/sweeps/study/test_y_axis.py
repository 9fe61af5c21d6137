"""A study's registered axis: when it may change, what it makes of results, who must know of it."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.compare.command import compare
from sweeps.fit.__main__ import parse
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.y_axis import MIDDLE, PLAIN, YAxis, YWeighting, weights
from sweeps.kinds.compose import compose_any, compose_study
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.predict.answer import Budget
from sweeps.predict.command import fit_asked
from sweeps.predict.source import find_source
from sweeps.report.inputs.isoflop import read_inputs
from sweeps.report.tables.breakdown import by_time, noise_table
from sweeps.study.freeze import freeze_study
from sweeps.study.results import collect, write_rows
from sweeps.study.spec import Phase, Spec, save_plan
from sweeps.study.y_axis import columns_in, on_axis

LOSSES = [0.9, 0.7, 0.5, 0.4, 0.4, 0.5, 0.8, 1.5]
TRAINED = [0.05, 0.1, 0.15, 0.2, 0.2, 0.15, 0.1, 0.05]


def result(name: str = "run", scale: float = 1.0) -> dict[str, Any]:
    """Return a result whose loss of each stratum is known, each of as many values."""
    strata = {
        "errors": [200.0 * scale * loss for loss in LOSSES], "values": [200.0] * 8,
        "variance": [4.0 * (i + 1) for i in range(8)], "trained": TRAINED,
    }  # fmt: skip
    loss = scale * sum(LOSSES) / 8
    return {
        "name": name, "status": "finished", "loss": loss, "loss_noise": 0.01, "params": 1e4,
        "tokens": 1e6, "flops": 6e10, "t_range": [0.0, 1.0], "spread": 0.28,
        "loss_by_time": [(a + b) / 2 for a, b in zip(LOSSES[::2], LOSSES[1::2], strict=True)],
        "validation": {"val_worlds": {"strata": strata}},
    }  # fmt: skip


def test_a_result_on_an_axis_has_its_loss_and_its_noise() -> None:
    found = on_axis(result(), MIDDLE)
    assert found["loss"] == pytest.approx((0.5 + 0.4 + 0.4 + 0.5) / 4)
    assert found["loss_uniform"] == pytest.approx(sum(LOSSES) / 8)
    assert found["loss_noise"] == pytest.approx((4 * (3 + 4 + 5 + 6)) ** 0.5 / 4 / 200)
    trained = on_axis(result(), YAxis(YWeighting.trained))
    expected = sum(w * loss for w, loss in zip(TRAINED, LOSSES, strict=True))
    assert trained["loss"] == pytest.approx(expected)
    elbo = YAxis(YWeighting.elbo)
    expected = sum(w * loss for w, loss in zip(weights(elbo, 8), LOSSES, strict=True))
    assert on_axis(result(), elbo)["loss"] == pytest.approx(expected)


def test_the_plain_axis_changes_no_loss_and_keeps_the_strata() -> None:
    found = on_axis(result())
    assert (found["loss"], found["loss_noise"]) == (result()["loss"], 0.01)
    columns = columns_in(found)
    assert [columns[f"loss_t{i}"] for i in range(1, 9)] == pytest.approx(LOSSES)
    assert "loss_uniform" not in columns
    failed = {"status": "diverged", "reason": "loss is nan"}
    assert on_axis(failed, MIDDLE) == failed


def test_quarters_of_older_results_are_strata_too() -> None:
    older = result() | {"validation": {"val_worlds": {"loss": 1.0}}}
    assert on_axis(older, MIDDLE)["loss"] == pytest.approx((0.45 + 0.45) / 2)
    assert on_axis(older, MIDDLE)["loss_noise"] is None
    with pytest.raises(ValueError, match=r"^y_axis.weighting=trained: run has no loss_trained"):
        on_axis(older, YAxis(YWeighting.trained))


def test_a_run_of_some_times_has_no_other_axis() -> None:
    expert = result() | {"t_range": [0.0, 0.5]}
    assert on_axis(expert) == expert
    with pytest.raises(ValueError, match=r"^y_axis=uniform, t from 0.25 .* needs runs of all"):
        on_axis(expert, MIDDLE)


def study(root: Path, *words: str) -> StudyConfig:
    return compose_study(["study=demo", f"root={root}", *words])


MIDDLE_WORDS = "y_axis.window=[0.25,0.75]"


def begin(folder: Path, budget: float, name: str, file: str) -> None:
    (folder / "runs" / name).mkdir(parents=True)
    (folder / "runs" / name / file).write_text("")
    specs = [Spec("small", Phase.grid, 1e11), Spec("large", Phase.grid, budget)]
    save_plan(folder, specs, {"small": "small-1", "large": "large-1"})


@pytest.mark.parametrize("file", ["metrics.jsonl", "result.json"])
def test_an_axis_may_change_until_the_largest_budget_runs(tmp_path: Path, file: str) -> None:
    plain, middle = study(tmp_path), study(tmp_path, MIDDLE_WORDS)
    freeze_study(plain)
    begin(plain.folder, 2e12, "small-1", "result.json")
    freeze_study(middle)
    assert "window:\n  - 0.25" in (middle.folder / "study.yaml").read_text()
    begin(plain.folder, 2e12, "large-1", file)
    freeze_study(middle)  # nothing changes
    with pytest.raises(ValueError, match=r"^y_axis=uniform: 1 of the runs at the largest budget, "):
        freeze_study(plain)
    assert "window:\n  - 0.25" in (middle.folder / "study.yaml").read_text()


@pytest.mark.parametrize("words", [["study=arms_smoke"], ["study=cpu_density"], ["study=cpu_data"]])
def test_studies_of_any_kind_register_an_axis(tmp_path: Path, words: list[str]) -> None:
    plain, middle = (
        compose_any([*words, f"root={tmp_path}", *axis]) for axis in ([], [MIDDLE_WORDS])
    )
    largest = plain.largest_budget or 2e12  # of lengths in tokens the plan says it
    freeze_study(plain)
    begin(plain.folder, largest, "small-1", "result.json")
    freeze_study(middle)
    begin(plain.folder, largest, "large-1", "metrics.jsonl")
    with pytest.raises(ValueError, match="an axis is registered before they do") as said:
        freeze_study(plain)
    assert f"1 of the runs at the largest budget, {largest:g} FLOPs, have begun" in str(said.value)
    assert ("kinescale fit table=" in str(said.value)) is (words != ["study=arms_smoke"])
    with pytest.raises(ValueError, match=r"y_axis.window=\[0.7, 0.2\]: must rise within"):
        compose_any([*words, f"root={tmp_path}", "y_axis.window=[0.7,0.2]"])


def test_a_study_frozen_before_axes_had_the_plain_one(tmp_path: Path) -> None:
    plain = study(tmp_path)
    freeze_study(plain)
    path = plain.folder / "study.yaml"
    lines = path.read_text().splitlines()
    at = lines.index("y_axis:")
    path.write_text("\n".join([*lines[:at], *lines[at + 5 :]]))
    assert "y_axis" not in path.read_text()
    assert "level" in path.read_text()
    begin(plain.folder, 2e12, "large-1", "result.json")
    freeze_study(plain)
    path.write_text("\n".join([*lines[:at], *lines[at + 5 :]]))
    with pytest.raises(ValueError, match=r"an axis is registered before they do\. Keep uniform"):
        freeze_study(study(tmp_path, MIDDLE_WORDS))


def test_a_window_that_falls_is_refused_when_a_study_is_composed() -> None:
    with pytest.raises(ValueError, match=r"^y_axis.window=\[0.7, 0.2\]: must rise"):
        compose_study(["study=demo", "y_axis.window=[0.7,0.2]"])


def written(root: Path, name: str, *words: str, scale: float = 1.0) -> Path:
    """Write the table and frozen study of runs that lie on a power of compute."""
    made = study(root, f"name={name}", *words)
    freeze_study(made)
    specs, folders = [], {}
    for i in range(4):
        for size in (0.5, 1.0, 2.0):
            spec = Spec(f"r{i}-{size}", Phase.grid, 1e11 * 4**i)
            folder = folders[spec.name] = made.folder / "runs" / spec.name
            folder.mkdir(parents=True)
            params, tokens = size * 1e4 * 2**i, 1e11 * 4**i / 6 / size / 1e4 / 2**i
            loss = scale * (0.3 + 9 / params**0.4 + 40 / tokens**0.45)
            values = result(spec.name, loss) | {"params": params, "tokens": tokens}
            (folder / "result.json").write_text(json.dumps(values | {"flops": spec.budget}))
            specs.append(spec)
    write_rows(made.folder / "runs.csv", collect(specs, folders, None, y_axis=made.y_axis.axis))
    return made.folder


def test_the_table_of_a_study_is_on_its_axis_and_keeps_the_others(tmp_path: Path) -> None:
    folder = written(tmp_path, "middle", MIDDLE_WORDS)
    with (folder / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scale = float(rows[0]["loss_t1"]) / LOSSES[0]
    assert float(rows[0]["loss"]) == pytest.approx(0.45 * scale)
    assert float(rows[0]["loss_uniform"]) == pytest.approx(sum(LOSSES) / 8 * scale)
    assert float(rows[0]["loss_trained"]) > 0


def test_studies_of_two_axes_are_not_compared(tmp_path: Path) -> None:
    middle, plain = written(tmp_path, "a", MIDDLE_WORDS), written(tmp_path, "b")
    with pytest.raises(ValueError, match=r"y_axis is uniform, t from 0.25 to 0.75 and uniform"):
        compare(str(middle), str(plain))
    other = written(tmp_path, "c", MIDDLE_WORDS, scale=0.9)
    found, *_ = compare(str(middle), str(other), FitOptions(resamples=5))
    assert "y_axis" in found.validation


def test_reports_tell_strata_in_the_log_snr_of_the_data(tmp_path: Path) -> None:
    inputs = read_inputs(written(tmp_path, "plain"))
    assert all(len(losses) == 8 for losses in by_time(inputs).values())
    table = noise_table(inputs)
    assert table is not None
    levels = [row[1].text for row in table.rows]
    # 2 (log t / (1 - t) + log 0.28) at 1/8 and 7/8
    assert (levels[0], levels[-1]) == ("below -6.4", "above 1.3")


def test_the_plain_axis_is_what_no_axis_was() -> None:
    assert StudyConfig().y_axis.axis == PLAIN


def test_what_is_fitted_and_predicted_from_a_study_names_its_axis(tmp_path: Path) -> None:
    folder = written(tmp_path, "middle", MIDDLE_WORDS)
    asked = parse([f"table={folder / 'runs.csv'}"])
    assert asked.y_axis == MIDDLE
    assert "y_axis.weighting=uniform y_axis.window=[0.25,0.75]: from" in asked.said
    other = parse([f"table={folder / 'runs.csv'}", "y_axis.weighting=elbo"])
    assert other.y_axis == YAxis(YWeighting.elbo)
    plain = parse([f"table={written(tmp_path, 'plain') / 'runs.csv'}"])
    assert plain.y_axis is None
    assert "y_axis" not in plain.said
    budget = Budget(1e13, 1, 1.0, "cpu2", "fp32", 0.5)
    options = {"form": "kaplan", "resamples": 2}
    law, said = fit_asked(find_source(str(folder)), options, budget)
    assert "y_axis.window=[0.25,0.75]: from" in said
    kept = json.loads((folder / "runs/r0-0.5/result.json").read_text())
    assert law.runs[0].loss == on_axis(kept, MIDDLE)["loss"]
