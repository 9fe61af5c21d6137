"""The five tests on curves whose answer is known."""

import numpy as np
import pytest
from scipy.stats import norm

from sweeps.emergence.jump import (
    accuracy_is_a_threshold,
    composite_is_a_product,
    measure_jumps,
    one_curve_of_loss,
    seeds_are_bimodal,
)

BUDGETS = np.geomspace(1e11, 3e13, 8)
X = np.log10(BUDGETS)
SIGMA = np.full(8, 0.02)


def noisy(curve, sigma: float = 0.02, seed: int = 0) -> np.ndarray:
    return np.asarray(curve) + sigma * np.random.default_rng(seed).normal(size=len(curve))


def logistic(x, middle: float, width: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(x - middle) / width))


def test_a_smooth_rise_is_called_smooth_and_its_width_found() -> None:
    width = 0.3
    found = measure_jumps(BUDGETS, noisy(logistic(X, 12.3, width)), SIGMA)
    assert "smoothly" in found.verdict
    assert found.low < 10 ** (width * 2 * np.log(9)) < found.high
    assert found.p < 0.05


def test_a_power_law_is_smooth() -> None:
    found = measure_jumps(BUDGETS, noisy(1e-4 * (BUDGETS / 1e11) ** 1.5), SIGMA)
    assert "smoothly" in found.verdict


def test_a_step_is_called_a_jump() -> None:
    found = measure_jumps(BUDGETS, noisy((BUDGETS > 2e12).astype(float)), SIGMA)
    assert "jumps, too" in found.verdict
    assert found.low == 1
    assert found.p > 0.05


def test_noise_does_not_rise() -> None:
    assert "does not rise" in measure_jumps(BUDGETS, noisy(np.zeros(8)), SIGMA).verdict


def test_what_noise_hides_is_not_told_apart() -> None:
    curve = noisy(logistic(X, 12.3, 0.1), 0.3)
    found = measure_jumps(BUDGETS, curve, np.full(8, 0.3))
    assert "cannot be told apart" in found.verdict or "does not rise" in found.verdict


def test_steps_and_smooth_rises_are_seldom_taken_for_each_other() -> None:
    verdicts = [
        measure_jumps(BUDGETS, noisy(curve, seed=seed), SIGMA).verdict
        for curve in ((BUDGETS > 2e12).astype(float), logistic(X, 12.3, 0.3))
        for seed in range(1, 5)
    ]
    assert sum("jumps, too" in v for v in verdicts[:4]) >= 3
    assert sum("smoothly" in v for v in verdicts[4:]) >= 3


def gaps_of(mean: float, spread: float, pairs: int, seed: int) -> tuple[float, float, float]:
    gaps = np.random.default_rng(seed).normal(mean, spread, pairs)
    return float((gaps > 0).mean()), float(gaps.mean()), float(gaps.std(ddof=1))


def test_the_accuracy_of_a_smooth_gap_is_a_threshold() -> None:
    share, mean, spread = zip(*(gaps_of(0.3 * k, 1.0, 256, k) for k in range(8)), strict=True)
    found = accuracy_is_a_threshold(share, mean, spread, 256)
    assert "threshold" in found.verdict
    assert found.low < 0 < found.high


def test_a_normal_gap_has_even_p_values() -> None:
    def p(seed: int) -> float:
        rows = [gaps_of(0.3 * k, 1.0, 256, 100 * seed + k) for k in range(6)]
        return accuracy_is_a_threshold(*zip(*rows, strict=True), 256).p

    # p-values of a true hypothesis are even over [0, 1]: their mean is 0.5, give or take 0.03.
    assert np.mean([p(seed) for seed in range(100)]) == pytest.approx(0.5, abs=0.1)


def test_an_accuracy_that_the_gap_does_not_give_is_said() -> None:
    means = np.linspace(0.1, 0.5, 5)
    found = accuracy_is_a_threshold(norm.cdf(means) + 0.2, means, np.ones(5), 256)
    assert "more than the gap" in found.verdict.replace("is more", "more")
    assert found.value == pytest.approx(0.2)


def test_a_product_of_parts_is_found_and_a_bottleneck_is_not_one() -> None:
    rng = np.random.default_rng(0)
    truth = np.linspace(0.2, 0.95, 6)
    parts = rng.binomial(400, np.stack([truth, truth**0.5, truth**0.3], 1)) / 400
    product = rng.binomial(400, truth**1.8) / 400
    assert "is the product" in composite_is_a_product(product, parts, 400).verdict
    bottleneck = rng.binomial(400, truth) / 400
    found = composite_is_a_product(bottleneck, parts, 400)
    assert "more than the product" in found.verdict
    assert found.low > 0


@pytest.mark.heavy
def test_seeds_that_have_it_or_not_are_bimodal() -> None:
    rng = np.random.default_rng(3)
    two = np.concatenate([rng.normal(0, 0.05, 4), rng.normal(1, 0.05, 4)])
    assert "or do not" in seeds_are_bimodal(two).verdict
    assert "scatter" in seeds_are_bimodal(rng.normal(0.5, 0.3, 8)).verdict


def runs(size_effect: float) -> tuple[np.ndarray, ...]:
    params = np.tile([3e4, 1e5, 3e5], 5)
    losses = np.repeat(np.linspace(0.5, 0.1, 5), 3) + np.tile([0.03, 0.0, -0.02], 5)
    ability = logistic(-losses, -0.25, 0.05) + size_effect * np.log10(params / 1e5)
    return losses, noisy(ability), np.full(15, 0.02), params


def test_an_ability_of_the_loss_alone_lies_on_one_curve() -> None:
    found = one_curve_of_loss(*runs(0.0))
    assert "one curve" in found.verdict
    assert found.low < 0 < found.high


def test_an_ability_of_size_does_not() -> None:
    found = one_curve_of_loss(*runs(0.15))
    assert "larger models have more" in found.verdict
    assert found.low < 0.15 < found.high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measure_jumps([1, 2, 3], [0, 0, 1], [1, 1, 1]), "at least 6 values"),
        (lambda: measure_jumps(BUDGETS[::-1], X, SIGMA), "must be positive and rise"),
        (lambda: measure_jumps(BUDGETS, X, 0 * SIGMA), "errors: must be positive"),
        (lambda: measure_jumps(BUDGETS, X[1:], SIGMA), "must be as many as budgets"),
        (lambda: measure_jumps(BUDGETS, np.full(8, np.nan), SIGMA), "no numbers"),
        (lambda: seeds_are_bimodal([1, 2, 3]), "at least 8"),
        (lambda: composite_is_a_product([1, 1, 1], [[1], [1], [1]], 9), "two parts or more"),
        (lambda: one_curve_of_loss(X, X, SIGMA, np.ones(8)), "of two sizes"),
    ],
)
def test_what_cannot_be_tested_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
