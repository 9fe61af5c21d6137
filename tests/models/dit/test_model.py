"""The network at its start and its fixed parts: what it predicts before it has learned anything."""

import dataclasses
import math

import pytest
import torch

from models.architecture import check_model
from models.config import POSITION_FEATURES, ModelConfig
from models.dit.embed import position_features, token_positions
from models.dit.model import DiT
from models.objectives.flow import interpolate
from models.pack import TokenPack
from models.spans import given_tokens, lay_spans, own_times, whole
from tests.models import by_hand

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


def moved(config: ModelConfig, heads: float) -> DiT:
    """Return a network none of whose weights is special; ``heads``: size of queries' and keys'."""
    generator = torch.Generator().manual_seed(3)
    model = DiT(config).requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.normal_(0.0, 0.3, generator=generator)
        # Values, which follow queries and keys in these rows, keep their size.
        read = {"qkv.weight": 2 / 3, ".q.weight": 1, ".kv.weight": 1 / 2}
        share = next((part for end, part in read.items() if name.endswith(end)), 0)
        parameter[: round(share * len(parameter))] *= heads
    return model


# With queries and keys of about the norms' epsilon, it matters what that is and where it stands.
@pytest.mark.parametrize("heads", [1.0, 1e-3])
@pytest.mark.parametrize("mixed", [False, True], ids=["segments", "spans"])
def test_the_velocity_is_that_of_the_equations_by_hand(heads: float, mixed: bool) -> None:
    config = dataclasses.replace(CONFIG, spread=[0.2, 0.4, 0.7, 1.0, 1.5, 3.0])
    model, generator = moved(config, heads), torch.Generator().manual_seed(4)
    lengths, captions, fps, t = [6, 9, 4], [3, 0, 5], [12.0, 0.0, 30.0], [0.1, 0.6, 0.95]
    rows, padding = sum(lengths), 3
    segment = torch.arange(3).repeat_interleave(torch.tensor(lengths))
    pack = TokenPack(
        latent=torch.zeros(rows + padding, 24),
        valid=torch.ones(rows + padding, 24, dtype=torch.bool),
        positions=torch.randint(0, 9, (rows + padding, 3), generator=generator),
        place=torch.randn(rows + padding, POSITION_FEATURES, generator=generator),
        segment=torch.cat([segment, segment[-1:].expand(padding)]),
        lengths=lengths,
        fps=torch.tensor(fps),
        caption=torch.randn(sum(captions), 16, generator=generator),
        caption_lengths=captions,
    )
    clock = torch.tensor(t)[segment]
    if mixed:  # frames, a mask whose rows are no neighbours, and a segment that is whole
        mask = torch.tensor([1, 0, 1, 1, 0, 0, 0, 1, 0], dtype=torch.bool).view(1, 3, 3)
        spans = lay_spans([own_times((3, 2, 4)), given_tokens(mask), whole(4)]).padded(padding)
        pack, t = dataclasses.replace(pack, spans=spans), [0.1, 0.9, 0.3, 0.6, 0.0, 0.95]
        clock = pack.times(torch.tensor(t))[pack.span]
        assert clock[:15].tolist().count(1) == 4
        assert torch.equal(clock, torch.tensor([0.1, 0.9, 0.3, 0.6, 1.0, 0.95])[pack.span])
    x_t = torch.randn(rows + padding, 24, generator=generator)
    found = model(pack, x_t, pack.times(torch.tensor(t))).double().numpy()

    weights = {name: p.double().numpy() for name, p in model.named_parameters()}
    row = word = 0
    for i in range(3):
        own, words = slice(row, row + lengths[i]), slice(word, word + captions[i])
        inputs = (x[own].double().numpy() for x in (pack.positions, pack.place))
        expected = by_hand.velocity(
            weights,
            config.depth,
            config.spread,
            x_t[own].double().numpy(),
            clock[own].double().numpy(),
            fps[i],
            *inputs,
            pack.caption[words].double().numpy(),
        )
        assert found[own] == pytest.approx(expected, rel=2e-4, abs=2e-4), i
        row, word = own.stop, words.stop


@pytest.mark.parametrize(("captions", "lone"), [([3, 0, 1], 2), ([3, 4, 0], 1), ([1, 0, 0], 3)])
def test_segments_that_see_one_token_get_its_value_without_asking(
    captions: list[int], lone: int
) -> None:
    model, generator = moved(CONFIG, 1.0), torch.Generator().manual_seed(6)
    lengths = [6, 9, 4]
    pack = TokenPack(
        latent=torch.zeros(19, 24),
        valid=torch.ones(19, 24, dtype=torch.bool),
        positions=torch.randint(0, 9, (19, 3), generator=generator),
        place=torch.randn(19, POSITION_FEATURES, generator=generator),
        segment=torch.arange(3).repeat_interleave(torch.tensor(lengths)),
        lengths=lengths,
        fps=torch.zeros(3),
        caption=torch.randn(sum(captions), 16, generator=generator),
        caption_lengths=captions,
    )
    x_t, t = torch.randn(19, 24, generator=generator), torch.tensor([0.2, 0.5, 0.8])
    asked: list[int] = []
    for block in model.blocks:
        query = block.cross_attention.q  # type: ignore[union-attr]
        query.register_forward_hook(lambda _, given, out: asked.append(len(out)))
    found = model(dataclasses.replace(pack, lone=lone), x_t, t)
    heard = sum(lengths[: 3 - lone])
    assert asked == ([heard] * CONFIG.depth if heard else [])
    torch.testing.assert_close(found, model(pack, x_t, t), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("twins", [(0, 1), (1,), (2, 0)], ids=str)
def test_a_segment_and_what_guides_it_away_attend_once_until_they_read_captions(
    twins: tuple[int, ...],
) -> None:
    model, generator = moved(CONFIG, 1.0), torch.Generator().manual_seed(8)
    lengths, captions, rows = [6, 9, 4], [3, 2, 4], 19
    first = {
        "x": torch.randn(rows, 24, generator=generator),
        "positions": torch.randint(0, 9, (rows, 3), generator=generator),
        "place": torch.randn(rows, POSITION_FEATURES, generator=generator),
    }
    own = torch.cat([torch.arange(rows).split(lengths)[number] for number in twins])
    both = {name: torch.cat([value, value[own]]) for name, value in first.items()}
    every = [*range(3), *twins]
    counts = captions + [0] * (len(twins) - 1) + [5]
    pack = TokenPack(
        latent=torch.zeros_like(both["x"]),
        valid=torch.ones_like(both["x"], dtype=torch.bool),
        positions=both["positions"],
        place=both["place"],
        segment=torch.arange(len(every)).repeat_interleave(
            torch.tensor([lengths[number] for number in every])
        ),
        lengths=[lengths[number] for number in every],
        fps=torch.tensor([12.0, 0.0, 30.0])[every],
        caption=torch.randn(sum(counts), 16, generator=generator),
        caption_lengths=counts,
    )
    t = torch.tensor([0.2, 0.5, 0.8])[every]
    asked: list[int] = []
    for block in model.blocks:
        query = block.self_attention.qkv  # type: ignore[union-attr]
        query.register_forward_hook(lambda _, given, out: asked.append(len(out)))
    found = model(dataclasses.replace(pack, twins=twins), both["x"], t)
    assert asked == [rows, len(both["x"])]
    torch.testing.assert_close(found, model(pack, both["x"], t), rtol=1e-4, atol=1e-5)


def test_a_networks_input_and_output_have_unit_variance_at_every_time() -> None:
    # Brute force over draws: what the coefficients make of x_t and of the target.
    sigma, generator = 0.3, torch.Generator().manual_seed(5)
    model = DiT(dataclasses.replace(CONFIG, spread=[sigma] * 6))
    x_0, x_1 = torch.randn(2, 200_000, generator=generator)
    x_1 *= sigma
    t = torch.linspace(0, 1, 7)
    c_in, c_skip, c_out = (
        c[:, 0] for c in model.precondition(pack_of(torch.zeros(7, 24), 7, 0), t)
    )
    for i, time in enumerate(t):
        x_t = (1 - time) * x_0 + time * x_1
        target = (x_1 - x_0 - c_skip[i] * x_t) / c_out[i]
        assert (c_in[i] * x_t).std().item() == pytest.approx(1, rel=0.01)
        assert target.std().item() == pytest.approx(1, rel=0.01)
        assert (target * x_t).mean().item() == pytest.approx(0, abs=0.01)  # skip takes all it can


def test_sigma_is_restored_in_fp32_cell_by_cell_of_each_channel() -> None:
    model = DiT(dataclasses.replace(CONFIG, spread=[0.2, 0.4, 0.7, 1.0, 1.5, 3.0])).bfloat16()
    model.restore_buffers(torch.device("cpu"))
    expected = [s for s in (0.2, 0.4, 0.7, 1.0, 1.5, 3.0) for _ in range(4)]
    assert model.sigma.dtype == torch.float32
    assert model.sigma.tolist() == pytest.approx(expected)
    assert model.dtype == torch.bfloat16


def test_first_values_are_zero_one_or_normal_by_what_a_parameter_is_for() -> None:
    model = DiT(dataclasses.replace(CONFIG, text_width=900))
    model.reset_parameters(torch.Generator().manual_seed(0))
    zeros = ("modulation.weight", "cross_attention.out.weight", "offset")
    for name, parameter in model.named_parameters():
        if name == "modulation.bias":  # shift, scale and gate of either branch
            assert parameter.view(6, 32).tolist() == [[g] * 32 for g in (0, 0, 1, 0, 0, 1)]
        elif name.endswith(("norm.weight", "temperature")):
            assert (parameter == 1).all(), name
        elif name.startswith("head") or name.endswith(zeros) or name.endswith("bias"):
            assert not parameter.any(), name
        else:
            size = 1.0 if name == "null_caption" else parameter.shape[1] ** -0.5
            error = 5 * size / (2 * parameter.numel()) ** 0.5
            assert parameter.std().item() == pytest.approx(size, abs=error), name


BRANCHES = ["self_attention.out", "cross_attention.out", "mlp.2"]


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_branch_counts_base_depth_over_depth(branch: str) -> None:
    moved = []
    for options in ({}, {"base_depth": 1.0}):
        model = DiT(dataclasses.replace(CONFIG, depth=4, options=options))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.2, generator=generator)
            for other in set(BRANCHES) - {branch}:
                for parameter in model.blocks[0].get_submodule(other).parameters():
                    parameter.zero_()
        pack = pack_of(torch.zeros(12, 24), 3, 2)
        stream = model.embed(pack, torch.randn(12, 24, generator=generator), torch.zeros(3))
        moved.append((model.run_blocks(pack, stream, [0]).x - stream.x).detach())
    torch.testing.assert_close(4 * moved[1], moved[0], rtol=1e-4, atol=1e-5)
    assert float(moved[0].norm()) > 1


@pytest.mark.parametrize("base_depth", [0.0, -1.0])
def test_a_base_depth_below_zero_is_refused(base_depth: float) -> None:
    with pytest.raises(ValueError, match=r"model\.options\.base_depth=.*must be positive"):
        check_model(dataclasses.replace(CONFIG, options={"base_depth": base_depth}))


def test_a_loop_may_be_cut_anywhere() -> None:
    # Where tokens lie in their frame is the same for all frames here: time is rotary alone.
    network = moved(CONFIG, heads=1.0)
    rows, frames = 4, 5
    positions = token_positions(frames, 4, 4) + torch.tensor([1, 0, 0])
    pack = TokenPack(
        latent=torch.zeros(20, 24),
        valid=torch.ones(20, 24, dtype=torch.bool),
        positions=positions,
        place=position_features(positions * torch.tensor([0, 1, 1]), (5, 2, 2)),
        segment=torch.zeros(20, dtype=torch.long),
        lengths=[20],
        fps=torch.tensor([12.0]),
        caption=torch.ones(2, 16),
        caption_lengths=[2],
        periods=torch.full((20,), frames),
    )
    x = torch.randn(20, 24, generator=torch.Generator().manual_seed(3))
    t = torch.tensor([0.4])
    drawn = network(pack, x, t)
    for turn in range(1, frames):
        turned = network(pack, x.roll(turn * rows, 0), t)
        torch.testing.assert_close(turned, drawn.roll(turn * rows, 0), rtol=0, atol=2e-5)
    open_ended = dataclasses.replace(pack, periods=None)
    turned = network(open_ended, x.roll(rows, 0), t)
    assert (turned - network(open_ended, x, t).roll(rows, 0)).abs().max() > 1e-3
