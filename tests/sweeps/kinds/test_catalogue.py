"""Kinds of study: their names, what YAMLs of before say, and that no plan moves unasked."""

import hashlib
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sweeps.kinds.catalogue import KINDS, OLD_NAMES, plan_study
from sweeps.kinds.compose import compose_any
from sweeps.kinds.points.config import PointsConfig, StandInConfig
from sweeps.report.pages.by_kind import PAGES
from sweeps.study.clips import Clips, StandIn
from trainer.config import compose_run

COMMITTED = Path(__file__).parents[3] / "docs" / "studies"

# Names, budgets and overrides of all runs of a study without its data set, as SHA-256. A run's
# folder follows from them, so that a change orphans what was trained: change one on purpose only.
PLANS = {
    "arms_smoke": "98bd80653c25",
    "captions": "e0908fb17b2e",
    "cpu_density": "ca394c7d408c",
    "cpu_emergence": "6f32f766d0b2",
    "cpu_emergence_switch": "fd7f2b880375",
    "cpu_isoflop": "34dbda8232ba",
    "cpu_ladder_samples": "7a8d95978b8e",
    "cpu_params": "800725d79a20",
    "cpu_resolution": "830f3e817718",
    "cpu_schedule": "9bfdfba87d59",
    "cpu_seeds": "296f464c71da",
    "cpu_strip_ladder": "35ae1a350832",
    "cpu_tasks": "7a8b981a69f0",
    "demo": "621aab597224",
    "emergence_smoke": "37cdf0e44cdf",
    "framing": "ce1e662af5ba",
    "schedule": "aac1a9defbd5",
    "smoke": "3f250004701f",
}


@pytest.mark.heavy
@pytest.mark.parametrize("name", PLANS)
def test_a_study_plans_the_runs_that_it_planned_before(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no data set lies
    study = compose_any([f"study={name}"])
    stand_in = getattr(study, "stand_in", None)
    if stand_in is not None and not stand_in.num_frames:
        stand_in.num_frames, stand_in.height, stand_in.width = 17, 120, 160
    runs = plan_study(study, Clips()).runs
    rows = [[run.spec.name, f"{run.spec.budget:.6g}", *run.spec.overrides] for run in runs]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12] == PLANS[name]


@pytest.mark.heavy
def test_the_study_of_densities_trains_each_with_three_seeds_at_two_budgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = compose_any(["study=cpu_density"])
    assert isinstance(study, PointsConfig)
    study.stand_in = StandInConfig(17, 120, 160)
    runs = plan_study(study, Clips()).runs
    assert len(runs) == 5 * 3 * 2
    assert 1e13 < sum(run.spec.budget for run in runs) < 1.5e13
    made = {
        name: compose_run([*study.base, *arm, "horizon.steps=1"]).objective
        for name, arm in study.arms.items()
    }
    assert [(p.mean, p.width) for p in made["near_data"].density] == [(1.0, 1.5)]
    assert made["near_data_stratified"].stratified
    assert made["centre"].density == []
    assert made["balanced"].spread == pytest.approx(0.405, abs=1e-3)  # the codec's, without data


def test_every_kind_has_its_name_and_a_page() -> None:
    assert {name: kind.schema.kind for name, kind in KINDS.items()} == {n: n for n in KINDS}
    assert set(PAGES) == set(KINDS)
    assert set(OLD_NAMES.values()) <= set(KINDS)


def test_a_yaml_with_the_old_name_of_a_schema_still_composes() -> None:
    old, new = (compose_any(["study=cpu_seeds", f"schema={name}"]) for name in ("grid", "points"))
    assert old == new
    assert old.kind == "points"


@pytest.mark.parametrize(
    "path", sorted(COMMITTED.glob("**/study.yaml")), ids=lambda path: path.parent.name
)
def test_a_committed_study_still_loads_with_the_schema_of_its_kind(path: Path) -> None:
    said = json.loads((path.parent / "study.json").read_text()).get("kind", "isoflop")
    schema = KINDS[OLD_NAMES.get(said, said)].schema
    study = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(path)))
    assert isinstance(study, schema)
    study.check()


def test_a_clip_that_stands_in_is_a_size_and_is_said() -> None:
    run = compose_run(["experiment=cpu_smoke", "data.root=nowhere", "horizon.steps=1"])
    clips = Clips((17, 120, 160))
    assert clips.of(run) == [StandIn(17, 120, 160)]
    assert clips.stored(run) == []
    assert "17 frames of 120 x 160" in clips.notes[0]
