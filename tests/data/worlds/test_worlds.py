"""Rendered worlds: a seed decides a clip, and captions say only what the truth holds."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from data.config import world_shares
from data.dataset.tokens import tokens
from data.worlds.craft.film import film as film_craft
from data.worlds.doom.film import film as film_doom
from data.worlds.doom.film import map_names
from data.worlds.framing import film_framing
from data.worlds.physics import film as physics
from data.worlds.plan import VAL_SEED, deal_clips, plan_framing, plan_worlds
from data.worlds.rooms import film as rooms
from data.worlds.sources import CraftPart, DoomPart, FramingPart, PhysicsPart, RoomsPart
from data.worlds.truth import check_truth
from data.worlds.words import unproven

CRAFT_PLAN = [(9, 64, 96, 8.0), (5, 72, 112, 12.0)]
DOOM_PLAN = [(9, 2), (5, 3)]


def film_some():
    """Film a few clips of every world."""
    return [
        rooms.film(11, 0, 9, 64, 64, num_shots=2),
        rooms.film(3, 1, 5, 100, 180),
        physics.film(10, 0, 17, 64, 112),
        physics.film(3, 1, 13, 112, 64, num_shots=2),
        film_framing(5, 5, 48, 112),
        *film_craft(4, CRAFT_PLAN),
        *film_doom("freedoom2", "MAP11", 3, DOOM_PLAN, 120, 160),
    ]


def digests(clips):
    """Return a digest of all that a clip is, by key."""
    found = {}
    for clip in clips:
        said = json.dumps([clip.caption, clip.short_caption, clip.shots, clip.fps, clip.truth])
        found[clip.key] = hashlib.sha256(clip.frames.tobytes() + said.encode()).hexdigest()
    return found


@pytest.fixture(scope="module")
def clips():
    rooms.film(5, 0, 2, 80, 48)  # what was filmed before must not matter
    return film_some()


@pytest.mark.heavy
def test_another_process_films_the_same_bytes(clips):
    code = (
        "import json; from tests.data.worlds.test_worlds import digests, film_some; "
        "print(json.dumps(digests(film_some())))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    here = digests(clips)
    assert json.loads(done.stdout.splitlines()[-1]) == here
    assert len(here) == len(clips) == 9


@pytest.mark.heavy
def test_every_world_gives_the_size_asked_for_and_moves(clips):
    sizes = {clip.frames.shape[1:3] for clip in clips}
    assert sizes >= {(64, 64), (100, 180), (112, 64), (48, 112), (72, 112), (120, 160)}
    for clip in clips:
        assert clip.frames.dtype == np.uint8
        assert clip.frames.std() > 10
        assert (clip.frames[0] != clip.frames[-1]).any() or "framing" in clip.key


@pytest.mark.heavy
def test_every_truth_keeps_the_schema(clips):
    assert {clip.truth["world"] for clip in clips} == {
        "rooms",
        "physics",
        "framing",
        "craft",
        "doom",
    }
    for clip in clips:
        check_truth(json.loads(json.dumps(clip.truth)))
        assert len(clip.truth["camera"]["poses"]) == len(clip.frames)
        assert [shot["start"] for shot in clip.truth["shots"][1:]] == clip.shots


def test_captions_claim_nothing_that_the_truth_does_not_hold(clips):
    more = [rooms.film(seed, 0, 5, 64, 96) for seed in range(20, 32)]
    more += [physics.film(seed, 0, 13, 64, 96) for seed in range(20, 32)]
    for clip in [*clips, *more]:
        attributes = clip.truth["attributes"]
        assert unproven(clip.caption, attributes) == [], clip.caption
        assert unproven(clip.short_caption, attributes) == [], clip.short_caption
        assert 20 <= len(clip.caption.split()) <= 80
        assert 4 <= len(clip.short_caption.split()) <= 12


def test_a_false_claim_in_a_caption_is_found():
    attributes = {"objects": ["large red ball"], "actions": ["rolls to the left"], "events": []}
    assert unproven("A large red ball rolls to the left.", attributes) == []
    assert unproven("A large blue ball rolls to the right.", attributes) == [
        *("large", "blue", "ball", "rolls", "right")
    ]


def test_captions_of_one_scene_differ_in_their_sentences():
    openings = [rooms.film(seed, 0, 1, 32, 32).caption.split()[:3] for seed in range(12)]
    assert len(set(map(tuple, openings))) > 4


def test_takes_of_a_seed_are_one_source_and_differ():
    for film in (rooms.film, physics.film):
        first, other = film(3, 0, 5, 64, 96), film(3, 1, 5, 64, 96)
        assert first.source == other.source
        assert first.key != other.key
        assert not np.array_equal(first.frames, other.frames)


def test_walk_captions_follow_the_measured_path(clips):
    for clip in (clip for clip in clips if clip.truth["world"] == "doom"):
        poses = np.array(clip.truth["camera"]["poses"])
        moved = np.hypot(*(poses[-1] - poses[0])[:2])
        turns = "turn" in clip.caption
        assert turns or moved > 1
        if "moves" in clip.caption or "steps" in clip.caption:
            assert moved > 1


def test_walks_leave_no_files_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(film_doom("freedoom1", "E1M2", 1, [(2, 2)], 120, 160))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("film", "rule"),
    [
        (lambda: next(film_doom("freedoom2", "MAP01", 0, [(5, 2)], 99, 99)), r"size=99x99.*120x16"),
        (lambda: rooms.film(0, 0, 1, 8, 8), "size=1x8x8"),
        (lambda: physics.film(0, 0, 0, 64, 64), "size=0x64x64"),
        (lambda: next(film_craft(0, [(5, 8, 64, 8.0)])), "size=5x8x64"),
        (lambda: rooms.film(0, 0, 9, 64, 64, num_shots=3), "num_shots=3: .* at most 2"),
        (lambda: film_framing(0, 5, 16, 16), "size=16x16: a side under 32"),
    ],
)
def test_sizes_and_shots_that_a_world_lacks_are_refused(film, rule):
    with pytest.raises(ValueError, match=rule):
        film()


def sources_of(part):
    """Return the sources that a part films, and its largest clip."""
    if isinstance(part, DoomPart):
        return {f"{part.wad} {part.map_name}"}
    if isinstance(part, CraftPart):
        return {f"craft {part.world_seed}"}
    if isinstance(part, FramingPart):
        return {f"framing {part.first_seed + n}" for n in range(part.num_clips)}
    last = part.first_seed + (part.num_clips - 1) // part.takes
    return {f"{type(part).__name__} {n}" for n in range(part.first_seed, last + 1)}


@pytest.mark.parametrize(
    "parts", [plan_worlds(2, world_shares(), 3000, 256), plan_framing(2, 3000, 128)]
)
def test_no_source_stands_in_two_splits(parts):
    found: dict[str, list[str]] = {"train": [], "val_worlds": []}
    for part in parts:
        found[part.split] += sources_of(part)
    everything = found["train"] + found["val_worlds"]
    walks = [name for name in everything if "freedoom" in name]  # a map has two frame sizes
    assert not set(found["train"]) & set(found["val_worlds"])
    assert len(everything) - len(walks) == len(set(everything) - set(walks))
    assert len({part.name for part in parts}) == len(parts)


def test_the_plan_films_as_many_clips_as_asked_for_in_the_shares_asked_for():
    parts = plan_worlds(0, world_shares(), 3000, 256)
    counts = {"train": 0, "val_worlds": 0}
    by_kind = dict.fromkeys((RoomsPart, PhysicsPart, CraftPart, DoomPart), 0)
    for part in parts:
        counts[part.split] += part.num_clips
        by_kind[type(part)] += part.num_clips * (part.split == "train")
    assert counts == {"train": 3000, "val_worlds": 256}
    assert list(by_kind.values()) == [1050, 900, 450, 600]
    assert len(map_names()) == 68
    assert tokens(17, 120, 160, (4, 16, 16)) <= 512


def test_shares_need_not_sum_to_one_and_other_seeds_share_nothing():
    assert deal_clips({"rooms": 3, "physics": 1, "doom": 0}, 10) == {"rooms": 8, "physics": 2}
    one, two = (plan_worlds(seed, {"rooms": 1.0}, 100, 10) for seed in (0, 1))
    assert not set().union(*map(sources_of, one)) & set().union(*map(sources_of, two))


@pytest.mark.parametrize(
    ("shares", "counts", "rule"),
    [
        ({"room": 1.0}, (10, 10), "worlds.room=1.0: is no world. Use rooms, physics, craft, doom"),
        ({"rooms": 0.0}, (10, 10), "all shares are 0"),
        ({"rooms": 1.0}, (VAL_SEED, 10), f"num_train_clips={VAL_SEED}: must be under"),
    ],
)
def test_plans_that_make_no_sense_are_refused(shares, counts, rule):
    with pytest.raises(ValueError, match=rule):
        plan_worlds(0, shares, *counts)
