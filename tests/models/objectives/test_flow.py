"""Rectified flow: its equations and its times against known answers."""

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from models.objective import (
    Draw,
    Method,
    Prediction,
    Route,
    Weighting,
    build_objective,
    check_objective,
)
from models.objectives.flow import (
    Flow,
    flow_errors,
    interpolate,
    sampler_times,
    squared_errors,
    time_weight,
    training_times,
    windowed_normals,
)
from models.pack import TokenPack
from models.times import Density, Normal, TimePart, TimeScale

DATA = torch.linspace(-2, 2, 24).view(6, 4)


def pack() -> TokenPack:
    """Return a pack of two segments whose latents are DATA."""
    return TokenPack(
        latent=DATA,
        valid=torch.ones(6, 4, dtype=torch.bool),
        positions=torch.zeros(6, 3, dtype=torch.long),
        place=torch.zeros(6, 18),
        segment=torch.tensor([0, 0, 1, 1, 1, 1]),
        lengths=[2, 4],
        fps=torch.zeros(2),
        caption=torch.ones(3, 5),
        caption_lengths=[1, 2],
    )


def test_errors_are_those_of_the_velocity_at_the_interpolated_point() -> None:
    x_0, t, seen = torch.randn(6, 4), torch.tensor([0.25, 0.75]), SimpleNamespace()

    def model(p: TokenPack, x_t: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        seen.x_t, seen.t = x_t, times
        return torch.zeros_like(x_t)

    errors = flow_errors(model, pack(), x_0, t)
    per_token = torch.tensor([0.25, 0.25, 0.75, 0.75, 0.75, 0.75]).view(-1, 1)
    torch.testing.assert_close(seen.x_t, (1 - per_token) * x_0 + per_token * DATA)
    torch.testing.assert_close(errors, (DATA - x_0).square().sum(1))


def test_ends_of_the_path_are_noise_and_data() -> None:
    x_0 = torch.randn(6, 4)
    assert torch.equal(interpolate(x_0, DATA, torch.zeros(6, 1)), x_0)
    assert torch.equal(interpolate(x_0, DATA, torch.ones(6, 1)), DATA)


def test_values_that_are_not_valid_carry_no_error() -> None:
    valid = torch.zeros(6, 4, dtype=torch.bool)
    valid[0, 0] = True
    errors = squared_errors(torch.full((6, 4), 9.0), torch.zeros(6, 4), torch.zeros(6, 4), valid)
    assert errors.tolist() == [81.0, 0, 0, 0, 0, 0]


def test_longer_clips_train_at_noisier_times() -> None:
    lengths = torch.tensor([16.0, 512.0, 1024.0, 8192.0, 1e6])
    for n in (-2.0, 0.0, 3.0):
        t = training_times(torch.full((5,), n), lengths, 512.0)
        assert t[0] == t[1] == torch.tensor(n).sigmoid()  # never shifted toward data
        assert (t[1:].diff() < 0).all()
        assert ((t > 0) & (t < 1)).all()


def test_times_grow_with_their_normal_draw() -> None:
    draws = torch.linspace(-4, 4, 50)
    assert (training_times(draws, torch.full((50,), 2048.0), 512.0).diff() > 0).all()


def draw_of(key: int) -> Draw:
    """Return draws that depend on the key and the purpose."""

    def draw(purpose: str, shape: tuple[int, ...]) -> torch.Tensor:
        seed = hash((key, len(purpose))) % 2**31
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    return draw


LINEAR = torch.nn.Parameter(torch.linspace(-1, 1, 4))
TIMES = torch.tensor([0.25, 0.8])
NOISE = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))


def linear_network(objective: Flow) -> Callable[..., torch.Tensor]:
    """Return a preconditioned network whose raw output is linear in what it sees."""
    sigma = torch.full((4,), 0.6)

    def network(p: TokenPack, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        clock = t.index_select(0, p.segment).unsqueeze(-1)
        c_in, c_skip, c_out = objective.coefficients(clock, sigma)
        return c_skip * x + c_out * (LINEAR * c_in * x)

    return network


def test_the_default_is_the_plain_loss_to_the_bit() -> None:
    network, plain = linear_network(Flow()), Flow()
    expected = flow_errors(network, pack(), NOISE, TIMES)
    assert torch.equal(plain.errors(network, pack(), NOISE, TIMES), expected)
    normals = torch.cat([draw_of(key)("time", (1,)) for key in range(9)])
    lengths = torch.full((9,), 2048.0)
    times = plain.times([draw_of(key) for key in range(9)], lengths)
    t, shift = normals.sigmoid(), (lengths / 512.0).sqrt().clamp(min=1.0)
    assert torch.equal(times, t / (t + shift * (1.0 - t)))
    grid = torch.linspace(0.0, 1.0, 17)
    assert sampler_times(16, 2.0) == (grid / (grid + 2.0 * (1.0 - grid))).tolist()


@pytest.mark.parametrize("window", [(0.0, 0.1), (0.25, 0.5), (0.9, 1.0)])
def test_times_of_a_window_are_those_of_the_whole_range_that_lie_there(
    window: tuple[float, float],
) -> None:
    normals = torch.randn(10_000, generator=torch.Generator().manual_seed(4)).split(1)
    draws = [lambda purpose, shape, n=normal: n for normal in normals]
    found = Flow(window=window).times(draws, torch.full((10_000,), 2048.0))
    assert found.min() >= window[0]
    assert found.max() <= window[1]
    many = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    whole = training_times(many, torch.full_like(many, 2048.0), 512.0)
    inside = whole[(whole >= window[0]) & (whole <= window[1])]
    shares = torch.tensor([0.1, 0.5, 0.9])
    width = window[1] - window[0]
    apart = (found.quantile(shares) - inside.quantile(shares)).abs().max() / width
    assert apart < 0.02


def test_a_time_grows_with_its_draw_inside_a_window_too() -> None:
    normals, lengths = torch.linspace(-6, 6, 50), torch.full((50,), 1e5)
    inside = windowed_normals(normals, lengths, 512.0, (0.2, 0.7))
    times = training_times(inside, lengths, 512.0)
    assert (times.diff() >= 0).all()
    assert times[0] == pytest.approx(0.2, abs=1e-4)
    assert times[-1] == pytest.approx(0.7, abs=1e-4)


def test_strata_of_two_windows_are_those_of_the_whole_range() -> None:
    low, high = (Flow(window=w).strata(4, 0.3) for w in ((0.0, 0.5), (0.5, 1.0)))
    torch.testing.assert_close(torch.cat([low, high]), Flow().strata(8, 0.3))


@pytest.mark.parametrize("prediction", [Prediction.data, Prediction.noise])
def test_a_network_that_says_the_data_or_the_noise_says_the_velocity(
    prediction: Prediction,
) -> None:
    clock, sigma = torch.tensor([[0.2], [0.5], [0.9]]), torch.tensor([0.3, 1.0, 2.0, 0.7])
    x_0, x_1 = NOISE[:3], DATA[:3]
    _, c_skip, c_out = Flow(prediction=prediction).coefficients(clock, sigma)
    said = x_1 / sigma if prediction is Prediction.data else x_0
    velocity = c_skip * interpolate(x_0, x_1, clock) + c_out * said
    torch.testing.assert_close(velocity, x_1 - x_0)


def test_the_ends_of_the_path_divide_by_no_less_than_a_twentieth() -> None:
    for prediction, end in ((Prediction.data, 1.0), (Prediction.noise, 0.0)):
        found = Flow(prediction=prediction).coefficients(torch.tensor([[end]]), torch.ones(4))
        assert all(part.abs().max() <= 20 for part in found)


def test_predicting_data_with_its_own_weight_learns_from_the_error_of_the_data() -> None:
    objective = Flow(prediction=Prediction.data, weight=Weighting.data)
    network = linear_network(objective)
    errors = objective.errors(network, pack(), NOISE, TIMES)
    (found,) = torch.autograd.grad(errors.sum(), LINEAR)
    clock = TIMES.index_select(0, pack().segment).unsqueeze(-1)
    x_t, sigma = interpolate(NOISE, DATA, clock), 0.6
    seen = x_t * ((1 - clock).square() + (clock * sigma).square()).rsqrt()
    direct = (sigma * LINEAR * seen - DATA).square().sum()
    (expected,) = torch.autograd.grad(direct, LINEAR)
    torch.testing.assert_close(found, expected)
    # The same network judged by its velocity is another objective.
    plain = Flow(prediction=Prediction.data).errors(network, pack(), NOISE, TIMES)
    (other,) = torch.autograd.grad(plain.sum(), LINEAR)
    assert (other - found).abs().max() > 0.1


def test_validation_measures_the_velocity_whatever_the_weight() -> None:
    objective = Flow(weight=Weighting.min_snr)
    network = linear_network(objective)
    measured = objective.measured(network, pack(), NOISE, TIMES)
    assert torch.equal(measured, Flow().measured(network, pack(), NOISE, TIMES))
    assert not torch.equal(measured, objective.errors(network, pack(), NOISE, TIMES))


def test_min_snr_is_the_error_of_the_data_times_the_clipped_ratio() -> None:
    t = torch.linspace(0.01, 0.99, 99)
    snr = (t / (1 - t)).square()
    expected = snr.clamp(max=5.0) * (1 - t).square()
    torch.testing.assert_close(time_weight(Weighting.min_snr, t), expected)


def test_the_sigmoid_weight_is_that_of_log_snrs() -> None:
    # The integral over t of w(t) e_v(t) is that over lambda of sigmoid(2 - lambda) e_0(lambda),
    # with e_0 = t^2 e_v; here for e_v = 1.
    lam = torch.linspace(-20, 20, 200_001, dtype=torch.float64)
    t = (lam / 2).sigmoid()
    expected = torch.trapezoid((2 - lam).sigmoid() * t.square(), lam)
    even = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    assert time_weight(Weighting.sigmoid, even).mean() == pytest.approx(float(expected), rel=1e-4)


def test_a_run_of_a_window_refuses_to_sample() -> None:
    with pytest.raises(ValueError, match=r"objective.t_range=\[0.5, 1.0\]: the run learned these"):
        Flow(window=(0.5, 1.0)).walk(NOISE, 6, Route())


@pytest.mark.parametrize(
    ("shift", "tokens", "times"),
    [(None, 100, [0, 1 / 3, 2 / 3]), (None, 400, [0, 1 / 5, 1 / 2]), (0.5, 400, [0, 1 / 2, 0.8])],
)
def test_a_walk_looks_where_clips_of_its_tokens_were_trained(
    shift: float | None, tokens: int, times: list[float]
) -> None:
    def seen(**route: float) -> list[float]:
        walk = Flow(shift_tokens=100.0).walk(NOISE, tokens, Route(Method.euler, 3, shift, **route))
        found = [next(walk)[1]]
        while True:
            try:
                found.append(walk.send(NOISE)[1])
            except StopIteration:
                return found

    assert seen() == pytest.approx(times)
    assert seen(still=1) == pytest.approx(times[1:])
    assert seen(start=0.4) == pytest.approx([0.4, *(t for t in times if t > 0.4)])


def test_the_error_is_the_distance_from_data_minus_noise() -> None:
    # From noise 1 to data 3 the velocity is 2; valid values are summed, the others are left out.
    x_0, x_1 = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[3.0, 3.0, -4.0]])
    valid = torch.tensor([[True, True, False]])
    for velocity, expected in (([2.0, 2.0, 9.0], 0.0), ([5.0, 2.0, 9.0], 9.0), ([-2.0, 1, 0], 17)):
        assert squared_errors(torch.tensor([velocity]), x_0, x_1, valid).tolist() == [expected]


def test_a_models_velocity_is_what_errors_are_of() -> None:
    x_0, valid = torch.randn(6, 4, generator=torch.Generator().manual_seed(3)), pack().valid.clone()
    valid[:, 1] = False
    masked = dataclasses.replace(pack(), valid=valid)
    errors = flow_errors(lambda p, x_t, t: 2 * p.latent, masked, x_0, torch.tensor([0.25, 0.75]))
    expected = ((DATA + x_0) ** 2)[:, [0, 2, 3]].sum(1)  # 2 x_1 - (x_1 - x_0)
    torch.testing.assert_close(errors, expected)


def test_times_are_those_of_the_closed_form() -> None:
    # (t, tokens / shift_tokens) -> t / (t + s (1 - t)), s the square root of the ratio, at least 1.
    for t, ratio, expected in ((1 / 2, 4, 1 / 3), (3 / 4, 9, 1 / 2), (3 / 4, 1 / 9, 3 / 4)):
        normal = torch.tensor([t / (1 - t)]).log()
        found = training_times(normal, torch.tensor([ratio * 90.0]), 90.0)
        assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
def test_weights_of_a_time_are_those_of_their_papers(t: float) -> None:
    snr = (t / (1 - t)) ** 2
    expected = {
        Weighting.uniform: 1.0,
        Weighting.data: (1 - t) ** 2,
        Weighting.min_snr: min(snr, 5.0) * (1 - t) ** 2,
        # sigmoid(2 - log SNR) of the noise's error t^2, times d log SNR / dt.
        Weighting.sigmoid: t**2 / (1 + math.exp(math.log(snr) - 2)) * 2 / (t * (1 - t)),
    }
    for weighting, weight in expected.items():
        assert time_weight(weighting, torch.tensor([t])).item() == pytest.approx(weight, rel=1e-5)


def test_settings_of_a_run_reach_its_objective() -> None:
    settings = SimpleNamespace(
        kind="flow", shift_tokens=9.0, most_shift=3.0, prediction=Prediction.noise,
        weight=Weighting.data, t_range=[0.25, 0.75], options={},
        density=[TimePart(mean=1.0, width=1.5)], spread=0.0,
    )  # fmt: skip
    flow = build_objective(settings)
    density = Density(((1.0, Normal(1.0, 1.5)),))
    assert flow == Flow(9.0, Prediction.noise, Weighting.data, (0.25, 0.75), density, 3.0)
    assert flow.strata(2, 0.5).tolist() == [0.375, 0.625]
    assert Flow().strata(4, 0.5).tolist() == [0.125, 0.375, 0.625, 0.875]
    check_objective(settings)
    settings.t_range = [0.5, 0.5]
    with pytest.raises(ValueError, match=r"objective.t_range=\[0.5, 0.5\]: must rise"):
        check_objective(settings)
    settings.t_range, settings.options = [0.0, 1.0], {"least": 1.0}
    with pytest.raises(ValueError, match=r"objective.options.least=1.0: is not an option"):
        check_objective(settings)
    settings.options, settings.most_shift = {}, 0.5
    with pytest.raises(ValueError, match=r"objective.most_shift=0.5: must be at least 1"):
        check_objective(settings)
    settings.most_shift, settings.density = 0.0, [TimePart(scale=TimeScale.log_snr)]
    with pytest.raises(ValueError, match=r"objective.spread=0: must be above 0 where"):
        check_objective(settings)


def test_errors_are_weighed_by_the_time_of_their_segment() -> None:
    flow, plain = Flow(weight=Weighting.data), Flow()
    network = linear_network(plain)
    weight = ((1 - TIMES) ** 2)[pack().segment]
    expected = plain.errors(network, pack(), NOISE, TIMES) * weight
    torch.testing.assert_close(flow.errors(network, pack(), NOISE, TIMES), expected)
    clock = TIMES[pack().segment].unsqueeze(-1)
    torch.testing.assert_close(flow.inputs(pack(), NOISE, TIMES), NOISE + clock * (DATA - NOISE))


@pytest.mark.parametrize("prediction", list(Prediction))
@pytest.mark.parametrize("t", [0.0, 0.02, 0.3, 0.97, 1.0])
def test_coefficients_turn_what_is_predicted_into_a_velocity(
    prediction: Prediction, t: float
) -> None:
    sigma = 0.6
    found = Flow(prediction=prediction).coefficients(torch.tensor([[t]]), torch.tensor([sigma]))
    c_in, c_skip, c_out = (part.item() for part in found)
    variance = (1 - t) ** 2 + (t * sigma) ** 2
    assert c_in == pytest.approx(variance**-0.5, rel=1e-5)
    expected = {
        Prediction.velocity: ((t * sigma**2 - (1 - t)) / variance, sigma / variance**0.5),
        Prediction.data: (-1 / max(1 - t, 0.05), sigma / max(1 - t, 0.05)),
        Prediction.noise: (1 / max(t, 0.05), -1 / max(t, 0.05)),
    }[prediction]
    assert (c_skip, c_out) == pytest.approx(expected, rel=1e-5, abs=1e-6)
