"""The closed-form counts against the network itself: numel and torch's flop counter."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.config import POSITION_FEATURES, ModelConfig
from models.count import count_flops, count_params
from models.dit.model import DiT
from models.network import build_network
from models.objectives.flow import flow_errors
from models.pack import TokenPack
from models.spans import given_frames, lay_spans, own_times, whole

CONFIGS = [
    ModelConfig(width=32, depth=1, text_width=8, time_features=10),
    ModelConfig(
        width=48,
        depth=3,
        head_dim=8,
        mlp_ratio=2,
        values_per_token=16,
        text_width=12,
        spread=[1.0] * 4,
    ),
    ModelConfig(),
    ModelConfig(width=96, depth=4, head_dim=32, values_per_token=48, spread=[0.5] * 12),
]
# (video tokens, caption tokens) of each segment; 0 caption tokens is "no caption".
PACKS = [
    [(7, 3)],
    [(24, 0), (5, 0)],
    [(16, 4), (16, 4), (3, 0), (40, 11)],
]


def random_pack(config: ModelConfig, shapes: list[tuple[int, int]], padding: int = 0) -> TokenPack:
    """Return a pack of random values with segments of the given sizes."""
    generator = torch.Generator().manual_seed(5)
    lengths, captions = [s for s, _ in shapes], [c for _, c in shapes]
    rows = sum(lengths) + padding
    segment = torch.repeat_interleave(torch.arange(len(shapes)), torch.tensor(lengths))

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return TokenPack(
        latent=draw(rows, config.values_per_token),
        valid=torch.ones(rows, config.values_per_token, dtype=torch.bool),
        positions=torch.randint(0, 9, (rows, 3), generator=generator),
        place=draw(rows, POSITION_FEATURES),
        segment=torch.cat([segment, segment[-1:].expand(padding)]),
        lengths=lengths,
        fps=torch.full((len(shapes),), 12.0),
        caption=draw(sum(captions), config.text_width),
        caption_lengths=captions,
    )


def counted(
    config: ModelConfig, shapes: list[tuple[int, int]], backward: bool, inputs: bool = True
) -> int:
    """Return the FLOPs that torch counts; ``inputs``: differentiate by the network's inputs too."""
    return counted_pack(config, random_pack(config, shapes), backward, inputs)


def counted_pack(config: ModelConfig, pack: TokenPack, backward: bool, inputs: bool = True) -> int:
    """Return the FLOPs that torch counts over a pack."""
    t = torch.rand(pack.num_spans)
    x_0 = torch.randn_like(pack.latent)
    model = build_network(config)
    if backward and inputs:
        for tensor in (x_0, pack.place, pack.caption, t):
            tensor.requires_grad_()
    # The math backend runs attention as two matrix products, which the counter sees.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        if backward:
            flow_errors(model, pack, x_0, t).sum().backward()
        else:
            with torch.no_grad():
                flow_errors(model, pack, x_0, t)
    return counter.get_total_flops()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"w{c.width}d{c.depth}")
class TestCount:
    """Every shape of network."""

    def test_params_equal_numel(self, config: ModelConfig) -> None:
        assert count_params(config).total == sum(p.numel() for p in DiT(config).parameters())

    @pytest.mark.parametrize("shapes", PACKS, ids=str)
    def test_flops_of_the_forward_pass_equal_torchs(
        self, config: ModelConfig, shapes: list[tuple[int, int]]
    ) -> None:
        seen = [max(1, captions) for _, captions in shapes]
        ours = count_flops(config, [s for s, _ in shapes], seen, backward=False)
        assert ours.total == counted(config, shapes, backward=False)
        assert ours.self_attention > 0
        assert ours.cross_attention > 0

    @pytest.mark.parametrize("shapes", PACKS, ids=str)
    def test_flops_with_the_backward_pass_equal_torchs(
        self, config: ModelConfig, shapes: list[tuple[int, int]]
    ) -> None:
        seen = [max(1, captions) for _, captions in shapes]
        ours = count_flops(config, [s for s, _ in shapes], seen).total
        assert ours == counted(config, shapes, backward=True)


def test_each_span_costs_a_condition_of_its_own() -> None:
    config, shapes = ModelConfig(), [(18, 4), (40, 0), (6, 2)]
    spans = lay_spans([own_times((3, 4, 6)), given_frames((5, 4, 8), [0, 4]), whole(6)])
    pack = replace(random_pack(config, shapes), spans=spans)
    assert pack.num_spans == 6
    ours = count_flops(config, pack.lengths, [4, 1, 2], spans=6)
    assert ours.total == counted_pack(config, pack, backward=True)
    assert ours.total > count_flops(config, pack.lengths, [4, 1, 2]).total


def test_training_skips_only_the_gradient_of_the_inputs() -> None:
    # "Backward costs twice the forward" counts the gradient with respect to the network's inputs,
    # which training does not need: the convention overstates by the first layers alone (but for
    # the captions' layer, whose inputs hold the learned null caption).
    config, shapes = ModelConfig(), [(16, 4), (40, 11)]
    tokens, segments = 56, 2
    first_layers = tokens * (config.values_per_token + POSITION_FEATURES)
    first_layers += segments * 2 * config.time_features
    ours = count_flops(config, [16, 40], [4, 11]).total
    really = counted(config, shapes, backward=True, inputs=False)
    assert ours - really == 2 * first_layers * config.width


def test_one_caption_entry_a_segment_is_required() -> None:
    with pytest.raises(ValueError, match=r"caption_tokens has 1 entries: must have one.* 2\. Use"):
        count_flops(ModelConfig(), [4, 4], [1])


def test_segments_may_come_from_anything_that_can_be_gone_through_once() -> None:
    tokens, captions = [16, 40], [4, 11]
    once = count_flops(ModelConfig(), iter(tokens), iter(captions))
    assert once == count_flops(ModelConfig(), tokens, captions)
