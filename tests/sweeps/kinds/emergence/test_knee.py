"""More seeds at the knee: which budget gets them, from what runs answered."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.kinds.compose import compose_any
from sweeps.kinds.emergence.config import EmergenceConfig
from sweeps.kinds.emergence.plan import Couple, EmergencePlan
from sweeps.kinds.emergence.run import EmergenceRunner
from sweeps.study.runner import Work
from tests.trainer.probes.likelihood.conftest import strip_config
from tests.trainer.tiny_runs import write_tiny

LOOKS = ["given"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    write_tiny(root, strip_config(root).codec)
    write_tiny(root / "lawless", strip_config(root).codec, lawless="all")
    return root


def runner_of(clips: Path, runs: Path, *words: str) -> EmergenceRunner:
    study = compose_any(
        ["study=emergence_smoke", f"root={runs}", f'law=["data.root={clips}"]',
         f'twin=["data.root={clips}/lawless"]', "least=0.003", "pairs.looks=[given]",
         "draws={clips: 0, shown: 0}", *words]
    )  # fmt: skip
    assert isinstance(study, EmergenceConfig)
    return EmergenceRunner(study, [])


def answer(plan: EmergencePlan, couple: Couple, gap: float) -> None:
    """Leave the files of two finished runs, and of a probe that found a gap of the lane."""
    margin = {"value": gap, "low": gap, "high": gap, "accuracy": 1.0, "effect": 1.0, "z": 9.0}
    margins = dict.fromkeys(("run", "twin", "untrained", "reversed", "gaussian"), margin)
    learned = {"value": gap, "error": 1e-4, "low": gap - 2e-4, "high": gap + 2e-4}
    look: dict[str, Any] = {"margins": margins, "differences": {"learned": learned}}
    pairs = plan.study.pairs
    asked = {"worlds": [], "properties": pairs.properties, "looks": LOOKS, "pairs": pairs.count,
             "seed": 0, "clips": pairs.clips}  # fmt: skip
    prop = {"world": "strip", "property": "lane", "law": True, "given": look}
    for spec in couple.specs:
        folder = plan.folder(spec)
        folder.mkdir(parents=True)
        result = {"status": "finished", "loss": 0.3, "flops": couple.budget}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    found = {"asked": asked, "pairs": pairs.count, "properties": [prop]}
    (plan.folder(couple.law) / "probes.json").write_text(json.dumps(found), encoding="utf-8")


def works_of(runner: EmergenceRunner, last: str) -> list[Work]:
    """Return the phases up to one whose title begins so, of runs that have found these gaps."""
    gaps = [1e-4, 1e-3, 0.01, 0.02]  # the first two are below least
    for couple, gap in zip(runner.plan.couples(runner.study.budgets), gaps, strict=True):
        answer(runner.plan, couple, gap)
    works = []
    for work in runner.phases():
        works.append(work)
        if work.title.startswith(last):
            return works
    raise AssertionError(last)


@pytest.mark.heavy
def test_seeds_of_the_knee_follow_at_the_first_budget_where_a_run_has_a_law(
    clips: Path, tmp_path: Path
) -> None:
    runner = runner_of(clips, tmp_path, "knees.seeds=[5,6]")
    works = works_of(runner, "ask at")
    more = next(work for work in works if work.title.startswith("more seeds at the knee"))
    assert [(spec.budget, spec.arm) for spec in more.specs] == [(2.4e9, a) for a in
                                                               ("law", "twin")] * 2  # fmt: skip
    assert [spec.overrides[-1] for spec in more.specs] == ["seed=5", "seed=5", "seed=6", "seed=6"]
    assert works[-1].title == "ask at the knee, 2.4e+09 FLOPs"


@pytest.mark.heavy
def test_seeds_of_a_named_knee_are_trained_with_the_ladder(clips: Path, tmp_path: Path) -> None:
    runner = runner_of(clips, tmp_path, "knees={seeds: [5], budgets: [1.2e9]}")
    works = works_of(runner, "ask, ")
    more = next(work for work in works if work.title.startswith("best sizes again"))
    assert [(spec.budget, spec.overrides[-1]) for spec in more.specs] == [(1.2e9, "seed=5")] * 2
