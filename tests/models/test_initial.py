"""Initial values by name and place: any piece alone is what the whole holds there."""

import pytest
import torch

from models.architecture import Initial, Split, Weight, specification_of
from models.config import ModelConfig
from models.initial import Drawn, drawn_values

MODEL = ModelConfig(width=96, depth=2, head_dim=24)


def whole(drawn: Drawn) -> torch.Tensor:
    return drawn.piece(None, 0, 1, 0, drawn.weight.size).view(drawn.weight.shape)


@pytest.mark.parametrize("cut", [None, Split(0), Split(0, 3), Split(1)])
@pytest.mark.parametrize("shape", [(12, 8), (768, 300), (6, 70_000), (24, 6, 8)])
def test_a_piece_is_what_the_whole_holds_there(shape: tuple[int, ...], cut: Split | None) -> None:
    drawn = Drawn("blocks.0.x.weight", Weight("x", shape, "p", initial=Initial.fan_in), 7)
    count = 1 if cut is None else 2
    for index in range(count):
        part = whole(drawn) if cut is None else cut.cut(whole(drawn), index, count)
        flat = part.reshape(-1)
        for start, length in ((0, len(flat)), (1, 1), (len(flat) // 3, len(flat) // 2 + 1)):
            piece = drawn.piece(cut, index, count, start, length)
            assert torch.equal(piece, flat[start : start + length])


def test_values_depend_on_the_name_and_the_seed_and_have_their_spread() -> None:
    weight = Weight("x", (512, 256), "p", initial=Initial.fan_in)
    first, other = whole(Drawn("a", weight, 0)), whole(Drawn("b", weight, 0))
    assert torch.equal(first, whole(Drawn("a", weight, 0)))
    for drawn in (other, whole(Drawn("a", weight, 1))):
        assert (
            abs(float(torch.corrcoef(torch.stack([first.flatten(), drawn.flatten()]))[0, 1])) < 0.02
        )
    assert float(first.std()) == pytest.approx(256**-0.5, rel=0.01)
    assert float(first.mean()) == pytest.approx(0, abs=1e-3)
    lines = torch.corrcoef(first[:2])[0, 1]  # rows of one draw differ, too
    assert abs(float(lines)) < 0.3


def test_only_what_is_wanted_is_yielded_and_constants_are_those_of_the_stream() -> None:
    from models.network import initial_values

    stream = dict(initial_values(MODEL, torch.Generator().manual_seed(0)))
    found = dict(drawn_values(MODEL, 0, stream.keys()))
    assert list(found) == list(stream) == list(specification_of(MODEL).weights)
    for name, drawn in found.items():
        assert whole(drawn).shape == stream[name].shape
        if drawn.weight.initial not in (Initial.fan_in, Initial.normal):
            assert torch.equal(whole(drawn), stream[name]), name
    assert [name for name, _ in drawn_values(MODEL, 0, ["head.bias"])] == ["head.bias"]
