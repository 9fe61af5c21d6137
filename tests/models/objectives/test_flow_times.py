"""Flow's times under any density: training draws, windows, and the steps of its sampler."""

import math

import pytest
import torch

from models.objective import Method, Route, Spacing
from models.objectives.flow import Flow, sampler_times, training_times
from models.times import Density, Normal
from tests.models.objectives.test_flow import DATA

MIXTURE = Density(((0.75, Normal(1.0, 0.8)), (0.25, None)))


def test_times_of_a_logit_normal_have_its_mean_and_width() -> None:
    normals = torch.tensor([-1.0, 0.0, 2.0])
    found = training_times(normals, torch.ones(3), 512.0, Density(((1.0, Normal(1.0, 1.5)),)))
    assert found.logit().tolist() == pytest.approx([-0.5, 1.0, 4.0], rel=1e-5)


def test_times_of_a_mixture_are_its_quantiles_then_shifted() -> None:
    normals = torch.randn(4000, generator=torch.Generator().manual_seed(5))
    found = training_times(normals, torch.full((4000,), 4 * 512.0), 512.0, MIXTURE)
    plain = found / (found + 0.5 * (1 - found))  # a shift of 2 undone
    for t in (0.2, 0.5, 0.8):
        below = 0.75 * 0.5 * math.erfc(-(math.log(t / (1 - t)) - 1.0) / 0.8 / math.sqrt(2))
        assert float((plain < t).float().mean()) == pytest.approx(below + 0.25 * t, abs=0.02)


@pytest.mark.parametrize("density", [MIXTURE, Density(((1.0, Normal(1.0, 0.5)),))])
def test_a_window_keeps_the_proportions_of_a_density(density: Density) -> None:
    normals = torch.randn(4000, generator=torch.Generator().manual_seed(6)).split(1)
    draws = [lambda purpose, shape, n=normal: n for normal in normals]
    found = Flow(window=(0.25, 0.75), density=density).times(draws, torch.ones(4000))
    assert found.min() >= 0.25
    assert found.max() <= 0.75
    ends = [density.below(t) for t in (0.25, 0.5, 0.75)]
    expected = (ends[1] - ends[0]) / (ends[2] - ends[0])
    assert float((found < 0.5).float().mean()) == pytest.approx(expected, abs=0.025)


def test_the_sampler_steps_evenly_through_the_trained_density() -> None:
    times = sampler_times(8, 2.0, Spacing.trained, MIXTURE)
    assert (times[0], times[-1]) == (0.0, 1.0)
    plain = [t / (t + 0.5 * (1 - t)) for t in times]  # a shift of 2 undone
    shares = [MIXTURE.below(t) for t in plain]
    assert shares == pytest.approx([i / 8 for i in range(9)], abs=1e-5)
    assert sampler_times(8, 2.0, Spacing.even, MIXTURE) == sampler_times(8, 2.0)


def looks(flow: Flow, tokens: int, route: Route) -> list[float]:
    """Return the times at which a clip is looked at on its way."""
    walk, seen = flow.walk(DATA, tokens, route), []
    x, t = next(walk)
    while True:
        seen.append(t)
        try:
            x, t = walk.send(x)
        except StopIteration:
            return seen


def test_a_run_samples_by_its_own_density() -> None:
    route = Route(Method.heun, num_steps=2, shift=1.0, spacing=Spacing.trained)
    seen = looks(Flow(density=MIXTURE), 9, route)
    assert seen == pytest.approx([0.0, MIXTURE.quantile(0.5), MIXTURE.quantile(0.5)], rel=1e-6)


@pytest.mark.parametrize("window", [(0.0, 1.0), (0.125, 0.875)])
def test_a_cap_trains_longer_clips_as_those_that_just_reach_it(window: tuple[float, float]) -> None:
    draws = [lambda purpose, shape, n=n: torch.tensor([n]) for n in (-1.5, 0.0, 0.7)]
    capped, free = (Flow(512.0, window=window, most_shift=most) for most in (4.0, 0.0))
    long, reached = torch.full((3,), 75_600.0), torch.full((3,), 16 * 512.0)
    assert capped.times(draws, long).tolist() == free.times(draws, reached).tolist()
    assert capped.times(draws, reached / 2).tolist() == free.times(draws, reached / 2).tolist()
    assert (free.times(draws, long) < capped.times(draws, long)).all()


def test_a_sampler_takes_the_shift_that_training_gave_clips_of_that_length() -> None:
    for most, expected in ((0.0, 3.0), (2.0, 2.0)):
        seen = looks(Flow(10.0, most_shift=most), 90, Route(Method.euler, num_steps=2))
        assert seen[1] == pytest.approx(0.5 / (0.5 + expected * 0.5))
