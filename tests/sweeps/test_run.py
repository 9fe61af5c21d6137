"""The study's runner without training: its pilot, its grids' edges, its law and its errors."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.dataset.shards import ShardWriter, write_manifest
from data.files import write_json
from sweeps.kinds.compose import compose_study
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.kinds.isoflop.run import IsoflopRunner
from sweeps.report.pages.isoflop import build_report
from sweeps.run import main
from sweeps.study.results import collect, write_rows
from sweeps.study.spec import Phase, Spec
from sweeps.study.y_axis import YAxisConfig

E, A, ALPHA, B, BETA = 0.3, 9.0, 0.4, 40.0, 0.45


@pytest.fixture
def study(tmp_path: Path) -> StudyConfig:
    root = tmp_path / "clips"
    with ShardWriter(root, "train", 1_000_000) as writer:
        for number in range(8):
            meta = {
                "key": f"clip-{number}", "media": "latent", "num_frames": 9, "height": 64,
                "width": 96, "fps": 12.0, "duration_seconds": 0.75, "caption": "a clip",
                "source": f"rooms/{number}", "licence": "CC0", "rendered": True, "original": {},
                "caption_tokens": 5,
            }  # fmt: skip
            writer.write(meta, b"none", "safetensors")
    write_manifest(root, {"name": "clips"})
    base = f'base=["experiment=cpu_demo","data.root={root}"]'
    return compose_study(["study=demo", base, f"root={tmp_path}/runs", "resamples=50"])


def write_result(
    runner: IsoflopRunner, spec: Spec, params: float, tokens: float, loss: float
) -> None:
    """Write what a run of a spec would leave behind."""
    folder = runner.study.folder / "runs" / spec.name
    folder.mkdir(parents=True)
    flops = 6 * params * tokens
    values: dict[str, Any] = {"name": spec.name, "status": "finished", "params": params}
    values |= {"tokens": tokens, "flops": flops, "flops_6nd": flops, "loss": loss}
    values |= {"loss_noise": 1e-4, "lr": 5e-3, "batch_tokens": 768, "width": 48, "depth": 1}
    values |= {"seconds": 1.0, "padding_share": 0.02, "accounting": {"tokens": tokens}}
    (folder / "result.json").write_text(json.dumps(values))
    runner.specs.append(spec)
    runner.folders[spec.name] = folder


def law_loss(params: float, tokens: float) -> float:
    return E + A / params**ALPHA + B / tokens**BETA


def plant(runner: IsoflopRunner, budgets: list[float], sizes: list[float]) -> None:
    """Write a study's grid whose losses lie on a law."""
    for budget in budgets:
        centre = 4e4 * (budget / 1.2e11) ** 0.5
        for size in sizes:
            params = round(centre * size)
            tokens = budget / (6 * params)
            spec = Spec(f"grid-{budget:g}-{params}", Phase.grid, budget)
            write_result(runner, spec, params, tokens, law_loss(params, tokens))


def finish(runner: IsoflopRunner) -> tuple[dict, str]:
    """Do what follows the training, except for samples; return the law and the page."""
    runner.tabulate()
    runner.fit()
    runner.account()
    write_json(runner.study.folder / "study.json", runner.about("2026-01-02T10:00:00+00:00"))
    page = build_report(runner.study.folder).read_text()
    assert json.loads((runner.study.folder / "law.json").read_text()) == runner.law
    return runner.law, page


def test_the_pilots_minimum_is_the_vertex_of_its_parabola(study: StudyConfig) -> None:
    runner = IsoflopRunner(study, [])
    for number, params in enumerate((2e4, 4e4, 8e4)):
        loss = (1.02, 1.0, 1.02)[number]
        write_result(runner, Spec(f"pilot-{number}", Phase.pilot, 8e10), params, 1e5, loss)
        sizes = ("1 size", "2 sizes", "3 sizes")[number]
        assert runner.pilot_minimum()[1].startswith(f"{sizes} at 7e+10 FLOPs; ")
    centre, text = runner.pilot_minimum()
    assert centre == pytest.approx(4e4, rel=1e-3)
    assert "the vertex of a parabola" in text


def test_a_pilot_without_an_interior_minimum_says_so(study: StudyConfig) -> None:
    runner = IsoflopRunner(study, [])
    for number, params in enumerate((2e4, 4e4, 8e4)):
        write_result(
            runner, Spec(f"pilot-{number}", Phase.pilot, 8e10), params, 1e5, 1.0 - number / 9
        )
    centre, text = runner.pilot_minimum()
    assert centre == pytest.approx(8e4)
    assert "for want of an interior minimum" in text


@pytest.mark.heavy
def test_a_study_without_a_finished_pilot_stops_with_the_remedy(study: StudyConfig) -> None:
    with pytest.raises(ValueError, match=r"pilot: no run finished\. See the log"):
        IsoflopRunner(study, []).pilot_minimum()


def test_only_budgets_with_their_best_run_at_an_edge_are_extended(study: StudyConfig) -> None:
    runner = IsoflopRunner(study, [])
    losses = {0: (1.0, 0.9, 1.0), 1: (1.0, 0.9, 0.8), 2: (0.8, 0.9, 1.0)}
    for column, values in losses.items():
        budget = study.budgets[column]
        for params, loss in zip((4e4, 7e4, 1.2e5), values, strict=True):
            spec = Spec(f"grid-{column}-{params:g}", Phase.grid, budget)
            write_result(runner, spec, params, budget / (6 * params), loss)
    more = runner.extensions()
    assert [spec.budget for spec in more] == [study.budgets[1], study.budgets[2]]
    assert {spec.phase for spec in more} == {"extend"}


@pytest.mark.heavy
def test_a_planted_law_comes_back_from_the_studys_own_table(study: StudyConfig) -> None:
    runner = IsoflopRunner(study, [])
    plant(runner, list(study.budgets), [0.35, 0.6, 1.0, 1.7, 2.9])
    law, page = finish(runner)
    assert law["coefficients"]["alpha"] == pytest.approx(ALPHA, rel=0.02)
    assert law["coefficients"]["E"] == pytest.approx(E, rel=0.02)
    assert abs(law["held_out"]["relative_error"]) < 1e-3
    assert "No law was fitted" not in page


@pytest.mark.heavy
def test_a_study_on_an_axis_extends_fits_and_shows_by_it(study: StudyConfig) -> None:
    study.y_axis, study.resamples = YAxisConfig(window=[0.5, 1.0]), 20
    runner = IsoflopRunner(study, [])
    plant(runner, list(study.budgets), [0.35, 0.6, 1.0, 1.7, 2.9])
    for folder in runner.folders.values():
        result = json.loads((folder / "result.json").read_text())
        late, early = result["loss"], 2 + 1e5 / result["params"]  # least at the largest size
        result |= {"loss": (early + late) / 2, "loss_by_time": [early, late]}
        (folder / "result.json").write_text(json.dumps(result))
    assert runner.extensions() == []
    law, page = finish(runner)
    assert law["coefficients"]["alpha"] == pytest.approx(ALPHA, rel=0.02)
    assert law["asked"]["y_axis"] == {"weighting": "uniform", "window": [0.5, 1.0]}
    assert "The law under other weightings of noise levels" in page
    assert "uniform, t from 0.5 to 1 (registered)" in page
    assert "y_axis.weighting=uniform" in page  # the command that fits it again


@pytest.mark.heavy
def test_a_study_too_small_to_fit_ends_with_a_law_file_and_a_page(
    study: StudyConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = IsoflopRunner(study, [])
    write_result(runner, Spec("pilot-0", Phase.pilot, 8e10), 3e4, 1e5, 1.0)
    plant(runner, list(study.budgets[:2]), [0.6, 1.7])
    law, page = finish(runner)
    assert law["form"] == "chinchilla"
    assert law["coefficients"] is law["intervals"] is law["held_out"] is None
    assert law["warnings"][0].startswith("No law was fitted: runs=4:")
    assert law["excluded"] == [{"name": "pilot-0", "reason": "pilot: chose the grids"}]
    assert "No law was fitted: runs=4:" in page
    assert "No law was fitted" in capsys.readouterr().err


def test_a_study_whose_grid_failed_still_ends_with_a_page(study: StudyConfig) -> None:
    runner = IsoflopRunner(study, [])
    write_result(runner, Spec("pilot-0", Phase.pilot, 8e10), 3e4, 1e5, 1.0)
    runner.specs.append(Spec("grid-gone", Phase.grid, study.budgets[0]))
    runner.folders["grid-gone"] = study.folder / "runs/grid-gone"
    law, page = finish(runner)
    assert {"name": "grid-gone", "reason": "missing: no result.json"} in law["excluded"]
    assert "missing: no result.json" in page
    assert "accounting" not in json.loads((study.folder / "data.json").read_text())


def test_replicates_and_their_point_make_the_noise(study: StudyConfig) -> None:
    runner = IsoflopRunner(study, [])
    budget = study.replicates.budgets[0]
    write_result(runner, Spec("grid-0", Phase.grid, budget), 4e4, 1e6, 0.500)
    for seed, loss in ((1, 0.504), (2, 0.496)):
        write_result(runner, Spec(f"replicate-s{seed}", Phase.replicate, budget), 4e4, 1e6, loss)
    runner.tabulate()
    assert runner.noise is not None
    assert (runner.noise.n, runner.noise.std) == (3, pytest.approx(0.004))
    assert [row["excluded"] for row in runner.rows] == [0, 0, 0]
    assert len({row["cluster"] for row in runner.rows}) == 1
    again = collect(runner.specs, runner.folders, runner.noise)
    write_rows(study.folder / "again.csv", again)
    assert (study.folder / "again.csv").read_text() == (study.folder / "runs.csv").read_text()


def test_the_command_lists_the_studies_and_refuses_what_it_does_not_know(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.split("studies: ")[1].strip().split(", ")
    assert {"demo", "smoke", "captions", "framing"} <= set(listed)
    assert main(["study=demo", "budget=[1e9]"]) == 2
    assert (
        "error: budget: unknown key. Did you mean budgets? Allowed: base, budgets"
        in capsys.readouterr().err
    )


@pytest.mark.heavy
def test_a_study_is_looked_at_and_refused_before_anything_is_written(
    study: StudyConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = json.dumps(list(study.base))
    words = ["study=demo", f"root={tmp_path}/runs", f"base={base}"]
    assert main(["check=true", "--json", *words]) == 2
    found = json.loads(capsys.readouterr().out)
    bad = [check["name"] for check in found["checks"] if check["verdict"] == "bad"]
    assert bad == ["validation.splits=val_worlds", "validation.splits=val_real"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: validation.splits=val_worlds: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.heavy
def test_a_study_on_data_that_is_not_there_stops_before_any_run(tmp_path: Path) -> None:
    base = f'base=["experiment=cpu_smoke","data.root={tmp_path}/none"]'
    command = [sys.executable, "-m", "sweeps.run", "study=smoke", f"root={tmp_path}/runs", base]
    repo = Path(__file__).parents[2]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=repo)
    assert result.returncode == 2, result.stderr
    assert "error: " in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("runs/smoke/runs/*"))
