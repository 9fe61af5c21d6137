"""Distances of pictures: zero for equal ones, larger for worse ones, gradients for the first."""

import numpy as np
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


def unit(x: np.ndarray) -> np.ndarray:
    """Scale features (N, D, h, w) to unit length at every position."""
    return x / np.maximum(np.sqrt((x**2).sum(1, keepdims=True)), 1e-12)


def test_lpips_sees_pixels_as_imagenets_networks_do() -> None:
    network, pixels = lpips(), pictures((67, 99))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    seen = (((pixels + 1) / 2 - mean) / std).permute(0, 3, 1, 2)
    layers = network.features(pixels)
    first = network.convolutions[0]
    expected = torch.nn.functional.conv2d(seen, first.weight, first.bias, stride=4, padding=2)
    torch.testing.assert_close(layers[0], expected.clamp(min=0), rtol=1e-4, atol=1e-4)
    # AlexNet: 11 wide by steps of 4, then 5 and 3 wide, pooled by 3 in steps of 2 twice.
    assert [tuple(x.shape[1:]) for x in layers] == [
        (64, 16, 24), (192, 7, 11), (384, 3, 5), (256, 3, 5), (256, 3, 5),
    ]  # fmt: skip
    kernels = [(c.kernel_size[0], c.padding[0]) for c in network.convolutions]
    assert kernels == [(11, 2), (5, 2), (3, 1), (3, 1), (3, 1)]


def test_lpips_weighs_squared_differences_of_unit_features_by_hand() -> None:
    network, first, second = lpips(), pictures(), pictures().flip(1)
    expected = np.zeros(3)
    for layer, weights in enumerate(network.weights):
        weights.data.copy_(torch.linspace(0, 1 + layer, len(weights)))
    for layer, weights in enumerate(network.weights):
        a, b = (unit(network.features(x)[layer].numpy()) for x in (first, second))
        expected += ((a - b) ** 2 * weights.numpy()[:, None, None]).sum(1).mean((1, 2))
    assert network(first, second).numpy() == pytest.approx(expected, rel=1e-4)


def test_small_frames_are_enlarged_to_one_position_after_both_poolings() -> None:
    network = lpips()
    assert network.features(pictures((31, 40)))[-1].shape[2] == 1
    small = network.features(pictures((15, 31)))
    assert small[-1].shape[2:] == (1, 3)  # 31 x 64
    assert network.features(pictures((31, 31)))[0].shape[2:] == (7, 7)


def test_the_encoders_distance_is_that_of_unit_features_by_hand() -> None:
    network, first, second = encoder(), pictures(), pictures().flip(2)
    expected = np.zeros(3)
    for a, b in zip(network.features(first), network.features(second), strict=True):
        expected += ((unit(a.numpy()) - unit(b.numpy())) ** 2).sum(1).mean((1, 2))
    assert perceptual_distance(network, first, second).numpy() == pytest.approx(expected, rel=1e-4)


def test_the_encoders_head_reads_the_mean_and_the_largest_of_the_last_features() -> None:
    network, pixels = encoder(), pictures()
    last = network.features(pixels)[-1]
    assert [tuple(x.shape[2:]) for x in network.features(pixels)] == [(18, 25), (9, 12), (4, 6)]
    pooled = torch.cat([last.mean((2, 3)), last.flatten(2).max(2).values], 1)
    expected = pooled @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(network(pixels), expected)


@pytest.mark.parametrize("made", [encoder(), Discriminator((64, 64, 64))], ids=["encoder", "judge"])
def test_a_network_of_pictures_forgets_what_it_was_when_it_is_reset(made: torch.nn.Module) -> None:
    for parameter in made.parameters():
        parameter.data.fill_(7.0)
    made.reset_parameters(torch.Generator().manual_seed(0))
    for name, parameter in made.named_parameters():
        if parameter.ndim == 1:
            assert not parameter.any(), name
        else:
            size = (2 / parameter[0].numel()) ** 0.5
            size = 0.01 if isinstance(made, PerceptualEncoder) and name == "head.weight" else size
            error = 5 * size / (2 * parameter.numel()) ** 0.5
            assert parameter.std().item() == pytest.approx(size, abs=error), name


def test_a_discriminator_judges_each_frame_beside_the_one_before() -> None:
    judge = Discriminator((4, 8))
    judge.reset_parameters(torch.Generator().manual_seed(0))
    clip = pictures((16, 24))[None]
    together = judge(clip)
    assert together.shape == (3, 1, 4, 6)
    torch.testing.assert_close(together[:1], judge(clip[:, :1]))
    pair = judge(clip[:, 1:])  # now the second frame is its own neighbour
    assert not torch.allclose(pair[0], together[1])
    torch.testing.assert_close(pair[1], together[2])
    x = torch.cat([clip[0, 0], clip[0, 1]], -1).permute(2, 0, 1)[None]
    for stage in judge.stages:
        x = torch.nn.functional.conv2d(x, stage.weight, stage.bias, stride=2, padding=1)
        x = torch.where(x > 0, x, 0.2 * x)
    x = torch.nn.functional.conv2d(x, judge.head.weight, judge.head.bias, padding=1)
    torch.testing.assert_close(together[1:2], x)


def test_hinge_losses_are_those_of_the_logits() -> None:
    judge = Discriminator((4, 8))
    judge.reset_parameters(torch.Generator().manual_seed(0))
    judge.head.weight.data.mul_(20.0)  # some logits beyond the hinge on either side
    real, made = pictures((16, 24))[None], pictures((16, 24)).flip(0)[None] * 0.3
    on_real, on_made = judge(real).detach().numpy(), judge(made).detach().numpy()
    assert (np.abs([on_real, on_made]) > 1).any()
    expected = np.maximum(0, 1 - on_real).sum() + np.maximum(0, 1 + on_made).sum()
    loss, count = discriminator_loss(judge, made, real)
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    assert count == on_real.size + on_made.size
    assert generator_loss(judge, made).item() == pytest.approx(-float(on_made.sum()), rel=1e-4)
