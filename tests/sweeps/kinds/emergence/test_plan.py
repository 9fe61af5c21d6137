"""Couples of a study of emergence: what they share, what a sitting holds, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.kinds.catalogue import plan_study
from sweeps.kinds.compose import compose_any
from sweeps.kinds.emergence.config import EmergenceConfig
from sweeps.kinds.emergence.plan import LAW, TWIN, answers
from sweeps.kinds.emergence.table import Asked, best_params
from sweeps.study.clips import Clips


def compose(*words: str) -> EmergenceConfig:
    study = compose_any(["study=emergence_smoke", *words])
    assert isinstance(study, EmergenceConfig)
    return study


def test_a_twin_differs_from_its_run_in_its_data_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no data set lies
    runs = plan_study(compose("until=1.2e9"), Clips()).runs
    assert [run.spec.budget for run in runs] == [6e8, 6e8, 1.2e9, 1.2e9]
    law, twin = (run.compose() for run in runs[:2])
    assert [run.spec.arm for run in runs[:2]] == [LAW, TWIN]
    assert law.data.root != twin.data.root
    law.data.root, law.name = twin.data.root, twin.name
    assert law == twin


def test_more_sizes_stand_at_their_budgets_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = compose("more_sizes={params: [2e5], budgets: [1.2e9]}", "seeds=[0,1]")
    runs = plan_study(study, Clips()).runs
    of = {b: sum(run.spec.budget == b for run in runs) for b in study.budgets}
    assert of == {6e8: 4, 1.2e9: 8, 2.4e9: 4, 4.8e9: 4}
    assert len({run.spec.name for run in runs}) == len(runs)


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("budgets=[2e9,1e9]", "budgets: must hold FLOPs in rising order"),
        ("until=1e8", "until: must reach the first budget"),
        ('twin=["data.root=datasets/strip_lawful/latents"]', "twin: must differ from law"),
        ("again.seeds=[0]", "seeds: must be distinct"),
        ("knees.budgets=[6e8]", "knees.budgets: must be among budgets, and empty without"),
        ("again={seeds: [1], budgets: [7e8]}", "again.budgets: must be among budgets"),
        ("forecast_from=1.2e9", "forecast_from: must leave 4 budgets"),
        ("sizes={params: [1e5], exponent: 0.5}", "sizes.at: must be a budget"),
        ("draws={clips: 0, shown: 2}", "draws.shown: must be no more than draws.clips"),
        ("pairs.worlds=[rooms]", "pairs.worlds: must be tiny ones"),
        ("sizes.params=[]", "sizes.params: must name a size"),
    ],
)
def test_a_study_that_cannot_answer_is_refused_with_the_remedy(word: str, rule: str) -> None:
    with pytest.raises(ValueError, match="Use ") as found:
        compose(word)
    assert str(found.value).startswith(rule)


def test_the_best_size_of_a_budget_is_that_of_the_least_mean_loss() -> None:
    from types import SimpleNamespace

    def asked(params: int, seed: int, loss: float) -> Any:
        couple: Any = SimpleNamespace(budget=1e9, params=params, seed=seed)
        return Asked(couple, "", {"loss": loss}, {}, None)

    runs = [asked(1, 0, 0.3), asked(1, 1, 0.5), asked(2, 0, 0.35), asked(2, 1, 0.36)]
    assert best_params(runs, [0, 1]) == {1e9: 2}
    assert best_params(runs, [0]) == {1e9: 1}  # other seeds do not choose


def test_a_probe_that_was_asked_something_else_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "probes.json"
    path.write_text(json.dumps({"asked": {"pairs": 8, "seed": 0}}), encoding="utf-8")
    assert answers(path, {"pairs": 8, "seed": 0})
    assert not answers(path, {"pairs": 16, "seed": 0})
    path.write_text("{}", encoding="utf-8")
    assert not answers(path, {"pairs": 8})
