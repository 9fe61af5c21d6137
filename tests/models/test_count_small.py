"""The closed-form counts of the small networks against the networks themselves."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.captioner.count import count_captioner_params
from models.captioner.model import Captioner
from models.codec.count import count_perceptual_params, count_vae_params, vae_flops
from models.codec.perceptual import PerceptualEncoder
from models.codec.vae import Vae
from models.config import CaptionerConfig, PerceptualConfig, VaeConfig

NETWORKS = [
    VaeConfig(),
    VaeConfig(patch=[2, 4, 4], fold=[2, 2, 2], channels=16, expansion=3),
    VaeConfig(
        patch=[1, 4, 4], fold=[4, 1, 2], channels=5, encoder_widths=[12, 20],
        encoder_blocks=[1, 3], decoder_widths=[24, 16], decoder_blocks=[2, 1],
    ),
]  # fmt: skip
CAPTIONERS = [
    CaptionerConfig(),
    CaptionerConfig(width=96, encoder_depth=1, decoder_depth=4, stem_width=24, mlp_ratio=2),
    CaptionerConfig(width=64, head_dim=16, feature_channels=12, max_caption_tokens=40),
]


def numel(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("config", NETWORKS)
def test_parameters_of_a_compression_network_are_counted_exactly(config: VaeConfig) -> None:
    with torch.device("meta"):
        assert count_vae_params(config) == numel(Vae(config))


def forward_flops(config: VaeConfig, cells: tuple[int, int, int]) -> int:
    """Return what torch counts of a pass there and back of one clip of so many latent cells."""
    frames, height, width = (n * s for n, s in zip(cells, config.stride, strict=True))
    with torch.device("meta"):
        network = Vae(config)
        pixels = torch.empty(1, frames - config.stride[0] + 1, height, width, 3)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            mean, _ = network.posterior(pixels)
            network.decode(mean)
    return counter.get_total_flops()


@pytest.mark.parametrize("config", NETWORKS)
def test_flops_of_a_compression_network_grow_by_those_of_a_position(config: VaeConfig) -> None:
    # The difference of two clips leaves out what any clip costs: folding in the transform.
    small, large = forward_flops(config, (2, 3, 4)), forward_flops(config, (3, 5, 6))
    assert large - small == (3 * 5 * 6 - 2 * 3 * 4) * vae_flops(config)


@pytest.mark.parametrize("widths", [[16, 32, 64, 96], [5]])
def test_parameters_of_a_perceptual_encoder_are_counted_exactly(widths: list[int]) -> None:
    config = PerceptualConfig(widths, ["red", "round", "near"])
    assert count_perceptual_params(config, 3) == numel(PerceptualEncoder(config))


@pytest.mark.parametrize("config", CAPTIONERS)
def test_parameters_of_a_captioner_are_counted_exactly(config: CaptionerConfig) -> None:
    with torch.device("meta"):
        assert count_captioner_params(config, 321) == numel(Captioner(config, 321))
