"""Rectified flow: its equations, its times and its sampler against known answers."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from models.objective import Draw, Prediction, Weighting
from models.objectives.flow import (
    Flow,
    flow_errors,
    interpolate,
    logit_normal_times,
    sample,
    squared_errors,
    time_weight,
    windowed_normals,
)
from models.pack import TokenPack

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


@pytest.mark.parametrize("shift", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("num_steps", [1, 3, 8])
def test_sampler_follows_a_straight_flow_exactly(num_steps: int, shift: float) -> None:
    noise = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    drawn = sample(lambda p, x, t: p.latent - noise, pack(), noise, num_steps, 1.0, shift)
    torch.testing.assert_close(drawn, DATA)


def test_sampler_converges_on_a_linear_field_at_second_order() -> None:
    # dx/dt = a x has x(1) = x(0) e^a. The last step is Euler's, so halving the step divides the
    # error by about four.
    start, a = torch.ones(6, 4), -0.8
    errors = []
    for num_steps in (32, 64, 128):
        end = sample(lambda p, x, t: a * x, pack(), start, num_steps, 1.0, 1.0)
        errors.append(float((end - torch.tensor(a).exp()).abs().max()))
    assert errors[0] < 1e-3
    assert 3 < errors[0] / errors[1] < 5
    assert 3 < errors[1] / errors[2] < 5


def test_sampler_gives_the_mean_flow_of_gaussian_data() -> None:
    # Data N(m, s^2) has the exact velocity m + (t s^2 - (1 - t)) / (t^2 s^2 + (1 - t)^2)
    # * (x - t m); its flow maps the noise z to m + s z.
    m, s = 0.7, 0.3

    def velocity(p: TokenPack, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        time = t.index_select(0, p.segment).unsqueeze(-1)
        variance = time**2 * s**2 + (1 - time) ** 2
        return m + (time * s**2 - (1 - time)) / variance * (x - time * m)

    noise = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    drawn = sample(velocity, pack(), noise, 400, 1.0, 1.0)
    torch.testing.assert_close(drawn, m + s * noise, rtol=0, atol=2e-3)


def test_guidance_extrapolates_from_the_uncaptioned_velocity() -> None:
    def velocity(p: TokenPack, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert len(p.caption) == sum(p.caption_lengths)
        return torch.full_like(x, 1.0 + sum(p.caption_lengths))  # 4 with captions, 1 without

    for guidance, expected in ((1.0, 4.0), (0.0, 1.0), (2.0, 7.0)):
        end = sample(velocity, pack(), torch.zeros(6, 4), 2, guidance, 1.0)
        torch.testing.assert_close(end, torch.full((6, 4), expected))


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
        t = logit_normal_times(torch.full((5,), n), lengths, 512.0)
        assert t[0] == t[1] == torch.tensor(n).sigmoid()  # never shifted toward data
        assert (t[1:].diff() < 0).all()
        assert ((t > 0) & (t < 1)).all()


def test_times_grow_with_their_normal_draw() -> None:
    draws = torch.linspace(-4, 4, 50)
    assert (logit_normal_times(draws, torch.full((50,), 2048.0), 512.0).diff() > 0).all()


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
    assert torch.equal(times, logit_normal_times(normals, lengths, 512.0))


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
    whole = logit_normal_times(many, torch.full_like(many, 2048.0), 512.0)
    inside = whole[(whole >= window[0]) & (whole <= window[1])]
    shares = torch.tensor([0.1, 0.5, 0.9])
    width = window[1] - window[0]
    apart = (found.quantile(shares) - inside.quantile(shares)).abs().max() / width
    assert apart < 0.02


def test_a_time_grows_with_its_draw_inside_a_window_too() -> None:
    normals, lengths = torch.linspace(-6, 6, 50), torch.full((50,), 1e5)
    inside = windowed_normals(normals, lengths, 512.0, (0.2, 0.7))
    times = logit_normal_times(inside, lengths, 512.0)
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
        Flow(window=(0.5, 1.0)).sample(linear_network(Flow()), pack(), NOISE, 2, 1.0, 1.0)
