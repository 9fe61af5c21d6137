"""Margins of pairs whose errors are known."""

import numpy as np
import pytest

from trainer.probes.likelihood.margins import PairErrors, described


def errors_of(pairs: int, gap: float, seed: int = 0) -> PairErrors:
    """Pairs of unequal size whose broken clips err more by a share ``gap``, in two strata."""
    rng = np.random.default_rng(seed)
    kept = rng.uniform(1, 3, (pairs, 2))
    return PairErrors(kept, kept * (1 + gap) + 0.1 * rng.standard_normal((pairs, 2)))


def test_a_margin_is_a_ratio_of_sums() -> None:
    errors = PairErrors(np.array([[1.0, 4.0], [3.0, 2.0]]), np.array([[2.0, 4.0], [3.0, 4.0]]))
    assert errors.margin().value == pytest.approx(3 / 10)
    assert errors.margin(0).value == pytest.approx(1 / 4)
    assert errors.margin(1).value == pytest.approx(2 / 6)


def test_accuracy_counts_pairs_whose_broken_clips_err_more() -> None:
    errors = PairErrors(np.ones((4, 1)), np.array([[2.0], [0.5], [1.5], [1.1]]))
    assert errors.margin().accuracy == 0.75


def test_the_error_is_that_of_drawing_other_pairs() -> None:
    rng = np.random.default_rng(1)
    errors = errors_of(200, 0.05)
    drawn = []
    for _ in range(500):
        rows = rng.integers(0, 200, 200)
        drawn.append(PairErrors(errors.kept[rows], errors.broken[rows]).margin().value)
    assert errors.margin().error == pytest.approx(np.std(drawn), rel=0.1)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    intervals = [errors_of(20, 0.05, seed).margin().interval for seed in range(300)]
    assert np.mean([low < 0.05 < high for low, high in intervals]) == pytest.approx(0.95, abs=0.03)


def test_a_difference_loses_what_both_share() -> None:
    one = errors_of(50, 0.05)
    other = PairErrors(one.kept, one.broken - 0.02 * one.kept)
    difference = one.margin().minus(other.margin())
    assert difference.value == pytest.approx(0.02)
    assert difference.error < 1e-3 * one.margin().error


def test_what_is_described_has_every_stratum_and_no_accuracy_of_a_difference() -> None:
    one = errors_of(20, 0.05)
    own, less = described(one), described(one, errors_of(20, 0.0))
    assert len(own["by_time"]) == len(less["by_time"]) == 2
    assert "accuracy" in own["by_time"][0]
    assert "accuracy" not in less
    assert less["value"] == pytest.approx(own["value"] - errors_of(20, 0.0).margin().value)


def test_pairs_without_spread_have_no_z() -> None:
    assert PairErrors(np.ones((4, 1)), np.ones((4, 1))).margin().z == 0
