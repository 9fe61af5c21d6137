"""Distances of pictures: zero for equal ones, larger for worse ones, gradients for the first."""

import pytest
import torch

from models.codec.discriminator import Discriminator, discriminator_loss, generator_loss
from models.codec.lpips import Lpips
from models.codec.perceptual import PerceptualEncoder, perceptual_distance
from models.config import PerceptualConfig


def encoder() -> PerceptualEncoder:
    made = PerceptualEncoder(PerceptualConfig([8, 12, 16], ["a", "b"]))
    made.reset_parameters(torch.Generator().manual_seed(0))
    return made.requires_grad_(False)


def lpips() -> Lpips:
    torch.manual_seed(0)
    made = Lpips()
    for weights in made.weights:
        weights.data.fill_(1.0)
    return made.requires_grad_(False)


def pictures(size: tuple[int, int] = (37, 50)) -> torch.Tensor:
    return 2 * torch.rand(3, *size, 3, generator=torch.Generator().manual_seed(1)) - 1


@pytest.mark.parametrize("make", [encoder, lpips])
def test_a_distance_is_zero_for_equal_pictures_and_grows_with_noise(make) -> None:
    network, real = make(), pictures()
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(2))

    def distance(made: torch.Tensor) -> torch.Tensor:
        if isinstance(network, Lpips):
            return network(made, real)
        return perceptual_distance(network, made, real)

    same, little, much = (distance(real + size * noise) for size in (0.0, 0.05, 0.3))
    assert same.shape == (3,)
    assert same.abs().max() < 1e-9
    assert (little > 0).all()
    assert (much > little).all()


@pytest.mark.parametrize("make", [encoder, lpips])
def test_gradients_flow_into_the_first_picture_alone(make) -> None:
    network, made = make(), pictures().requires_grad_()
    real = pictures().flip(0).requires_grad_()
    if isinstance(network, Lpips):
        network(made, real).sum().backward()
    else:
        perceptual_distance(network, made, real).sum().backward()
    assert made.grad is not None
    assert made.grad.abs().max() > 0
    assert real.grad is None


def test_the_encoder_says_something_of_frames_of_any_size() -> None:
    assert encoder()(pictures((16, 90))).shape == (3, 2)


def test_lpips_enlarges_frames_that_are_too_small_for_its_poolings() -> None:
    assert lpips()(pictures((17, 24)), pictures((17, 24)).flip(0)).shape == (3,)


def test_one_backward_pass_serves_generator_and_discriminator() -> None:
    judge = Discriminator((4, 8))
    judge.reset_parameters(torch.Generator().manual_seed(0))
    real = pictures((32, 48))[None]
    made = (real * 0.5).requires_grad_()
    generator_loss(judge, made).backward()
    assert made.grad is not None
    assert made.grad.abs().max() > 0
    assert all(p.grad is None for p in judge.parameters())
    made.grad = None
    loss, count = discriminator_loss(judge, made, real)
    loss.backward()
    assert made.grad is None
    assert all(p.grad is not None for p in judge.parameters())
    assert count == 2 * judge(real).numel()


def test_a_discriminator_learns_to_tell_clips_apart() -> None:
    judge = Discriminator((4, 8))
    judge.reset_parameters(torch.Generator().manual_seed(0))
    real = pictures((32, 48))[None]
    made = real.roll(1, 1) * 0.2
    optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss, count = discriminator_loss(judge, made, real)
        (loss / count).backward()
        optimizer.step()
        losses.append(float(loss.detach()) / count)
    assert losses[-1] < 0.5 * losses[0]
