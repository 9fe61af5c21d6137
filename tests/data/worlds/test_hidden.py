"""Pairs of rendered clips that differ in what nothing shows at the splice."""

import numpy as np
import pytest

from data.worlds.hidden import (
    LEAST_FRAMES,
    LEAST_PIXELS,
    PROPERTIES,
    SPLICE,
    WORLDS,
    HiddenPair,
    differs_out_of_sight,
    hidden_pair,
)


@pytest.mark.heavy
@pytest.mark.parametrize("prop", PROPERTIES)
@pytest.mark.parametrize("world", WORLDS)
def test_a_pair_is_one_clip_but_for_a_body_that_is_seen_on_both_sides_of_the_splice(
    world: str, prop: str
) -> None:
    pair = hidden_pair(world, prop, 0, 1, 96, 128)
    assert pair.a.shape == pair.b.shape == (17, 96, 128, 3)
    away = (pair.a.astype(int) != pair.b).any(-1)  # (F, H, W)
    assert not away[SPLICE - 1].any()
    for frames in (away[: SPLICE - 1], away[SPLICE:]):
        seen = frames.sum((1, 2)) >= LEAST_PIXELS
        assert seen.sum() >= LEAST_FRAMES
    # One body and its shadow: the rest of the picture is the same.
    assert away.mean((1, 2)).max() < 0.3
    again = hidden_pair(world, prop, 0, 1, 96, 128)
    assert np.array_equal(pair.a, again.a)
    assert np.array_equal(pair.b, again.b)
    assert not np.array_equal(pair.a, hidden_pair(world, prop, 0, 2, 96, 128).a)


def test_a_difference_that_is_in_sight_at_the_splice_or_on_one_side_alone_is_no_pair() -> None:
    a = np.zeros((17, 16, 16, 3), np.uint8)

    def pair(*frames: int, pixels: int = LEAST_PIXELS) -> HiddenPair:
        b = a.copy()
        for frame in frames:
            b[frame].reshape(-1, 3)[:pixels, 1] = 9
        return HiddenPair(a, b)

    assert differs_out_of_sight(pair(0, 1, 9, 16))
    assert not differs_out_of_sight(pair(0, 1, SPLICE - 1, 9, 16))
    assert not differs_out_of_sight(pair(0, 1, 2, 3))
    assert not differs_out_of_sight(pair(9, 10, 11))
    assert not differs_out_of_sight(pair(0, 9, 16))  # one frame is too few
    assert not differs_out_of_sight(pair(0, 1, 9, 16, pixels=LEAST_PIXELS - 1))


@pytest.mark.parametrize(("world", "prop"), [("doom", "colour"), ("rooms", "speed")])
def test_what_has_no_pairs_is_refused_with_what_has(world: str, prop: str) -> None:
    with pytest.raises(ValueError, match="has no such pairs"):
        hidden_pair(world, prop, 0, 0, 96, 128)
