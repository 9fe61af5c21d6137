"""The packing is invisible: neighbours, order and padding change nothing a segment sees."""

import dataclasses

import pytest
import torch
from torch import Tensor

from models.config import POSITION_FEATURES, ModelConfig
from models.dit.embed import patchify, position_features, token_positions
from models.dit.model import DiT
from models.objectives.flow import flow_errors
from models.pack import TokenPack
from models.spans import given_frames, lay_spans, own_times, whole

CONFIG = ModelConfig(width=32, depth=2, text_width=16)
# (latent frames, rows, columns), caption tokens, fps: clips, images and one without a caption.
CLIPS = [((5, 4, 6), 5, 12.0), ((1, 8, 6), 0, 0.0), ((3, 6, 4), 2, 24.0), ((1, 4, 4), 7, 0.0)]


def trained_model(seed: int = 0) -> DiT:
    """Return a model whose zero-initialised layers were moved, so that every part matters."""
    generator = torch.Generator().manual_seed(seed)
    model = DiT(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
    return model


def segments(order: list[int], padding: int = 0) -> tuple[TokenPack, Tensor, Tensor]:
    """Lay clips side by side; return the pack, its noise and its times."""
    parts = []
    for i in order:
        generator = torch.Generator().manual_seed(100 + i)
        size, captions, fps = CLIPS[i]
        latent = patchify(torch.randn(6, *size, generator=generator))
        positions = token_positions(*size)
        parts.append(
            {
                "latent": latent,
                "valid": torch.rand(latent.shape, generator=generator) > 0.1,
                "positions": positions,
                "place": position_features(positions, (5, size[1] // 2, size[2] // 2)),
                "caption": torch.randn(captions, 16, generator=generator),
                "x_0": torch.randn(latent.shape, generator=generator),
                "t": torch.rand(1, generator=generator),
                "fps": torch.tensor([fps]),
            }
        )
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    x_0, t = joined.pop("x_0"), joined.pop("t")
    for key in ("latent", "valid", "positions", "place"):
        joined[key] = torch.cat([joined[key], joined[key].new_zeros(padding, joined[key].shape[1])])
    x_0 = torch.cat([x_0, x_0.new_zeros(padding, x_0.shape[1])])
    lengths = [len(part["latent"]) for part in parts]
    segment = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(lengths))
    pack = TokenPack(
        **joined,
        segment=torch.cat([segment, segment[-1:].expand(padding)]),
        lengths=lengths,
        caption_lengths=[len(part["caption"]) for part in parts],
    )
    return pack, x_0, t


@pytest.mark.parametrize("padding", [0, 13])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [1, 1, 2]], ids=str)
def test_loss_of_a_pack_is_the_sum_of_its_segments_alone(order: list[int], padding: int) -> None:
    model = trained_model()
    together = flow_errors(model, *segments(order, padding)).double().sum()
    alone = sum(flow_errors(model, *segments([i])).double().sum() for i in order)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)


def test_gradient_of_a_pack_is_the_sum_of_its_segments_alone() -> None:
    packed, single = trained_model(), trained_model()
    flow_errors(packed, *segments([2, 0, 3, 1], 9)).sum().backward()
    for i in range(4):
        flow_errors(single, *segments([i])).sum().backward()
    for (name, a), b in zip(packed.named_parameters(), single.parameters(), strict=True):
        scale = b.grad.abs().max()
        assert (a.grad - b.grad).abs().max() <= 1e-5 * scale, name


def test_one_span_a_segment_is_bitwise_no_span_at_all() -> None:
    pack, x_0, t = segments([2, 0, 3, 1], 9)
    spans = lay_spans([whole(length) for length in pack.lengths]).padded(9)
    found = []
    for each in (pack, dataclasses.replace(pack, spans=spans)):
        model = trained_model()
        errors = flow_errors(model, each, x_0, each.times(t))
        errors.sum().backward()
        found.append([errors.detach(), *(p.grad for p in model.parameters())])
    for plain, spanned in zip(*found, strict=True):
        assert torch.equal(plain, spanned)


def test_spans_of_a_segment_see_each_other_and_their_own_times() -> None:
    pack, x_0, _ = segments([0, 2])
    spans = lay_spans([given_frames(CLIPS[0][0], [0, 3]), own_times(CLIPS[2][0])])
    pack, model = dataclasses.replace(pack, spans=spans), trained_model()
    clock = pack.times(torch.tensor([0.3, 0.0, 0.2, 0.5, 0.8]))
    with torch.no_grad():
        base = flow_errors(model, pack, x_0, clock)
        for span in range(5):
            later = clock.clone()
            later[span] -= 0.1
            same = flow_errors(model, pack, x_0, later) == base
            own = spans.segments[span] == pack.segment
            assert not same[own].any()
            assert same[~own].all()


def test_padding_rows_carry_no_loss() -> None:
    pack, x_0, t = segments([0, 2], padding=11)
    errors = flow_errors(trained_model(), pack, x_0, t)
    assert torch.equal(errors[pack.num_tokens :], torch.zeros(11))


@pytest.mark.parametrize("changed", [0, 1, 2, 3])
def test_a_segment_never_sees_another(changed: int) -> None:
    pack, x_0, t = segments([0, 1, 2, 3])
    starts = torch.tensor([0, *pack.lengths]).cumsum(0).tolist()
    rows = slice(starts[changed], starts[changed + 1])
    caption_starts = torch.tensor([0, *pack.caption_lengths]).cumsum(0).tolist()
    words = slice(caption_starts[changed], caption_starts[changed + 1])
    disturbed = dataclasses.replace(
        pack, latent=pack.latent.clone(), caption=pack.caption.clone(), fps=pack.fps.clone()
    )
    disturbed.latent[rows] += 3.0
    disturbed.caption[words] -= 2.0
    disturbed.fps[changed] += 30.0
    later = t.clone()
    later[changed] = 1 - later[changed]
    model = trained_model()
    with torch.no_grad():
        before = flow_errors(model, pack, x_0, t)
        after = flow_errors(model, disturbed, x_0, later)
    same = (before == after).tolist()
    assert not any(same[rows])
    assert all(same[: starts[changed]] + same[starts[changed + 1] :])


def test_every_input_of_a_segment_reaches_its_loss() -> None:
    pack, x_0, t = segments([0])
    model = trained_model()
    with torch.no_grad():
        base = flow_errors(model, pack, x_0, t).sum()
        for change in (
            {"caption": pack.caption + 1.0},
            {"fps": pack.fps * 2},
            {"positions": pack.positions.flip(0)},
            {"place": pack.place.flip(0)},
            {"caption": pack.caption[:0], "caption_lengths": [0]},
        ):
            assert flow_errors(model, dataclasses.replace(pack, **change), x_0, t).sum() != base


def test_place_has_the_declared_number_of_features() -> None:
    assert segments([0])[0].place.shape[1] == POSITION_FEATURES
