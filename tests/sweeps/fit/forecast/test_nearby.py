"""The nearest budgets: exact on the laws they hold, blind to what lies far away."""

import numpy as np
import pytest

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
