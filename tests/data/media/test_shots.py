"""Shots are found where they were cut, and clips keep within them."""

from collections import Counter

import numpy as np
import pytest

from data.config import Shots, small_clips
from data.media.film import Account, ClipPlanner, Tick, clips_of
from data.media.shots import ShotFinder, colours_of, group_scenes


def scene(seed, num_frames, height=72, width=128):
    """A coloured, textured picture that slides sideways: one shot."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 226, (9, 24, 3), np.uint8)
    wide = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
    return np.stack([wide[:height, t : t + width] for t in range(num_frames)])


def faded(frames, length=8):
    """Fade in from black and out to black."""
    level = np.ones(len(frames))
    level[:length], level[-length:] = np.linspace(0, 1, length), np.linspace(1, 0, length)
    return (frames * level[:, None, None, None]).astype(np.uint8)


def find(frames):
    finder = ShotFinder()
    cuts = [cut for frame in frames for cut in finder.push(frame)]
    return cuts + finder.finish(), finder


def film(looks):
    return (Tick(None, None, look, None) for look in looks)


def test_hard_cuts_are_found_at_their_frame_and_motion_is_none():
    lengths = [20, 33, 12, 40, 25]
    frames = np.concatenate([scene(i, n) for i, n in enumerate(lengths)])
    cuts, finder = find(frames)
    assert cuts == np.cumsum(lengths)[:-1].tolist()
    assert finder.starts == [0, *cuts]


def test_fades_through_black_are_found():
    frames = np.concatenate([faded(scene(i, 30)) for i in range(4)])
    cuts, _ = find(frames)
    for border in (30, 60, 90):
        assert any(abs(cut - border) <= 8 for cut in cuts)


def test_a_cut_is_told_before_any_clip_could_pass_it():
    """A frame counts as settled only once no later cut can come before it."""
    frames = np.concatenate([scene(i, 15) for i in range(6)])
    finder = ShotFinder()
    for number, frame in enumerate(frames):
        settled = finder.settled
        assert all(cut >= settled for cut in finder.push(frame))
        assert finder.settled <= number + 1


def test_shots_that_return_are_one_scene():
    a, b, c = (colours_of(scene(seed, 1)[0]) for seed in (1, 2, 3))
    assert group_scenes([(a, a), (b, b), (a, a), (b, b), (c, c)]) == [0, 0, 0, 0, 1]
    assert group_scenes([(a, a), (b, b), (c, c)]) == [0, 1, 2]
    assert group_scenes([]) == []


def test_split_clips_hold_no_cut_and_kept_ones_list_theirs():
    looks = np.concatenate([scene(i, n) for i, n in enumerate([20, 33, 12])])
    clips, account = {}, {}
    for way in (Shots.split, Shots.keep, Shots.none):
        account[way] = Account("film")
        config = small_clips(shots=way)
        clips[way] = list(clips_of(film(looks), config, len(looks), 64, account[way]))
    spans = [(c.start, len(c.ticks), c.shot) for c in clips[Shots.split]]
    assert spans == [(0, 17, 0), (20, 17, 1), (37, 13, 1), (53, 9, 2)]
    assert not any(c.cuts for c in clips[Shots.split])
    assert [(c.start, c.cuts) for c in clips[Shots.keep]] == [
        (0, []),
        (17, [3]),
        (34, []),
        (51, [2]),
    ]
    assert account[Shots.keep].shots == [0, 20, 53]
    assert [c.start for c in clips[Shots.none]] == [0, 17, 34, 51]
    assert account[Shots.none].shots == []
    for clip in clips[Shots.split]:
        assert np.array_equal(clip.ticks[0].look, looks[clip.start])


def test_every_frame_is_in_a_clip_or_dropped_for_a_reason():
    rng = np.random.default_rng(0)
    for most in (3, 64):
        planner = ClipPlanner(small_clips(clip_frames=[17, 9]), 700, most)
        end, used = 0, 0
        while end < 700:
            end = min(700, end + int(rng.integers(1, 60)))
            clips = planner.advance(end, shot_ends=True)
            used += sum(length for _, length in clips)
            assert all(length % 4 == 1 and 5 <= length <= 17 for _, length in clips)
            assert all(start + length <= end for start, length in clips)
        assert used + sum(planner.dropped.values()) == 700
        assert (planner.dropped["max_clips_per_source"] > 0) == (most == 3)


def test_too_many_clips_are_thinned_evenly_over_the_film():
    planner = ClipPlanner(small_clips(), 10_000, 10)
    starts = [start for start, _ in planner.advance(10_000, shot_ends=True)]
    assert len(starts) == 10
    assert max(abs(start - 1000 * i) for i, start in enumerate(starts)) < 17


def test_the_account_names_what_damage_lost():
    account = Account("film", num_frames=40, used=17, dropped=Counter(black=17))
    assert account.to_json()["dropped"] == {"black": 17, "before_damage": 6}


@pytest.mark.parametrize("threshold", [1.5, 6.0])
def test_the_threshold_decides_how_sharp_a_cut_must_be(threshold):
    a, b = scene(0, 20), scene(1, 20)
    soft = np.concatenate([a, (a[-1:] * 0.5 + b[:1] * 0.5).astype(np.uint8), b])  # over two frames
    finder = ShotFinder(threshold)
    cuts = [cut for frame in soft for cut in finder.push(frame)] + finder.finish()
    assert bool(cuts) == (threshold < 2)
