"""What a setting is worth in compute, on losses whose answer is known."""

import math

import numpy as np
import pytest

from sweeps.kinds.points.noise import spread_of
from sweeps.kinds.points.worth import Worth, worth_sentences, worths

LENGTHS, POWER = (2e11, 6e11), 0.08
SETTINGS = {"today": 1.0, "better": 1.3, "alike": 1.0, "worse": 0.8}


def true_loss(name: str, length: float) -> float:
    return 0.2 * (SETTINGS[name] * length / 1e11) ** -POWER


def of_noise(noise: float, seed: int, lengths: tuple[float, ...] = LENGTHS) -> dict:
    draws = np.random.default_rng(seed)
    runs = {
        (name, length): true_loss(name, length) * np.exp(noise * draws.standard_normal(3))
        for name in SETTINGS
        for length in lengths
    }
    spread = spread_of([list(losses) for losses in runs.values()], 0.9)
    means = {key: (float(losses.mean()), len(losses)) for key, losses in runs.items()}
    return worths(means, "today", spread, 0.9)


def test_without_noise_a_setting_is_worth_what_was_planted() -> None:
    means = {(name, c): (true_loss(name, c), 1) for name in SETTINGS for c in LENGTHS}
    found = worths(means, "today", None, 0.9)
    assert {name for name, _ in found} == {"better", "alike", "worse"}
    for (name, _), worth in found.items():
        assert worth.factor == pytest.approx(SETTINGS[name], rel=1e-9)
        assert math.isnan(worth.low)
        assert not worth.told


def test_intervals_of_all_settings_hold_the_planted_factors_as_often_as_they_say() -> None:
    studies, held, all_held = 400, 0, 0
    for seed in range(studies):
        found = of_noise(0.004, seed)
        inside = [
            worth.low <= SETTINGS[name] <= worth.high
            for (name, length), worth in found.items()
            if length == LENGTHS[-1]
        ]
        held += inside[0]
        all_held += all(inside)
    assert 0.88 <= all_held / studies <= 0.97  # Bonferroni errs on the wide side
    assert held / studies >= 0.9


def test_where_the_loss_does_not_fall_by_more_than_noise_nothing_is_worth_a_factor() -> None:
    assert of_noise(0.2, 0) == {}
    assert of_noise(0.004, 0, LENGTHS[:1]) == {}


def test_the_sentence_says_what_noise_may_be() -> None:
    found = {("muon", 6e11): Worth(1.34, 1.2, 1.5), ("clip", 6e11): Worth(1.02, 0.9, 1.1)}
    (said,) = worth_sentences(found, "today", 0.9)
    assert said == (
        "At 6e+11 FLOPs the loss is that of today at so many times the compute (90 % intervals, "
        "all at once): muon 1.34x (1.2 to 1.5), clip 1.02x (0.9 to 1.1, which noise may be)."
    )
