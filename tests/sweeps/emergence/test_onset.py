"""Onsets on curves where they are known."""

import numpy as np
import pytest

from sweeps.emergence.onset import REACH, find_onset, forecast_onset

BUDGETS = np.geomspace(1e11, 3.2e12, 6)
ERRORS = np.full(6, 0.1)


def gap_of(budgets, onset: float, power: float) -> np.ndarray:
    """A power of compute whose 95 % interval leaves zero at ``onset``, at errors of 0.1."""
    return REACH * 0.1 * (np.asarray(budgets) / onset) ** power


def test_the_onset_is_where_all_larger_budgets_are_above_zero() -> None:
    found = find_onset([1, 2, 4, 8], [0.3, 0.0, 0.3, 0.5], [0.1] * 4)
    assert (found.budget, found.low, found.seen) == (4, 2, True)
    assert find_onset([1, 2], [0.3, 0.5], [0.1, 0.1]).low == 0


def test_a_gap_that_ends_at_zero_is_not_reached() -> None:
    found = find_onset([1, 2, 4], [0.3, 0.3, 0.1], [0.1] * 3)
    assert found.verdict == "not reached"
    assert np.isnan(found.budget)


def test_a_gap_that_is_certain_and_small_is_no_onset() -> None:
    gaps, errors = [0.01, 0.02, 0.1, 0.5, 2.0], [0.001] * 5
    assert find_onset(BUDGETS[:5], gaps, errors).budget == BUDGETS[0]
    assert find_onset(BUDGETS[:5], gaps, errors, least=0.3).budget == BUDGETS[3]
    assert find_onset(BUDGETS[:5], gaps, errors, least=0.3).low == BUDGETS[2]
    assert find_onset(BUDGETS[:5], gaps, errors, least=3.0).verdict == "not reached"
    # A gap of the size asked whose interval holds zero is none either.
    assert not find_onset([1, 2], [0.1, 0.5], [0.3, 0.3], least=0.3).seen


def test_a_forecast_meets_the_least_gap_where_it_is_above_the_intervals_reach() -> None:
    smaller, power = BUDGETS[:5], 1.5
    # A rise that excludes zero everywhere, and is 0.3 at 3e12 FLOPs.
    gaps = 0.3 * (smaller / 3e12) ** power
    assert forecast_onset(smaller, gaps, [1e-3] * 5).seen
    found = forecast_onset(smaller, gaps, [1e-3] * 5, least=0.3)
    assert not found.seen
    assert found.budget == pytest.approx(3e12, rel=0.02)
    assert found.low < 3e12 < found.high
    # Where intervals reach farther than that, they say.
    wide = forecast_onset(smaller, gaps, [0.2 / REACH] * 5, least=0.01)
    assert wide.budget == pytest.approx(3e12 * (0.2 / 0.3) ** (1 / power), rel=0.02)


def test_a_known_onset_is_forecast_within_a_factor_of_two() -> None:
    smaller = BUDGETS[:5]
    found = forecast_onset(smaller, gap_of(smaller, 2.4e12, 1.5), ERRORS[:5])
    assert not found.seen
    assert found.budget == pytest.approx(2.4e12, rel=0.05)
    assert found.low < 2.4e12 < found.high


def test_the_interval_holds_the_onset_nearly_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    smaller = np.geomspace(1e11, 2e12, 6)
    hits, total = 0, 0
    for _ in range(60):
        gaps = gap_of(smaller, 3e12, 1.5) + 0.1 * rng.normal(size=6)
        found = forecast_onset(smaller, gaps, ERRORS, draws=200)
        total += not found.seen
        hits += not found.seen and found.low <= 3e12 <= found.high
    assert total > 30
    assert hits / total > 0.85


def test_gaps_that_do_not_grow_give_no_forecast() -> None:
    found = forecast_onset(BUDGETS, [0.02, -0.05, 0.01, 0.0, -0.03, -0.04], ERRORS)
    assert "no forecast" in found.verdict
    assert np.isnan(found.budget)


def test_an_onset_that_was_reached_is_returned() -> None:
    assert forecast_onset(BUDGETS, gap_of(BUDGETS, 1e12, 1.5), ERRORS).seen


def test_three_budgets_are_too_few() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        forecast_onset([1, 2, 3], [0, 0, 0], [1, 1, 1])
