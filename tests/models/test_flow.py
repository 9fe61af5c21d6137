"""Rectified flow: its equations, its times and its sampler against known answers."""

from types import SimpleNamespace

import pytest
import torch

from models.flow import flow_errors, interpolate, logit_normal_times, sample, squared_errors
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
