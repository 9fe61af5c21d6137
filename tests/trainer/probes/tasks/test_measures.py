"""Measures where the answer is known: true clips, frozen ones, ping-pongs, hitches, cross-fades."""

from dataclasses import replace

import numpy as np
import pytest

from data.worlds.tiny.paint import NUM_COLOURS
from data.worlds.tiny.registry import tiny_world
from data.worlds.tiny.rotor import Scene as Dot
from data.worlds.tiny.state import COLOUR, SEEN, X, Y
from trainer.probes.tasks.interval import Measured, Row, interval
from trainer.probes.tasks.known import (
    BODY,
    LOOP,
    MIDDLE,
    Known,
    cross_fade,
    draw_known,
    edited,
    halved,
    has_ball,
    hitching,
    is_loop_scene,
    known,
    lamp_of,
    later,
    ping_pong,
    still,
    typical,
)
from trainer.probes.tasks.measures import (
    across,
    angles,
    differences,
    is_loop,
    is_monotone,
    keeps_identity,
    motion_ratio,
    moves,
    path_length,
    period_of,
    quantile,
    rim_and_interior,
    state_error,
    unseen,
    velocity,
    velocity_error,
    wrapped,
)
from trainer.probes.tasks.reading import Path, light_of, read_path

STRIPS = draw_known("strip", 12, 0, has_ball)
ROTORS = draw_known("rotor", 12, 0)
LOOPS = draw_known("rotor", 12, 0, is_loop_scene)
DAMPED = draw_known("rotor_damped", 12, 0)
EVER = np.ones(9, bool)


def line(*x: float) -> Path:
    """Return a body that is at some places, NaN where it is not there."""
    at = np.array([[value, 4.0] for value in x])
    there = ~np.isnan(at[:, 0])
    return Path(at, np.where(there, 16.0, 0.0), np.where(there, 2, -1))


@pytest.mark.parametrize("clip", STRIPS + ROTORS + DAMPED, ids=lambda clip: clip.world.name)
def test_the_reader_finds_what_was_drawn_also_under_noise_that_a_network_leaves(clip) -> None:
    true = clip.state.of(BODY[clip.world.name])[:, 0]
    whole = true[:, SEEN] >= 0.98
    noise = np.random.default_rng(0).normal(0, 5, clip.frames.shape)
    noisy = np.clip(clip.frames + noise, 0, 255).astype(np.uint8)
    for frames, reach in ((clip.frames, 0.12), (noisy, 0.35)):
        found = read_path(frames)
        assert np.abs(found.at[whole] - true[whole][:, [X, Y]]).max() < reach
        assert (found.ink[whole] == true[whole, COLOUR]).all()
        assert light_of(frames) == pytest.approx(clip.state.light[0], abs=0.012)
    assert not read_path(clip.frames[:, :1, :1]).seen.any()


def test_the_reader_knows_every_ink_and_halves_of_a_picture() -> None:
    for ink in range(NUM_COLOURS):
        clip = known(tiny_world("rotor"), Dot(0.3, 0.5, 1, 5.0, 0.0, ink, 0.2))
        assert (clip.path.ink == ink).all()
        small = read_path(halved(clip.frames), 0.5).scaled(2)
        assert (small.ink == ink).all()
        assert np.abs(small.at - clip.path.at).max() < 0.5


def test_a_velocity_is_a_slope_over_the_frames_seen() -> None:
    nan = float("nan")
    assert velocity(line(1, 3, nan, 7, 9), np.ones(5, bool)) == pytest.approx([2, 0])
    # The first frame, which is given, does not count.
    late = np.array([False, True, True, True])
    assert velocity(line(-8, 3, 5, 7), late) == pytest.approx([2, 0])
    assert velocity(line(1, nan, nan), np.ones(3, bool)) == pytest.approx([0, 0])
    found, true = line(0, 1, 2), line(0, 3, 6)
    assert velocity_error(found, true, np.ones(3, bool)) == pytest.approx(2)


def test_a_path_is_the_sum_of_its_steps_and_bridges_what_is_hidden() -> None:
    hidden = float("nan")
    assert path_length(line(0, 3, hidden, 1)) == pytest.approx(5)
    assert path_length(line(hidden, 3)) == 0
    assert motion_ratio(line(0, 1, 2), line(0, 2, 4)) == pytest.approx(0.5)


def test_a_true_clip_reads_the_ceiling_and_a_frozen_one_fails_velocity_and_motion() -> None:
    for clip in STRIPS:
        frozen = read_path(still(clip.frames[:1], 9))
        assert velocity_error(clip.path, clip.path, clip.whole) == 0
        assert velocity_error(frozen, clip.path, clip.whole) == pytest.approx(
            clip.scene.speed, abs=0.1
        )
        assert motion_ratio(clip.path, clip.path) == 1
        assert motion_ratio(frozen, clip.path) == 0
        assert moves(1.0)
        assert not moves(0.0)
        assert keeps_identity(clip.path, clip.path)
    for low, high in ((0.49, 0.5), (2.01, 2.0)):
        assert not moves(low)
        assert moves(high)


def test_an_identity_is_lost_with_the_colour_or_the_size() -> None:
    path = STRIPS[0].path
    other = Path(path.at, path.area, np.where(path.ink == 0, 1, 0))
    assert not keeps_identity(other, path)
    for times, kept in ((0.4, False), (0.6, True), (1.9, True), (2.1, False)):
        assert keeps_identity(Path(path.at, path.area * times, path.ink), path) is kept


def test_a_body_that_is_not_there_errs_as_much_as_a_guess_of_the_middle() -> None:
    gaps = state_error(line(3, float("nan")), line(0, 10), (16.0, 4.0))
    assert gaps == pytest.approx([3, 6])


def test_a_joint_of_a_true_clip_is_unseen_and_of_all_floors_seen() -> None:
    for clip in ROTORS + DAMPED:
        reference = typical(clip, 2)
        assert unseen(across(clip.frames, 3, 2), reference)
        frozen = np.concatenate([clip.frames[:3], still(clip.frames[2:3], 6)])
        assert not unseen(across(frozen, 3, 2), reference)
        faded = cross_fade(clip.frames[2:3], clip.frames[6:7], 3)
        joined = np.concatenate([clip.frames[:3], faded, clip.frames[6:]])
        both = [across(joined, joint, 2) for joint in (3, 6)]
        assert not unseen(np.concatenate(both), reference)
    for clip in STRIPS:
        assert typical(clip, 1).min() > 5  # behind its wall a ball would change nothing
        frames = np.concatenate([clip.frames[:1], STRIPS[5].frames[1:]])
        assert unseen(across(frames, 1, 1), typical(clip, 1)) == (clip is STRIPS[5])


def test_differences_reach_over_the_joint_that_they_are_named_by() -> None:
    frames = np.zeros((6, 1, 1, 3), np.uint8)
    frames[3:] = 10  # a joint before frame 3
    assert differences(frames, 1).tolist() == [0, 0, 10, 0, 0]
    assert across(frames, 3, 1).tolist() == [10]
    assert across(frames, 3, 2).tolist() == [10, 10]
    assert across(frames, 2, 1).tolist() == [0]
    assert wrapped(frames, 1).tolist() == [10]
    assert wrapped(frames, 2).tolist() == [10, 10]
    assert quantile(5.0, np.array([1.0, 2.0, 5.0, 9.0])) == pytest.approx(0.625)
    assert quantile(0.0, np.array([1.0, 2.0])) == 0


def test_a_true_loop_wraps_unseen_and_no_false_one_does() -> None:
    for clip in LOOPS:
        reference = typical(clip, 2)
        true = clip.frames[:LOOP]
        assert unseen(wrapped(true, 2), reference)
        assert is_loop(angles(read_path(true), MIDDLE["rotor"]))
        for false in (ping_pong(clip), hitching(clip), still(clip.frames[:1], LOOP)):
            assert len(false) == LOOP
            assert not unseen(wrapped(false, 2), reference)
            assert not is_loop(angles(read_path(false), MIDDLE["rotor"]))
        assert (ping_pong(clip) == clip.frames[[0, 1, 2, 3, 4, 3, 2, 1]]).all()
        first, last = hitching(clip)[[0, -1]].astype(int)
        assert np.abs(first - last).max() <= 1
        period = round(2 * np.pi / clip.scene.turn)
        assert period_of(angles(clip.path, MIDDLE["rotor"]), (4, 6, 8, 12)) == period
    assert not is_loop(np.array([0.0, np.nan, 3.0, 4.5]))  # a dot that is gone in a frame


def test_a_way_is_kept_or_turned() -> None:
    angle = np.array([0.0, 1.0, 2.0, 3.0, 4.0 - 2 * np.pi])
    assert is_monotone(angle, 1)
    assert not is_monotone(angle, -1)
    assert not is_monotone(angle[[0, 2, 1, 3]], 1)
    assert not is_monotone(np.array([0.0, np.nan, 1.0]), 1)


def test_the_future_of_an_even_rotor_is_its_turn_for_ever() -> None:
    for clip in ROTORS:
        at = later(clip, 24)
        assert np.abs(at[:9] - clip.path.at).max() < 0.12
        period = round(2 * np.pi / clip.scene.turn)
        assert at[period:] == pytest.approx(at[:-period])


def test_an_edited_strip_has_the_other_lamps_and_nothing_else() -> None:
    clip = STRIPS[0]
    other = edited(clip)
    assert (lamp_of(other.frames) != lamp_of(clip.frames)).all()
    assert lamp_of(clip.frames).tolist() == clip.state.of("lamp")[:, 0, COLOUR].tolist()
    assert (other.frames[:, 2:] == clip.frames[:, 2:]).all()


def test_a_rim_is_what_is_made_beside_what_is_kept() -> None:
    made = np.zeros((4, 8), bool)
    made[:2, 2:6] = True
    true = np.zeros((3, 4, 8, 3), np.uint8)
    found = true.copy()
    found[:, 0, 3:5] = 10  # inside, two pixels from the nearest kept one
    assert rim_and_interior(found, true, made, 1) == pytest.approx((0, 10))
    found[:, 1] = 20  # the second row is beside the third, which is kept
    rim, inside = rim_and_interior(found, true, made, 1)
    assert rim == pytest.approx(20 * (4 / 6) ** 0.5)
    assert inside == pytest.approx(10)


def test_a_task_is_reached_where_every_floor_is_beaten() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.normal(1, 0.5, 40)
    best = np.zeros(40)

    def measured(larger: bool, **floors: np.ndarray) -> Measured:
        return Measured("m", larger, drawn, best, floors)

    value, low, high = interval(drawn)
    reach = 1.96 * drawn.std() / 40**0.5
    assert (low, high) == pytest.approx((value - reach, value + reach), abs=0.012)
    assert measured(False, far=drawn + 0.1).reached
    assert not measured(True, far=drawn + 0.1).reached
    assert measured(True, far=np.zeros(40)).reached
    assert not measured(False, far=drawn + 0.1, near=drawn + rng.normal(0, 0.5, 40)).reached
    row = Row("t", "w", "g", [measured(False, far=drawn + 0.1), measured(True, far=drawn)])
    assert not row.to_json()["reached"]
    assert row.to_json()["measures"][0]["reached"]


def test_true_clips_of_other_seeds_are_other_clips() -> None:
    first, again, other = (draw_known("rotor_damped", 2, seed) for seed in (0, 0, 1))
    assert (first[0].frames == again[0].frames).all()
    assert (first[0].frames != other[0].frames).any()
    assert isinstance(first[0], Known)
    assert replace(first[0].scene, light=0.0) != first[0].scene
