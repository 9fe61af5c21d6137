"""Every kind of study of points from its YAML to its page, with real runs of a few steps."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.kinds.compose import compose_any
from sweeps.kinds.points.config import PointsConfig
from sweeps.run import run_study
from tests.trainer.conftest import write_latents

SMOKE = {
    "params": ("sizes.params=[2e4,4e4]", "lengths.tokens=[1.6e3]", "repeat.seeds=[]",
               "y_axis.window=[0.5,1.0]"),
    "data": ("sizes.params=[2e4]", "lengths.tokens=[1.6e3]", "axes=['data.limit=8,0']"),
    "lr_batch": ("sizes.params=[2e4]", "lengths.tokens=[1.6e3]", "axes=['optim.lr=1e-3,2e-3']"),
    "ladder_samples": ("sizes={params: [2e4], at: 1e8, exponent: 0.5}",
                       "lengths.flops=[4e8,1e9]", "samples={prompts: 1, steps: 2}"),
    "schedule": ("sizes.params=[2e4]", "branches={every: 2, count: 1, decay: 0.34}"),
}  # fmt: skip


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_latents(tmp_path_factory.mktemp("blobs"))


def compose(kind: str, latents: Path, runs: Path) -> PointsConfig:
    base = ["experiment=cpu_smoke", f"data.root={latents}", "log.wandb=disabled",
            "validation.splits=[val_worlds]", "validation.curve_points=0"]  # fmt: skip
    study = compose_any(
        [f"study=cpu_{kind}", f"base={json.dumps(base)}", f"root={runs}", "resamples=20",
         "recipe.pack_tokens=512", "recipe.batch_tokens=512", *SMOKE[kind]]
    )  # fmt: skip
    assert isinstance(study, PointsConfig)
    return study


def rows_of(study: PointsConfig) -> list[dict[str, Any]]:
    return list(csv.DictReader((study.folder / "runs.csv").read_text().splitlines()))


def carry_out(kind: str, latents: Path, runs: Path) -> list[dict[str, Any]]:
    """Run a study twice; the second time must start nothing. Return the rows."""
    study = compose(kind, latents, runs)
    assert run_study(study, [f"study=cpu_{kind}"]) == 0
    results = sorted(study.folder.glob("runs/*/result.json"))
    before = [path.stat().st_mtime_ns for path in results]
    attempts = [json.loads(path.read_text())["attempts"] for path in results]
    assert run_study(study, [f"study=cpu_{kind}"]) == 0
    assert [path.stat().st_mtime_ns for path in results] == before
    assert attempts == [1] * len(results)
    assert (study.folder / "report/index.html").stat().st_size > 10_000
    rows = rows_of(study)
    assert {row["status"] for row in rows} == {"finished"}
    return rows


@pytest.mark.heavy
def test_two_sizes_are_trained_tabled_and_not_trained_again(latents: Path, tmp_path: Path) -> None:
    rows = carry_out("params", latents, tmp_path)
    assert len(rows) == 2
    assert rows[0]["params"] != rows[1]["params"]
    finding = json.loads((tmp_path / "cpu_params/analysis.json").read_text())
    for row in rows:
        halves = [float(row[f"loss_t{i}"]) for i in range(5, 9)]
        assert float(row["loss"]) == pytest.approx(sum(halves) / 4, rel=1e-4)
        assert float(row["loss"]) != pytest.approx(float(row["loss_uniform"]), rel=1e-3)
    told = json.loads((tmp_path / "cpu_params/study.json").read_text())
    assert told["loss"].endswith(", uniform, t from 0.5 to 1")
    assert any("No law power was fitted" in warning for warning in finding["warnings"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["data", "lr_batch", "ladder_samples"])
def test_two_points_of_a_kind_go_through_the_whole_line(kind, latents, tmp_path) -> None:
    rows = carry_out(kind, latents, tmp_path)
    assert len(rows) == 2
    if kind == "data":
        assert float(rows[0]["epochs"]) > float(rows[1]["epochs"])
    if kind == "ladder_samples":
        page = (tmp_path / "cpu_ladder_samples/report/index.html").read_text()
        assert page.count("data:video/mp4;base64,") == 3


@pytest.mark.slow
def test_a_trunk_and_its_branch_cost_less_than_two_runs(latents: Path, tmp_path: Path) -> None:
    trunk, branch = carry_out("schedule", latents, tmp_path)
    assert (trunk["phase"], branch["phase"]) == ("trunk", "branch")
    assert float(branch["spent_flops"]) < float(branch["flops"])
    assert trunk["reason"] == "trunk: its rate never falls"
    assert branch["cluster"]


@pytest.mark.slow
def test_every_full_study_composes_expands_and_fits_its_layout() -> None:
    folder = Path(__file__).parents[4] / "sweeps/conf/study"
    full = [p.stem for p in folder.glob("*.yaml") if (folder / f"cpu_{p.stem}.yaml").exists()]
    assert {"params", "data", "lr_batch", "lr_transfer", "seeds", "resolution", "schedule",
            "ladder_samples"} <= set(full)  # fmt: skip
    from sweeps.kinds.points.plan import PointsPlan

    for name in full:
        study = compose_any([f"study={name}"])
        if isinstance(study, PointsConfig):
            plan = PointsPlan(study)
            points = plan.points()
            for point in (points[0], points[-1]):
                assert plan.compose(point.spec).parallel.processes == 64
