"""The network at its start and its fixed parts: what it predicts before it has learned anything."""

import dataclasses
import math

import pytest
import torch

from models.config import POSITION_FEATURES, ModelConfig
from models.dit.model import DiT
from models.objectives.flow import interpolate
from models.pack import TokenPack

CONFIG = ModelConfig(width=32, depth=2, text_width=16)


def pack_of(x_1: torch.Tensor, segments: int, captions: int) -> TokenPack:
    """Return a pack of equal segments, each with as many caption tokens."""
    rows = len(x_1)
    return TokenPack(
        latent=x_1,
        valid=torch.ones_like(x_1, dtype=torch.bool),
        positions=torch.zeros(rows, 3, dtype=torch.long),
        place=torch.zeros(rows, POSITION_FEATURES),
        segment=torch.arange(segments).repeat_interleave(rows // segments),
        lengths=[rows // segments] * segments,
        fps=torch.zeros(segments),
        caption=torch.ones(segments * captions, 16),
        caption_lengths=[captions] * segments,
    )


@pytest.mark.parametrize("sigma", [1.0, 0.3])
def test_a_fresh_network_makes_the_best_linear_guess(sigma: float) -> None:
    # For data of deviation sigma the loss of that guess is sigma^2 / ((1 - t)^2 + (t sigma)^2);
    # for sigma = 1 its mean over t is pi / 2.
    model = DiT(dataclasses.replace(CONFIG, spread=[sigma] * 6))
    model.reset_parameters(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    x_0, x_1 = torch.randn(2, 4096, 24, generator=generator)
    x_1 *= sigma
    t = (torch.arange(64) + 0.5) / 64
    pack = pack_of(x_1, 64, 1)
    with torch.no_grad():
        v = model(pack, interpolate(x_0, x_1, t[pack.segment].unsqueeze(-1)), t)
    loss = (v - (x_1 - x_0)).square().mean().item()
    expected = (sigma**2 / ((1 - t) ** 2 + (t * sigma) ** 2)).mean().item()
    assert loss == pytest.approx(expected, rel=0.01)
    assert sigma != 1 or expected == pytest.approx(math.pi / 2, rel=1e-3)


@pytest.mark.parametrize("captions", [0, 2])
def test_every_parameter_gets_a_gradient_whether_captions_are_there_or_not(captions: int) -> None:
    # Ranks reduce the gradients that arrived: if one rank's captions left the null caption
    # without, their collectives would no longer match.
    model = DiT(CONFIG)
    x_0, x_1 = torch.randn(2, 12, 24)
    model(pack_of(x_1, 3, captions), x_0, torch.rand(3)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert bool(model.null_caption.grad.any()) == (captions == 0)
