"""The nearest budgets: exact on the laws they hold, blind to what lies far away."""

import numpy as np
import pytest
from scipy.optimize import nnls

from sweeps.fit.forecast.ladder import ladder_of
from sweeps.fit.forecast.nearby import floor_loss, median_loss, nearby_losses

COMPUTE = np.geomspace(1e18, 1e21, 7)


def floor_law(compute):
    return 1.7 + 2.3 * (compute / 1e18) ** -0.11


def test_all_members_with_a_floor_hold_a_law_with_a_floor():
    members = nearby_losses(COMPUTE, floor_law(COMPUTE)[None], 1e22)[0]
    assert members[:2] == pytest.approx(floor_law(1e22), rel=2e-4)
    assert members[2] < floor_law(1e22) * 0.999  # a power without a floor falls too far
    assert floor_loss(COMPUTE, floor_law(COMPUTE)[None], 1e22)[0] == pytest.approx(
        floor_law(1e22), rel=2e-4
    )


def test_a_power_without_a_floor_is_held_by_all():
    loss = 4.0 * (COMPUTE / 1e18) ** -0.05
    members = nearby_losses(COMPUTE, loss[None], 1e23)[0]
    assert members == pytest.approx(np.full(3, 4.0 * 1e5**-0.05), rel=3e-3)


def test_small_budgets_of_another_regime_are_forgotten():
    loss = floor_law(COMPUTE)
    warm = loss.copy()
    warm[:3] *= [1.5, 1.2, 1.05]  # a warm-up that small budgets never leave
    median = median_loss(COMPUTE, np.stack([loss, warm]), 4e21)
    whole = floor_loss(COMPUTE, warm[None], 4e21)[0]
    assert abs(median[1] / floor_law(4e21) - 1) < 0.01 < abs(whole / floor_law(4e21) - 1)


def test_the_median_lies_between_budgets_where_its_neighbours_do():
    loss = floor_law(COMPUTE)
    at = float(np.sqrt(COMPUTE[2] * COMPUTE[3]))
    assert median_loss(COMPUTE, loss[None], at)[0] == pytest.approx(floor_law(at), rel=2e-3)


def valley(params, best, height):
    return height * np.exp(0.02 * np.log(params / best) ** 2)


def test_a_rung_is_the_vertex_and_an_open_budget_its_best_point():
    params = np.geomspace(1e8, 1e9, 7)
    inside, outside = valley(params, 2.7e8, 3.0), valley(params, 5e7, 3.3)
    ladder = ladder_of([(1e19, params, inside), (2e19, params, outside)], 0.0)
    assert ladder.loss == pytest.approx([3.0, outside.min()], rel=1e-9)
    assert list(ladder.interior) == [1.0, 0.0]
    assert ladder.best == pytest.approx([inside.min(), outside.min()])


def test_seeds_of_a_point_count_by_their_mean():
    params = np.repeat(np.geomspace(1e8, 1e9, 5), 2)
    noise = np.tile([0.01, -0.01], 5)
    loss = valley(params, 3.2e8, 3.0) * np.exp(noise)
    ladder = ladder_of([(1e19, params, loss)], 0.01)
    assert ladder.loss[0] == pytest.approx(3.0, rel=1e-9)
    assert 0 < ladder.error[0] < 0.01


def test_far_runs_of_a_budget_do_not_bend_its_parabola():
    params = np.geomspace(1e7, 1e10, 13)
    loss = valley(params, 3e8, 3.0)
    loss[-3:] *= [1.2, 1.5, 2.0]
    assert ladder_of([(1e19, params, loss)], 0.0).loss[0] == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize("bend", [0.0, -0.004])
def test_a_member_with_a_floor_is_least_squares_of_relative_errors_near_the_target(bend):
    """By another solver; with the bend losses fall faster than any power, and the floor is 0."""
    octaves = np.log2(COMPUTE / 2e21)
    loss = floor_law(COMPUTE) * np.exp(bend * np.arange(7) ** 2)
    loss *= np.exp(0.01 * np.random.default_rng(0).standard_normal(7))
    found = nearby_losses(COMPUTE, loss[None], 2e21)[0]
    for member, half in zip(found, (1.0, 0.5), strict=False):
        scale = 0.5 ** ((octaves[-1] - octaves) / half / 2) / loss
        fits = []
        for exponent in np.geomspace(0.005, 1.5, 2000):
            design = np.stack([np.ones(7), 2 ** (-exponent * octaves)], axis=1)
            both, error = nnls(scale[:, None] * design, scale * loss)
            fits.append((error, both.sum()))
        assert member == pytest.approx(min(fits)[1], rel=1e-3)


def test_the_power_goes_through_the_budgets_nearest_on_either_side():
    loss = np.array([9.0, 8.0, 7.0, 4.0, 3.9, 3.8, 3.7])
    line = np.polyfit(np.log(COMPUTE[3:6]), np.log(loss[3:6]), 1)
    at = float(COMPUTE[4] * 1.1)
    power = nearby_losses(COMPUTE, loss[None], at)[0, 2]
    assert power == pytest.approx(np.exp(np.polyval(line, np.log(at))))
    two = nearby_losses(COMPUTE[:2], loss[None, :2], 1e19)
    assert two.shape == (1, 1)
    line = np.polyfit(np.log(COMPUTE[:2]), np.log(loss[:2]), 1)
    assert two[0, 0] == pytest.approx(np.exp(np.polyval(line, np.log(1e19))))
