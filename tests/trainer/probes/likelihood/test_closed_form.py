"""Denoisers in closed form, called as networks are."""

import numpy as np
import pytest
import torch

from trainer.probes.likelihood.closed_form import ExactDenoiser, Places

S, V, J = 4, 3, 5


class Pack:
    """What a closed form reads of a pack."""

    lengths = (S, S)


def places(first: int) -> Places:
    valid = torch.ones(S, V, dtype=torch.bool)
    valid[0, 0] = False  # before the first frame
    return Places.of(valid, first)


def test_values_that_carry_no_loss_are_left_out_and_come_back_as_zeros() -> None:
    spots = places(2)
    rows = torch.arange(2 * S * V, dtype=torch.float32).view(2, S, V) + 1
    values = spots.values(rows)
    assert values.shape == (2, S * V - 1)
    assert spots.known.sum() == 2 * V - 1
    back = spots.tokens(values[:, ~spots.known]).view(2, S, V)
    assert torch.equal(back[:, 2:], rows[:, 2:])
    assert not back[:, :2].any()


@pytest.mark.parametrize("first", [0, 2])
def test_the_exact_denoiser_is_the_mean_of_the_posterior(first: int) -> None:
    rng = np.random.default_rng(0)
    spots = places(first)
    clips = rng.normal(size=(J, S * V - 1))
    clips[3, spots.known] = clips[1, spots.known]  # two clips begin alike
    shares = rng.dirichlet(np.ones(J))
    x_t = torch.from_numpy(rng.normal(size=(2, S, V))).float()
    seen = spots.values(x_t)
    if first:
        seen[:, spots.known] = clips[1, spots.known]
        x_t[:, spots.valid] = torch.from_numpy(seen).float()
    t = torch.tensor([0.3, 0.7])
    # With something given a clip has two spans, of which the first is to be made.
    times = torch.stack([t, torch.ones(2)], 1).flatten() if first else t
    found = ExactDenoiser(clips, shares, spots)(Pack, x_t.flatten(0, 1), times)
    for row, time in enumerate(t.tolist()):
        weights = []
        for clip, share in zip(clips, shares, strict=True):
            away = (seen[row] - time * clip)[~spots.known]
            same = np.allclose(clip[spots.known], seen[row][spots.known], atol=1e-5)
            density = np.exp(-(away**2).sum() / (2 * (1 - time) ** 2))
            weights.append(share * density if same or not first else 0.0)
        mean = np.array(weights) @ clips / np.sum(weights)
        expected = ((mean - seen[row]) / (1 - time))[~spots.known]
        got = spots.values(found.view(2, S, V))[row][~spots.known]
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-4)
