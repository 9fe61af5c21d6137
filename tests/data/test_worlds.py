"""Rendered worlds: the same seed gives the same clip, and the caption is what the seed decided."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from data.config import DemoConfig
from data.pack import tokens
from data.worlds import rooms, scenery
from data.worlds.doom import film as film_doom
from data.worlds.doom import map_names
from data.worlds.plan import DoomPart, RoomsPart, plan_worlds


@pytest.fixture(scope="module")
def walk():
    plan = [(9, 2), (5, 3), (5, 4)]
    return [list(film_doom("freedoom2", "MAP11", 3, plan, 120, 160)) for _ in range(2)]


@pytest.mark.parametrize(("height", "width"), [(112, 192), (192, 112), (100, 180)])
def test_a_room_clip_has_the_size_asked_for_and_moves(height, width):
    clip = rooms.film(7, 1, 5, height, width)
    assert clip.frames.shape == (5, height, width, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.frames.std() > 10
    assert 8 <= len(clip.caption.split()) <= 40


def test_rooms_are_decided_by_seed_and_take():
    first, again = rooms.film(3, 0, 5, 96, 160), rooms.film(3, 0, 5, 96, 160)
    np.testing.assert_array_equal(first.frames, again.frames)
    assert first.caption == again.caption
    other_take = rooms.film(3, 1, 5, 96, 160)
    assert other_take.source == first.source
    assert other_take.key != first.key
    assert not np.array_equal(first.frames, other_take.frames)


def test_rooms_do_not_depend_on_the_process_or_on_what_was_filmed_before():
    code = (
        "import hashlib; from data.worlds.rooms import film; "
        "print(hashlib.sha256(film(11, 0, 3, 64, 64).frames.tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms.film(5, 0, 2, 80, 48)
    here = hashlib.sha256(rooms.film(11, 0, 3, 64, 64).frames.tobytes()).hexdigest()
    assert done.stdout.strip() == here


def test_a_room_caption_names_objects_that_are_really_drawn():
    """A seen object's colour fills pixels; take it away and only its pixels change."""
    for seed in range(4):
        room = scenery.design_room(seed)
        clip = rooms.film(seed, 0, 1, 128, 128)
        scene = rooms.Scene(seed)
        path = scenery.design_path(seed, 0)
        for thing in room.things:
            if thing.words() not in clip.caption.lower():
                continue
            for part in scene.things[thing]:
                part.hide()
            without, _ = rooms.studio().render(scene, path, 1, 128, 128, 12.0)
            for part in scene.things[thing]:
                part.show()
            changed = (without[0] != clip.frames[0]).any(-1).mean()
            assert changed > 0.001, (seed, thing)


def test_frames_stand_upright_and_in_red_green_blue():
    room = scenery.design_room(0)
    clip = rooms.film(0, 0, 1, 96, 96)
    sky = np.array(scenery.SKIES[room.sky]) * 255
    assert np.abs(clip.frames[0, 0].mean(0) - sky).max() < 60 or room.height > 4


def test_camera_to_the_right_moves_the_picture_to_the_left():
    room = rooms.Scene(2)
    path = scenery.CameraPath("pan", 1, 0.3, 0.4, 5.5, 2.0)
    frames, _ = rooms.studio().render(room, path, 2, 96, 96, 1e9)
    rows = frames.astype(np.float64).mean((1, 3))
    rows -= rows.mean(1, keepdims=True)
    shifts = range(-40, 41)
    match = [float((rows[0] * np.roll(rows[1], s)).mean()) for s in shifts]
    assert shifts[int(np.argmax(match))] > 0


def test_walks_are_decided_by_map_and_seed(walk):
    first, again = walk
    assert len(first) == len(again) == 3
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.frames, b.frames)
        assert (a.caption, a.key) == (b.caption, b.key)
    assert [len(clip.frames) for clip in first] == [9, 5, 5]


def test_walk_captions_follow_the_measured_path(walk):
    for clip in walk[0]:
        poses = [[*p] for p in clip.truth["path"]]
        moved = np.hypot(poses[-1][0] - poses[0][0], poses[-1][1] - poses[0][1])
        words = clip.caption
        assert 8 <= len(words.split()) <= 40
        assert "MAP11" in words
        if "moving" not in words and "sidestepping" not in words:
            assert "turning" in words
        else:
            assert moved > 1


def test_walks_leave_no_files_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(film_doom("freedoom1", "E1M2", 1, [(2, 2)], 120, 160))
    assert os.listdir(tmp_path) == []


def test_a_size_that_a_world_lacks_is_refused():
    with pytest.raises(ValueError, match=r"size=99x99: .* 120x160"):
        next(film_doom("freedoom2", "MAP01", 0, [(5, 2)], 99, 99))
    with pytest.raises(ValueError, match=r"size=1x8x8"):
        rooms.film(0, 0, 1, 8, 8)


def test_no_world_stands_in_two_splits_and_every_clip_fits_the_cap():
    config = DemoConfig()
    parts = plan_worlds(config, config.num_train_clips, config.num_val_clips)
    worlds: dict[str, set[str]] = {"train": set(), "val_worlds": set()}
    counts = {"train": 0, "val_worlds": 0}
    for part in parts:
        counts[part.split] += part.num_clips
        if isinstance(part, RoomsPart):
            last = part.first_seed + (part.num_clips - 1) // part.takes
            worlds[part.split] |= {f"room {n}" for n in range(part.first_seed, last + 1)}
        else:
            assert isinstance(part, DoomPart)
            longest = 17 if part.height == 120 else 9
            assert tokens(longest, part.height, part.width, (4, 16, 16)) <= 512
            worlds[part.split].add(f"{part.wad} {part.map_name}")
    assert counts == {"train": config.num_train_clips, "val_worlds": config.num_val_clips}
    assert not worlds["train"] & worlds["val_worlds"]
    assert len({part.name for part in parts}) == len(parts)
    assert len(map_names()) == 68
