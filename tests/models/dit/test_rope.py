"""Rotary positions and patches: relative, covering three axes, invertible."""

import cmath
import math

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


def test_every_pair_turns_by_its_axis_and_its_own_frequency() -> None:
    # A head of 16 has 8 pairs: 2 for frames, 3 for rows, 3 for columns; frequencies theta^(-j / n).
    config = ModelConfig(head_dim=16, rope_theta=100.0)
    rotation = rope_rotation(config, torch.tensor([[3, 5, 7], [0, 2, 11]]))
    for token, place in enumerate([(3, 5, 7), (0, 2, 11)]):
        pairs = [(place[0], j, 2) for j in range(2)]
        pairs += [(place[axis], j, 3) for axis in (1, 2) for j in range(3)]
        expected = [cmath.exp(1j * at * 100.0 ** (-j / n)) for at, j, n in pairs]
        assert rotation[token, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_turn_is_counterclockwise_in_the_plane_of_neighbouring_values() -> None:
    x = torch.tensor([[[1.0, 0, 0, 2, 3, 4]]])
    quarter, half, none = torch.tensor([[[1j, -1, 1]]]).unbind(-1)
    turned = rotate(x, torch.stack([quarter, half, none], -1))
    torch.testing.assert_close(turned, torch.tensor([[[0.0, 1, 0, -2, 3, 4]]]))


def test_rotation_keeps_the_precision_of_what_it_turns() -> None:
    x = torch.ones(1, 1, 2, dtype=torch.bfloat16)
    assert rotate(x, torch.ones(1, 1, 1, dtype=torch.complex64)).dtype == torch.bfloat16


PAIRS = {6: (1, 1, 1), 8: (2, 1, 1), 10: (1, 2, 2), 16: (2, 3, 3), 64: (10, 11, 11)}


@pytest.mark.parametrize(("head_dim", "expected"), PAIRS.items())
def test_pairs_are_shared_evenly_and_frames_get_what_is_left(
    head_dim: int, expected: tuple[int, int, int]
) -> None:
    assert ModelConfig(head_dim=head_dim).rope_pairs() == expected


def test_a_token_holds_a_patch_channel_by_channel_row_by_row() -> None:
    latent = torch.arange(2 * 2 * 4 * 6).view(2, 2, 4, 6).float()
    tokens = patchify(latent)
    places = [(f, i, j) for f in range(2) for i in range(2) for j in range(3)]
    for token, (f, i, j) in zip(tokens, places, strict=True):
        cells = [latent[c, f, 2 * i + a, 2 * j + b] for c in (0, 1) for a in (0, 1) for b in (0, 1)]
        assert token.tolist() == cells
    assert torch.equal(unpatchify(tokens, 2, 4, 6), latent)


def test_place_features_are_three_octaves_of_the_share_of_the_frame() -> None:
    # Token (1, 0, 2) of (4, 3, 5): its middle lies at 3/8, 1/6 and 1/2 of the axes.
    found = position_features(torch.tensor([[1, 0, 2]]), (4, 3, 5))[0].tolist()
    angles = [math.pi * 2**k * share for share in (3 / 8, 1 / 6, 1 / 2) for k in range(3)]
    expected = [*(math.sin(a) for a in angles), *(math.cos(a) for a in angles)]
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("count", [2, 8])
def test_sinusoids_reach_from_1_to_30_radians_in_equal_ratios(count: int) -> None:
    frequencies = [30 ** (j / 3) for j in range(4)] if count == 8 else [1.0]
    found = sinusoids(torch.tensor([0.0, 0.7]), count)
    for value, row in zip((0.0, 0.7), found.tolist(), strict=True):
        expected = [*(math.cos(value * f) for f in frequencies)]
        expected += [math.sin(value * f) for f in frequencies]
        assert row == pytest.approx(expected, abs=1e-5)
