"""Curves, errors over seeds, onsets and verdicts of rows whose answer is known."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from data.files import finite
from sweeps.emergence.onset import Onset
from sweeps.kinds.emergence.answer import answer, jump_rows, knee_of
from sweeps.kinds.emergence.curves import REACH, curve_of, curves_of, knee_among
from sweeps.kinds.emergence.drawn import add_samples
from sweeps.kinds.emergence.forecast import compare, forecast, judge, onset_of, unanswered

BUDGETS = [1e10 * 2**k for k in range(8)]


def row_of(budget: float, gap: float, error: float, prop: str = "lane", **more: Any) -> dict:
    row = {"world": "strip", "property": prop, "law": 1, "look": "given", "budget": budget,
           "flops": budget, "params": 100_000, "seed": 0, "best": 1,
           "loss": (1e11 / budget) ** 0.1,
           "learned": gap, "learned_error": error, "learned_low": gap - 2 * error,
           "learned_high": gap + 2 * error, "run": gap, "twin": 0.0, "untrained": 0.0,
           "reversed": 0.0, "gaussian": 1.0, "effect": 0.0,
           "accuracy": 0.5, "pairs": 64}  # fmt: skip
    return row | more


def ladder(height: float, middle: float, prop: str = "lane", **more: Any) -> list[dict]:
    """Return a smooth rise to ``height``, half of it at ``middle``."""
    gaps = [height / (1 + (middle / budget) ** 1.5) for budget in BUDGETS]
    return [row_of(b, g, 0.001, prop, **more) for b, g in zip(BUDGETS, gaps, strict=True)]


def test_more_seeds_narrow_their_own_part_of_an_error_and_not_that_of_the_pairs() -> None:
    gaps = {b: [0.10, 0.12, 0.11, 0.13] for b in BUDGETS[:3]}
    rows = [row_of(b, g, 0.01, seed=s) for b, of in gaps.items() for s, g in enumerate(of)]
    curve = curve_of(rows)
    size = np.mean(gaps[BUDGETS[0]]) ** 2 + 0.01**2
    spread = math.sqrt(np.var(gaps[BUDGETS[0]], ddof=1) / size)
    assert curve.spread == pytest.approx(spread)
    assert curve.freedom == 9
    wider = student.ppf(0.975, 9) / REACH
    for point in curve.points:
        assert point.error**2 == pytest.approx(0.01**2 + (wider * spread) ** 2 * size / 4)
        assert point.seeds == 4


def test_one_seed_leaves_the_error_of_pairs_and_is_warned_of() -> None:
    curves = curves_of(ladder(0.05, 1e11), "given")
    assert curves[0].column("error") == [0.001] * 8
    said = answer(curves, {}, "given").warnings
    assert any("one seed" in warning for warning in said)


def test_only_the_best_size_makes_the_curve_and_every_size_the_curve_of_loss() -> None:
    other = [row | {"best": 0, "params": 300_000, "learned": 9.0} for row in ladder(0.05, 1e11)]
    curve = curve_of(ladder(0.05, 1e11) + other)
    assert max(curve.column("value")) < 0.05
    assert len(curve.every) == 16


def test_each_jump_test_answers_in_words_or_says_why_it_does_not() -> None:
    rows = {row["test"]: row for row in jump_rows(curve_of(ladder(0.05, 6e10)))}
    assert rows["continuous measure"]["verdict"].startswith("the measure rises smoothly")
    assert "must be at least 8" in rows["seeds"]["verdict"]
    assert "two sizes" in rows["loss"]["verdict"]
    step = [row_of(b, 0.05 * (b > 1e11), 0.001) for b in BUDGETS]
    (jump,) = [r for r in jump_rows(curve_of(step)) if r["test"] == "continuous measure"]
    assert jump["verdict"].startswith("the measure jumps, too")


def test_the_knee_is_the_middle_of_the_rise_and_none_outside_of_the_budgets() -> None:
    assert float(knee_of(curve_of(ladder(0.05, 6e10)))) == pytest.approx(6e10, rel=0.1)
    assert knee_of(curve_of(ladder(0.05, 1e14))) == "not inside the budgets"


def test_the_answer_names_the_laws_that_are_learned_and_the_control() -> None:
    free = [row_of(b, 0.0, 0.001, "lamp", law=0) for b in BUDGETS]
    never = [row_of(b, 0.0, 0.001, "speed") for b in BUDGETS]
    found = answer(curves_of(free + ladder(0.05, 6e10) + never, "given"), {}, "given")
    assert found.answer.startswith("1 of 2 laws exceed their lawless twin up to 1.28e+12 FLOPs")
    assert "strip lane" in found.answer
    assert any("lamp, which no law binds, holds zero" in said for said in found.said)
    assert found.numbers["reached"] == ["strip lane"]
    wrong = [row_of(b, 0.01, 0.001, "lamp", law=0) for b in BUDGETS]
    told = answer(curves_of(wrong + ladder(0.05, 6e10), "given"), {}, "given").said
    assert any("does NOT hold zero" in said for said in told)


def samples(budget: float, right: float, parts: float) -> list[dict]:
    halves = {"all": right, "parts": {"there": parts, "colour": parts, "place": parts}}
    shared = {"world": "strip", "budget": budget, "best": 1, "clips": 400, "vanish": 0.0,
              "appear": 0.0, "colour": 0.0, "place": 0.0, "size": 0.0}  # fmt: skip
    broken = {
        "true": 0.0,
        "run": 100 * (1 - parts),
        "static": 60.0,
        "shuffled": 50.0,
        "wrong": 90.0,
    }
    return [
        shared | {"source": source, "breaks": of, "right_all": 1 - of / 100, "halves": halves}
        | {f"away_{n}": of / 10 for n in range(1, 5)}
        for source, of in broken.items()
    ]  # fmt: skip


def test_the_least_gap_of_a_study_moves_onsets_the_headline_and_the_forecast() -> None:
    rows = ladder(0.05, 6e10)
    plain, strict = (curves_of(rows, "given", least) for least in (0.0, 0.035))
    onsets = [onset_of(curve).budget for (curve,) in (plain, strict)]
    assert onsets[0] < onsets[1]
    gap = dict(zip(BUDGETS, plain[0].column("value"), strict=True))
    assert gap[onsets[1]] >= 0.035 > gap[onsets[1] / 2]
    found = answer(strict, {}, "given")
    assert "exceed their lawless twin by 3.5 % or more" in found.answer
    assert "An onset needs an interval above zero and 3.5 % or more." in found.said
    assert all("or more" not in said for said in answer(plain, {}, "given").said)
    early = [row for row in rows if row["learned"] < 0.035]
    made = forecast(curves_of(early, "given", 0.035), 1e11, 0)
    assert made["least"] == 0.035
    assert not made["onsets"][0]["seen"]
    assert forecast(curves_of(early, "given"), 1e11, 0)["onsets"][0]["seen"]


def test_the_knee_is_the_first_budget_at_which_one_of_the_seeds_has_a_law() -> None:
    def rows(seed: int, gaps: list[float], prop: str = "lane", **more: Any) -> list[dict]:
        pairs = zip(BUDGETS, gaps, strict=False)
        return [row_of(b, g, 0.001, prop, seed=seed, **more) for b, g in pairs]

    both = rows(0, [0.0, 0.002, 0.01, 0.2]) + rows(1, [0.0, 0.0, 0.04, 0.3])
    later = rows(0, [0.0, 0.0, 0.0, 0.5], "colour")
    control = rows(0, [0.5, 0.5, 0.5, 0.5], "lamp", law=0)
    curves = curves_of(both + later + control, "given", 0.03)
    assert knee_among(curves, [0, 1]) == BUDGETS[2]
    assert knee_among(curves, [0]) == BUDGETS[3]  # seeds that came after do not move it
    wide = rows(0, [0.1, 0.1], learned_low=-0.1)
    assert knee_among(curves_of(wide, "given", 0.03), [0]) is None  # its interval holds zero
    other = rows(0, [0.1, 0.1], best=0) + rows(0, [0.0, 0.0])
    assert knee_among(curves_of(other, "given", 0.03), [0]) is None  # of another size


def test_drawn_clips_add_their_breaks_and_the_test_of_a_composite() -> None:
    shares = {1e10: 0.2, 1e11: 0.5, 1e12: 0.9}
    for power, verdict in ((3, "is the product of its parts"), (1, "is more than the product")):
        found = answer(curves_of(ladder(0.05, 6e10), "given"), {}, "given")
        drawn = [row for b, p in shares.items() for row in samples(b, p**power, p)]
        add_samples(found, drawn)
        (row,) = [r for r in found.tables["Is the jump real"] if r["test"] == "composite"]
        assert verdict in row["verdict"]
        told = next(said for said in found.said if "continuations at 1e+12" in said)
        assert "a run breaks 10.0 rules in 100 frames" in told
        assert "is below the best floor, 50.0" in told
        assert any(panel.ylabel == "rules broken in 100 frames" for panel in found.panels)
    add_samples(found, samples(1e10, 0.1, 0.2))
    assert any("that is not below the best floor" in said for said in found.said)


def test_a_forecast_from_the_foot_of_a_rise_meets_its_onset() -> None:
    rows = ladder(0.5, 1.2e12)
    for row in rows:
        row["learned_error"] = 0.01
    whole = curve_of(rows)
    early = [row for row in rows if row["learned"] < 1.9 * 0.01][:5]
    made = finite(forecast(curves_of(early, "given"), 1e11, 0))
    assert made["registered"]
    (said,) = compare(made, [whole])
    assert said["verdict"].startswith("within a factor of 2")
    assert not forecast(curves_of(early, "given"), 1e11, 3)["registered"]


def test_a_forecast_waits_for_every_smaller_budget_of_every_ability() -> None:
    rows = ladder(0.5, 1.2e12)[:5] + ladder(0.5, 1.2e12, "speed")[:4]
    curves = curves_of(rows, "given")
    assert unanswered(curves, BUDGETS[:4]) == []
    assert unanswered(curves, BUDGETS[:6]) == BUDGETS[4:6]
    assert unanswered([], BUDGETS[:2]) == BUDGETS[:2]


@pytest.mark.parametrize(
    ("budget", "found", "largest", "verdict"),
    [
        (1e12, Onset(1.6e12, 8e11, 1.6e12, True, ""), 2e12, "within a factor of 2 (off by 1)"),
        (1e12, Onset(8e12, 4e12, 8e12, True, ""), 8e12, "not within a factor of 2 (off by 4)"),
        (8e12, Onset(1e12, 5e11, 1e12, True, ""), 8e12, "not within a factor of 2 (off by 8)"),
        (1e12, Onset(math.nan, 4e12, math.inf, False, ""), 4e12, "too early"),
        (1e12, Onset(math.nan, 1.5e12, math.inf, False, ""), 1.5e12, "cannot be judged yet"),
        (None, Onset(1e12, 5e11, 1e12, True, ""), 1e12, "forecast none, and it was reached"),
    ],
)
def test_a_forecast_is_judged_by_the_budgets_between_which_the_onset_lies(
    budget: float | None, found: Onset, largest: float, verdict: str
) -> None:
    assert judge({"seen": False, "budget": budget}, found, largest) == verdict


def test_an_onset_is_the_first_budget_from_which_all_exceed_the_twin() -> None:
    gaps = [0.0, 0.01, 0.0, 0.0, 0.01, 0.02, 0.03, 0.04]
    curve = curve_of([row_of(b, g, 0.001) for b, g in zip(BUDGETS, gaps, strict=True)])
    assert onset_of(curve).budget == BUDGETS[4]
