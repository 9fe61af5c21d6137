"""Continuations whose breaks are known: each kind is counted, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from data.worlds.tiny.registry import tiny_world
from data.worlds.tiny.state import COLOUR, HEIGHT, THERE, WIDTH, State, X
from data.worlds.tiny.world import SPLICE, generator
from trainer.probes.samples.judged import BREAKS, LOST, compared_kinds, judge, summarise

HORIZON = 4


def moving() -> State:
    """Return a ball that is wholly in sight in the last frame."""
    world = tiny_world("uniform")
    return world.draw(generator("uniform", 3, 0))


def changed(state: State, **fields: float) -> State:
    """Return a state whose first body differs from the splice on."""
    bodies = state.bodies.copy()
    for name, value in fields.items():
        column = {"x": X, "colour": COLOUR, "there": THERE}[name]
        bodies[SPLICE:, 0, column] = bodies[SPLICE:, 0, column] + value if name == "x" else value
    return replace(state, bodies=bodies)


def test_a_clip_breaks_nothing_against_itself() -> None:
    state = moving()
    judged = judge(state, state, ["ball"], SPLICE)
    assert not judged.breaks.any()
    assert np.nanmax(judged.away) == 0
    assert all(judged.right(part) for part in ("there", "colour", "place", "all"))


@pytest.mark.parametrize(
    ("fields", "kind", "wrong", "away"),
    [
        ({"x": 3.0}, "place", {"place", "all"}, 3.0),
        ({"colour": 99}, "colour", {"colour", "all"}, 0.0),
        ({"there": 0.0}, "vanish", {"there", "colour", "place", "all"}, LOST),
    ],
)
def test_a_break_is_of_its_kind_in_every_frame(
    fields: dict, kind: str, wrong: set, away: float
) -> None:
    state = moving()
    judged = judge(state, changed(state, **fields), ["ball"], SPLICE)
    counted = judged.breaks.sum(0)
    seen = np.isfinite(judged.away)
    assert seen.any()
    assert counted[BREAKS.index(kind)] == seen.sum()
    assert counted.sum() == seen.sum()
    assert np.allclose(judged.away[seen], away)
    assert {part for part in ("there", "colour", "place", "all") if not judged.right(part)} == wrong


def test_a_second_body_appeared_and_a_larger_one_has_another_size() -> None:
    state = moving()
    more = np.concatenate([state.bodies, state.bodies], 1)
    more[:, 1, X] += 6
    more[:, 1, COLOUR] += 1
    twice = replace(state, kinds=(*state.kinds, *state.kinds), bodies=more)
    judged = judge(state, twice, ["ball"], SPLICE)
    assert judged.breaks[:, BREAKS.index("appear")].sum() == HORIZON
    assert not judged.right("there")
    large = state.bodies.copy()
    large[..., [WIDTH, HEIGHT]] += 2
    size = judge(state, replace(state, bodies=large), ["ball"], SPLICE).breaks.sum(0)
    assert size[BREAKS.index("size")] == size.sum() > 0


def test_neither_the_wall_nor_the_lamp_of_the_strip_is_compared() -> None:
    world = tiny_world("strip")
    states = [world.draw(generator("strip", 3, index)) for index in range(12)]
    assert compared_kinds(states, world.free) == ["ball"]
    assert compared_kinds(states, ()) == ["lamp", "ball"]


def test_a_summary_counts_breaks_in_a_hundred_frames_and_clips_of_which_all_is_right() -> None:
    state = moving()
    judged = [judge(state, state, ["ball"], SPLICE)] * 3
    judged.append(judge(state, changed(state, colour=99), ["ball"], SPLICE))
    found = summarise(judged)
    frames = np.isfinite(judged[0].away).sum()
    assert found["breaks"]["value"] == pytest.approx(100 * frames / (4 * HORIZON))
    assert found["by_kind"]["colour"] == pytest.approx(found["breaks"]["value"])
    assert found["parts"] == {"there": 1.0, "colour": 0.75, "place": 1.0, "all": 0.75}
    assert len(found["away"]) == HORIZON
    # Of the first and the third all is right, of the second and the fourth half.
    assert found["halves"]["parts"]["all"] == 1.0
    assert found["halves"]["all"] == 0.5
