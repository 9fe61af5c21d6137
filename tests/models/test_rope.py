"""Rotary positions and patches: relative, covering three axes, invertible."""

import pytest
import torch

from models.config import ModelConfig
from models.dit.embed import patchify, position_features, sinusoids, token_positions, unpatchify
from models.dit.rope import rope_rotation, rotate


def scores(config: ModelConfig, q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor):
    """Return the products of every pair of rotated queries and keys, (N, S, S)."""
    rotation = rope_rotation(config, positions)
    return torch.einsum("ine,jne->nij", rotate(q, rotation), rotate(k, rotation))


@pytest.mark.parametrize("head_dim", [6, 8, 10, 16, 64])
def test_attention_depends_on_distances_alone(head_dim: int) -> None:
    config = ModelConfig(width=2 * head_dim, head_dim=head_dim, values_per_token=4)
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 5, 2, head_dim, generator=generator)
    positions = torch.randint(0, 20, (5, 3), generator=generator)
    near = scores(config, q, k, positions)
    far = scores(config, q, k, positions + torch.tensor([7, 31, 12]))
    torch.testing.assert_close(near, far, rtol=0, atol=1e-4)
    for axis in range(3):  # every axis is told apart
        moved = positions.clone()
        moved[0, axis] += 1
        assert not torch.allclose(scores(config, q, k, moved), near, rtol=0, atol=1e-3), (
            f"axis {axis}"
        )


@pytest.mark.parametrize("head_dim", [6, 8, 10, 12, 14, 16, 32, 64, 128])
def test_rotary_pairs_cover_the_head_and_every_axis(head_dim: int) -> None:
    pairs = ModelConfig(head_dim=head_dim).rope_pairs()
    assert sum(pairs) == head_dim // 2
    assert min(pairs) >= 1


def test_rotation_keeps_lengths() -> None:
    x, angle = torch.randn(4, 2, 8), torch.randn(4, 1, 4)
    turned = rotate(x, torch.polar(torch.ones_like(angle), angle))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("size", [(1, 2, 2), (3, 4, 10), (5, 8, 2)], ids=str)
def test_unpatchify_inverts_patchify(size: tuple[int, int, int]) -> None:
    latent = torch.randn(6, *size)
    tokens = patchify(latent)
    assert tokens.shape == (size[0] * size[1] * size[2] // 4, 24)
    assert torch.equal(unpatchify(tokens, *size), latent)


def test_positions_are_in_the_order_of_the_patches() -> None:
    f, h, w = torch.meshgrid(torch.arange(3), torch.arange(4), torch.arange(6), indexing="ij")
    tokens = patchify(torch.stack([f, h // 2, w // 2]).float())
    assert torch.equal(tokens[:, ::4].long(), token_positions(3, 4, 6))


def test_place_is_relative_to_the_frame() -> None:
    # The middle of a frame is the middle, whatever its size.
    small = position_features(torch.tensor([[0, 1, 1]]), (5, 3, 3))
    large = position_features(torch.tensor([[0, 4, 7]]), (5, 9, 15))
    torch.testing.assert_close(small, large)


def test_sinusoids_tell_all_times_apart() -> None:
    features = sinusoids(torch.linspace(0, 1, 201), 64)
    assert features.shape == (201, 64)
    assert torch.cdist(features, features).fill_diagonal_(9.0).min() > 0.1
