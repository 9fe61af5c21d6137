"""Spans: which tokens share a time, which are given, and what that changes of a pack."""

import pytest
import torch

from models.dit.embed import token_positions
from models.objective import Weighting
from models.objectives.flow import Flow, interpolate, time_weight
from models.precondition import data_coefficients, noise_coefficients, velocity_coefficients
from models.spans import given_frames, given_tokens, lay_spans, own_times, whole

SIZE = (3, 4, 6)  # a latent of 3 frames, each of 2 x 3 tokens
FRAMES = token_positions(*SIZE)[:, 0]


@pytest.mark.parametrize("frames", [[0], [-1], [0, 2], [1]], ids=str)
def test_whole_frames_are_given_as_one_span_beside_the_rest(frames: list[int]) -> None:
    spans = given_frames(SIZE, frames)
    wanted = torch.isin(FRAMES, torch.tensor([frame % 3 for frame in frames]))
    assert torch.equal(spans.given_rows, wanted)
    assert spans.given == (False, True)
    assert spans.rows.tolist() == wanted.long().tolist()


def test_nothing_given_is_one_span() -> None:
    for spans in (given_frames(SIZE, []), whole(18)):
        assert spans.given == (False,)
        assert spans.rows.tolist() == [0] * 18


def test_a_box_of_tokens_is_given_in_the_order_of_the_tokens() -> None:
    mask = torch.zeros(3, 2, 3, dtype=torch.bool)
    mask[1:, 0, 1:] = True
    expected = [f >= 1 and r == 0 and c >= 1 for f, r, c in token_positions(*SIZE).tolist()]
    assert given_tokens(mask).given_rows.tolist() == expected


def test_each_frame_may_have_a_time_of_its_own() -> None:
    spans = own_times(SIZE)
    assert torch.equal(spans.rows, FRAMES)
    assert not any(spans.given)
    assert len(spans.given) == 3


def test_a_frame_that_is_not_there_and_a_clip_all_given_are_refused() -> None:
    with pytest.raises(ValueError, match=r"frames=3: a clip of 3 latent frames has none such"):
        given_frames(SIZE, [3])
    with pytest.raises(ValueError, match=r"mask=\(3, 2, 3\): gives every token\. Leave one"):
        given_frames(SIZE, [0, 1, 2])


def test_spans_of_a_pack_are_numbered_on_and_lie_as_their_rows_do() -> None:
    table = lay_spans([whole(2), given_frames((3, 2, 2), [0, 2]), own_times((2, 2, 2))])
    assert table.rows.tolist() == [0, 0, 2, 1, 2, 3, 4]
    assert table.segments.tolist() == [0, 1, 1, 2, 2]
    assert table.given.tolist() == [False, False, True, False, False]
    assert (table.runs, table.lengths) == ([0, 2, 1, 2, 3, 4], [2, 1, 1, 1, 1, 1])
    assert table.padded(2).rows.tolist() == [0, 0, 2, 1, 2, 3, 4, 4, 4]
    assert table.held(slice(2, 4)).rows.tolist() == [2, 1]
    times = table.times(torch.linspace(0.1, 0.5, 5))
    assert times.tolist() == pytest.approx([0.1, 0.2, 1.0, 0.4, 0.5])


def test_what_is_given_stands_exactly_at_the_data() -> None:
    generator = torch.Generator().manual_seed(0)
    x_0, x_1 = torch.randn(2, 4096, 24, generator=generator) * 3
    assert torch.equal(interpolate(x_0, x_1, torch.ones(4096, 1)), x_1)


@pytest.mark.parametrize(
    "coefficients", [velocity_coefficients, data_coefficients, noise_coefficients]
)
def test_a_network_is_preconditioned_finitely_at_the_data(coefficients) -> None:
    sigma = torch.tensor([0.02, 0.3, 1.0, 3.0])
    c_in, c_skip, c_out = coefficients(torch.ones(1, 1), sigma)
    assert c_in[0].tolist() == pytest.approx((1 / sigma).tolist())  # what is given has unit size
    for values in (c_in, c_skip, c_out):
        assert values.isfinite().all()
        assert values.abs().max() <= max(1 / 0.02, 3 / 0.05) * 1.001


def test_times_of_given_spans_stay_finite_under_every_weight() -> None:
    for weight in Weighting:
        assert time_weight(weight, torch.ones(1)).isfinite().all(), weight
    assert Flow().strata(4, 0.5).max() < 1  # validation never takes a frame for given
