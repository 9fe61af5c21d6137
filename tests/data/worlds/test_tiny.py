"""Tiny worlds: the law, its twin, crossed pairs, and readers that find the state in pixels."""

from dataclasses import replace

import numpy as np
import pytest

from data.worlds.tiny.balls import CELLS, NO_COLOUR_SIZE, RADII, SPEEDS, unseen_pairs
from data.worlds.tiny.film import film
from data.worlds.tiny.paint import WHITE
from data.worlds.tiny.panorama import unseen_frames
from data.worlds.tiny.registry import TINY_WORLDS, tiny_world
from data.worlds.tiny.state import COLOUR, SEEN, THERE, WIDTH, X, Y, compare, splice
from data.worlds.tiny.world import SPLICE, generator, hash_of
from data.worlds.truth import check_truth
from data.worlds.words import unproven

COUNT = 200  # clips whose means are compared
NAMES = list(TINY_WORLDS)
ENDLESS = [name for name in NAMES if not tiny_world(name).finite]
PAIRS = [
    (name, prop) for name in NAMES for prop in (*tiny_world(name).laws, *tiny_world(name).free)
]
# Largest error of each reader on wholly visible bodies, in pixels: of places, of sizes.
READERS = {
    **dict.fromkeys(("panorama", "canvas", "tiles"), (0.0, 0.0)),
    **dict.fromkeys(("strip", "switch"), (0.06, 0.1)),
    "strip_finite": (0.01, 0.01),
    "turntable": (0.2, 0.2),
    **dict.fromkeys(("uniform", "collision", "parabola"), (0.08, 0.1)),
    **dict.fromkeys(("rotor", "rotor_damped"), (0.05, 0.08)),
    "brittle": (0.1, 0.15),
}


def drawn(name, count, lawless="", seed=3):
    """Return states of a world."""
    world = tiny_world(name)
    return [world.draw(generator(name, seed, index), lawless) for index in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_is_its_seed_and_its_index_in_any_order(name):
    world = tiny_world(name)
    later = [world.render(world.draw(generator(name, 1, index))) for index in (7, 3)]
    first = [world.render(world.draw(generator(name, 1, index))) for index in (3, 7)]
    assert np.array_equal(first[0], later[1])
    assert np.array_equal(first[1], later[0])
    assert not np.array_equal(*first)
    assert first[0].shape == (9, *world.size, 3)
    assert world.size[0] % 4 == world.size[1] % 4 == 0
    assert hash_of("strip") == 0x5E6CBCAD84FD6531  # the same in every process


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_world_shows_no_clip_twice(name):
    world = tiny_world(name)
    states = drawn(name, 300)
    if name in ("strip", "switch"):  # without a ball there are a few hundred pictures
        states = [state for state in states if state.of("ball")[0, 0, THERE]]
    clips = {world.render(state).tobytes() for state in states}
    assert len(clips) == len(states)


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_finds_the_state_of_true_clips(name):
    world = tiny_world(name)
    position, size = READERS[name]
    for state in drawn(name, 15):
        error = compare(state, world.read(world.render(state)))
        assert error.bodies > 0
        assert (error.missed, error.invented, error.colours) == (0, 0, 0)
        assert error.position <= position
        assert error.size <= size
        assert error.light <= 0.5 / 255 + 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_of_another_clip_errs(name):
    world = tiny_world(name)
    one, other = drawn(name, 2, seed=5)
    error = compare(one, world.read(world.render(other)))
    assert error.missed + error.invented + error.colours + error.position > 1


@pytest.mark.parametrize(
    ("name", "law"), [(name, law) for name in NAMES for law in (*tiny_world(name).laws, "all")]
)
def test_a_twin_has_the_same_halves_and_joins_them_otherwise(name, law):
    lawful, twins = drawn(name, COUNT), drawn(name, COUNT, law)
    for one, other in zip(lawful, twins, strict=True):
        assert np.array_equal(one.bodies[:SPLICE], other.bodies[:SPLICE])
    changed = [not np.array_equal(a.bodies, b.bodies) for a, b in zip(lawful, twins, strict=True)]
    assert np.mean(changed) > 0.05
    # Other scenes than those of the twins, so that the two are independent.
    ends = [np.stack([ending(s) for s in states]) for states in (drawn(name, COUNT, seed=9), twins)]
    (one, other), (a, b) = ([getattr(e, how)(0) for e in ends] for how in ("mean", "std"))
    noise = np.sqrt((a**2 + b**2) / COUNT) + 1e-3
    assert (np.abs(one - other) / noise).max() < 5


def ending(state):
    """Return the last frame of a state and its last step as numbers."""
    return np.concatenate([state.bodies[-1].ravel(), (state.bodies[-1] - state.bodies[-2]).ravel()])


@pytest.mark.parametrize(("name", "prop"), PAIRS)
def test_a_crossed_pair_exchanges_the_endings_of_two_lawful_clips(name, prop):
    world = tiny_world(name)
    for index in range(3):
        pair = world.crossed(generator(name, 2, index, 1), prop)
        for both in ("ab", "ba"):
            first, second = (pair.states[half * 2] for half in both)
            joined = splice(first, second, SPLICE)
            assert np.array_equal(pair.frames[both], world.render(joined))
            assert np.array_equal(pair.frames[both][:SPLICE], pair.frames[both[0] * 2][:SPLICE])
        assert not np.array_equal(pair.frames["aa"], pair.frames["bb"])
        assert len({pair.frames[way].tobytes() for way in ("aa", "ab", "ba", "bb")}) == 4


def test_a_pair_of_the_strip_looks_alike_behind_the_wall():
    world = tiny_world("strip")
    for prop in world.laws:
        pair = world.crossed(generator("strip", 2, 0, 1), prop)
        assert np.array_equal(pair.frames["aa"][4], pair.frames["bb"][4])
        assert not np.array_equal(pair.frames["aa"][0], pair.frames["bb"][0])


def lane_lamp_end(state):
    """Return the lane before, whether the first lamp is white, and the lane after."""
    ball, lamp = state.of("ball")[:, 0], state.of("lamp")[:, 0]
    return int(ball[0, Y] > 4), int(lamp[0, COLOUR] == WHITE), int(ball[-1, Y] > 4)


def test_a_switch_is_a_law_of_three_of_which_any_two_are_independent():
    found = [lane_lamp_end(s) for s in drawn("switch", 2000) if s.of("ball")[0, 0, THERE]]
    lane, lamp, end = np.array(found).T
    assert np.array_equal(end, lane ^ (1 - lamp))
    assert np.abs(np.corrcoef(np.array(found).T)[np.triu_indices(3, 1)]).max() < 0.08
    for law in ("lane", "switch"):
        twins = [lane_lamp_end(s) for s in drawn("switch", 400, law) if s.of("ball")[0, 0, THERE]]
        assert 0.4 < np.mean([e == (a ^ (1 - b)) for a, b, e in twins]) < 0.6


@pytest.mark.parametrize("prop", ["lane", "switch", "lamp"])
def test_pairs_of_a_switch_break_it_but_for_the_lamp_that_takes_the_lane_along(prop):
    world = tiny_world("switch")
    for index in range(8):
        pair = world.crossed(generator("switch", 2, index, 1), prop)
        for way, state in pair.states.items():
            lane, lamp, end = lane_lamp_end(state)
            keeps = end == lane ^ (1 - lamp)
            there = bool(state.of("ball")[0, 0, THERE])
            assert keeps == (prop == "lamp" or way in ("aa", "bb")) or not there


def test_a_pair_of_the_street_looks_alike_where_the_window_turns():
    world = tiny_world("panorama")
    for prop in world.laws:
        pair = world.crossed(generator("panorama", 2, 0, 1), prop)
        assert np.array_equal(pair.frames["aa"][4], pair.frames["bb"][4])


def test_a_pair_of_the_turntable_looks_nearly_alike_at_the_splice():
    world = tiny_world("turntable")
    pair = world.crossed(generator("turntable", 2, 0, 1), "parallax")
    a, b = (pair.states[name].bodies for name in ("aa", "bb"))
    middles = [(s[SPLICE - 1, :, X] + s[SPLICE, :, X]) / 2 for s in (a, b)]
    assert np.allclose(*middles, atol=0.2)
    assert np.abs(a[0, :, X] - b[0, :, X]).max() > 2


@pytest.mark.parametrize("name", NAMES)
def test_captions_of_tiny_clips_claim_nothing_that_the_truth_does_not_hold(name):
    for index in range(8):
        for lawless in ("", "all"):
            clip = film(name, 4, index, lawless)
            check_truth(clip.truth)
            attributes = clip.truth["attributes"]
            assert unproven(clip.caption, attributes) == [], clip.caption
            assert unproven(clip.short_caption, attributes) == [], clip.short_caption
            assert 17 <= len(clip.caption.split()) <= 80
            assert 4 <= len(clip.short_caption.split()) <= 14
            assert ("lawless" in attributes) == bool(lawless)


@pytest.mark.parametrize(
    ("name", "prop", "rule"),
    [
        ("moon", "colour", "world=moon: is no tiny world. Use strip"),
        ("uniform_unseen_9", "colour", "is no tiny world"),
        ("strip", "taste", "property=taste: is none of strip. Use existence, colour"),
    ],
)
def test_unknown_worlds_and_laws_are_refused(name, prop, rule):
    with pytest.raises(ValueError, match=rule):
        tiny_world(name).crossed(generator(name, 0, 0), prop)


def test_a_pair_that_differs_in_more_than_its_property_is_refused():
    world, rng = tiny_world("strip"), generator("strip", 0, 0)
    a = world.scene(rng)
    with pytest.raises(ValueError, match=r"must differ in .'colour',. alone"):
        world.cross(a, world.redraw(rng, world.redraw(rng, a, "colour"), "speed"), "colour")
    with pytest.raises(ValueError, match=r"differ in \[\]"):
        world.cross(a, a, "colour")


def test_a_pair_whose_halves_differ_in_brightness_is_refused():
    world, rng = tiny_world("panorama"), generator("panorama", 0, 0)
    a = world.scene(rng)
    b = replace(a, sky=(a.sky[0], a.sky[1] + 0.6))
    with pytest.raises(ValueError, match=r"second halves' mean differs, .* by more than 24 grey"):
        world.cross(a, b, "sky")


def test_no_training_clip_of_balls_has_a_pair_of_values_that_is_held_out():
    for name in ("uniform", "parabola"):
        for state in drawn(name, 200):
            first, second = state.bodies[0, 0], state.bodies[1, 0]
            size = int(np.searchsorted(RADII[1:-1], first[WIDTH] / 2, side="right"))
            assert (int(first[COLOUR]), size) not in NO_COLOUR_SIZE
            if name == "uniform":
                pace = np.hypot(*(second - first)[[X, Y]])
                speed = int(np.searchsorted(SPEEDS["uniform"][1:-1], pace, side="right"))
                assert unseen_pairs(int(first[COLOUR]), size, speed) == 0
    assert [len(CELLS[number]) for number in range(4)] == [39, 13, 1, 1]
    for state in drawn("uniform_unseen_3", 10):
        assert state.bodies[0, 0, COLOUR] == 0
    assert all(state.bodies[0, 0, WIDTH] > 2 * RADII[-1] for state in drawn("uniform_beyond", 10))


def test_a_collision_keeps_momentum_and_energy():
    for state in drawn("collision", 50):
        mass = state.bodies[0, :, WIDTH] ** 2
        before, after = (state.bodies[a + 1, :, X] - state.bodies[a, :, X] for a in (0, 6))
        assert np.isclose(mass @ before, mass @ after)
        assert np.isclose(mass @ before**2, mass @ after**2)


def test_pieces_of_glass_keep_its_mass_and_only_hard_hits_break_it():
    broken = 0
    for state in drawn("brittle", 50):
        ball, pieces = state.of("ball")[:, 0], state.of("piece")
        fall = ball[1, Y] - ball[0, Y]
        assert pieces[-1, :, THERE].all() == (fall > 1.1)
        broken += int(fall > 1.1)
        area = (pieces[-1, :, WIDTH] ** 2 * pieces[-1, :, THERE]).sum()
        assert area == pytest.approx(ball[0, WIDTH] ** 2 if fall > 1.1 else 0)
    assert 10 < broken < 40


def test_the_agent_is_never_in_a_wall_and_keys_are_kept_count_of():
    for state in drawn("tiles", 100):
        agent, walls = state.of("agent")[:, 0], state.of("wall")
        assert not (agent[:, None, [X, Y]] == walls[..., [X, Y]]).all(-1).any()
        held = state.of("key")[..., THERE].sum(1) + state.of("count")[..., THERE].sum(1)
        opened = state.of("door")[:, 0, COLOUR] != state.of("door")[0, 0, COLOUR]
        assert (held + opened == held[0]).all()


def test_houses_of_the_street_are_away_for_one_to_seven_frames():
    away = np.concatenate([unseen_frames(state) for state in drawn("panorama", 200)])
    assert set(away.tolist()) == {0, 1, 3, 5, 7}
    for state in drawn("panorama", 20):
        assert np.array_equal(state.bodies[:4], state.bodies[:4:-1])


def test_an_even_rotor_loops_and_runs_backwards_and_a_damped_one_does_not():
    rotor = tiny_world("rotor")
    loops = 0
    for scene, _ in rotor.scenes()[::7]:
        state = rotor.unroll(scene)
        way = (1, -1)[scene.direction]  # frames lie at -4.5 to 3.5 from the splice
        turned = {"direction": 1 - scene.direction, "angle": scene.angle - way * scene.turn}
        back = rotor.unroll(replace(scene, **turned))
        assert np.allclose(state.backwards().bodies, back.bodies)
        frames = rotor.render(state)
        loops += int(np.array_equal(frames[0], frames[-1]))
    assert loops > 100
    for state in drawn("rotor_damped", 20):
        dot = state.backwards().of("dot")[:, 0]
        assert (np.diff(np.hypot(dot[:, X] - 8, dot[:, Y] - 8)) > 0).all()


def test_a_hidden_ball_is_not_read_and_a_seen_one_is():
    world = tiny_world("strip")
    state = next(s for s in drawn("strip", 20) if s.of("ball")[0, 0, THERE])
    found = world.read(world.render(state)).of("ball")[:, 0, THERE]
    assert found[4] == 0
    assert found[0] == 1
    assert state.of("ball")[4, 0, SEEN] == 0
