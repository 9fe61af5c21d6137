"""Each filter measures what it says, near-duplicates are found, and nothing goes without a word."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from data.config import small_clips
from data.dataset.shards import read_index
from data.engine.duplicates import Candidate, distance, near_duplicates
from data.ingest.ingest import ingest, main
from data.media.filters import black, changes, check_scores, clip_scores, motion, static, text
from data.media.fingerprint import fingerprint
from data.media.h264 import encode_h264
from data.media.reject import Reject


def texture(seed, height=72, width=128, cell=8):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 226, (height // cell + 1, width // cell + 3), np.uint8)
    return np.kron(coarse, np.ones((cell, cell), np.uint8))


def sliding(seed, num_frames=17, speed=2):
    wide = texture(seed, width=128 + num_frames * speed)
    return np.stack([wide[:72, speed * t : speed * t + 128] for t in range(num_frames)])


def written(lines, size=22, height=360, width=640):
    picture = Image.new("L", (width, height), 240)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    for line in range(lines):
        draw.text((20, 10 + line * 30), "the quick brown fox jumps over the dog", 10, font)
    return np.asarray(picture)


def test_motion_is_the_mean_change_from_frame_to_frame():
    frames = np.zeros((5, 40, 40), np.uint8) + (10 * np.arange(5, dtype=np.uint8))[:, None, None]
    assert motion(changes(frames)) == pytest.approx(10)
    assert static(changes(frames)) == 0
    frozen = np.repeat(frames[:1], 5, 0)
    assert motion(changes(frozen)) == 0
    assert static(changes(frozen)) == 1


def test_black_is_the_share_of_dark_pixels():
    frames = np.full((3, 40, 40), 200, np.uint8)
    frames[:, :10] = 3
    assert black(frames) == pytest.approx(0.25)


def test_pages_of_text_score_over_pictures():
    assert text(written(10)) > 0.1
    assert text(written(4)) > 0.03
    y, x = np.mgrid[0:360, 0:640]
    for picture in (
        np.full((360, 640), 128),
        (x + y) % 256,
        128 + 100 * np.sin(x / 9) * np.sin(y / 7),
    ):
        assert text(picture.astype(np.uint8)) < 0.02


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("min_seconds", 1.0, "seconds"),
        ("min_motion", 100.0, "motion"),
        ("max_static", 0.0, "static"),
        ("max_black", 0.0, "black"),
        ("max_text", 0.0, "text"),
    ],
)
def test_each_threshold_rejects_with_score_and_remedy(key, value, name):
    frames = np.repeat(sliding(0)[:9], 2, 0)[:17]
    frames[:, :20] = 0
    scores = clip_scores(frames, written(4), 17 / 25)
    check_scores(scores, small_clips())
    with pytest.raises(Reject) as caught:
        check_scores(scores, small_clips(**{key: value}))
    said = caught.value.to_json()
    assert (said["filter"], said["threshold"]) == (name, value)
    assert said["score"] == scores[name]
    assert key in said["reason"]
    assert key in said["remedy"]


def noisy(frames, seed=0):
    noise = np.random.default_rng(seed).normal(0, 3, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def test_copies_are_near_and_other_clips_far():
    values = [int(fingerprint(sliding(seed)), 16) for seed in range(12)]
    copies = [int(fingerprint(noisy(sliding(seed)[:, ::2, ::2], seed)), 16) for seed in range(12)]
    same = [distance(a, b) for a, b in zip(values, copies, strict=True)]
    other = [distance(values[i], values[j]) for i in range(12) for j in range(i)]
    assert max(same) < 10 < min(other)


def test_a_fixed_camera_is_no_duplicate_of_itself():
    """The same background: only what moves in front of it tells two clips apart."""
    ground = texture(0)[:72, :128]
    clips = []
    for row in (8, 48):
        frames = np.repeat(ground[None], 17, 0)
        for t in range(17):
            frames[t, row : row + 16, 5 * t : 5 * t + 24] = 255
        clips.append(int(fingerprint(frames), 16))
    assert distance(*clips) > 8


def candidate(key, print_, source="s", split="train", size=1):
    return Candidate((split, key), source, print_, (split == "train", -size, key))


def test_near_duplicates_do_not_depend_on_the_order_and_keep_what_ranks_first():
    a, b = fingerprint(sliding(0)), fingerprint(sliding(1))
    clips = [
        candidate("small", a, "copy"),
        candidate("large", a, "film", size=9),
        candidate("held", a, "film2", "val_real"),
        candidate("other", b, "film3"),
    ]
    rng = np.random.default_rng(0)
    for _ in range(5):
        rng.shuffle(clips)
        left_out, nearest = near_duplicates(clips, 8, 2)
        assert left_out == {("train", "small"), ("train", "large")}
        assert nearest["train", "large"].id == ("val_real", "held")
    assert near_duplicates(clips, -1, -1)[0] == set()


def test_within_a_source_only_closer_clips_are_duplicates():
    a = fingerprint(sliding(0))
    near = f"{int(a, 16) ^ (2**30 - 1):096x}"  # 30 bits of 384: 5 of 64
    both = [candidate("a", a, "x", size=2), candidate("b", near, "x")]
    assert near_duplicates(both, 8, 2)[0] == set()
    both[1] = candidate("b", near, "y")
    assert near_duplicates(both, 8, 2)[0] == {("train", "b")}


@pytest.fixture(scope="module")
def filtered(tmp_path_factory):
    """A folder with a frozen, a black, a repeated and two good films, ingested."""
    folder = tmp_path_factory.mktemp("films")

    def write(name, greys):
        (folder / f"{name}.mp4").write_bytes(encode_h264(np.stack([greys] * 3, -1), 25.0))

    write("good", sliding(1, 40))
    write("again", noisy(sliding(1, 40)))
    write("frozen", np.repeat(sliding(2)[:1], 17, 0))
    write("dark", np.full((17, 72, 128), 2, np.uint8))
    write("third", sliding(3))
    out = tmp_path_factory.mktemp("filtered") / "out"
    config = small_clips(input=str(folder), output=str(out), max_static=0.9)
    return ingest(config, Console(file=io.StringIO())), out


def test_filtered_clips_are_listed_with_their_scores(filtered):
    manifest, root = filtered
    infos = read_index(root, "train")
    assert len({i.source for i in infos} & {"good.mp4", "again.mp4"}) == 1
    assert {i.source for i in infos} >= {"third.mp4"}
    assert sorted(r["filter"] for r in manifest["rejects"]) == ["duplicate"] * 3 + ["static"] * 2
    assert all({"motion", "static", "black", "text"} <= i.scores.keys() for i in infos)
    table = manifest["filters"]
    assert table["static"]["samples_left_out"] == 2
    assert sum(table["static"]["left_out"]) == 2
    assert sum(table["motion"]["kept"]) == len(infos)
    assert table["static"]["thresholds"] == {"max_static": 0.9}


def test_the_frames_of_all_films_are_accounted_for(filtered):
    manifest, root = filtered
    frames = manifest["frames"]
    assert frames["read"] == 2 * 40 + 3 * 17
    assert frames["used"] == sum(i.num_frames for i in read_index(root, "train"))
    assert frames["used"] + sum(frames["dropped"].values()) == frames["read"]
    assert {"end_of_shot", "static", "duplicate"} == frames["dropped"].keys()
    for film in manifest["films"]:
        assert film["used"] + sum(film["dropped"].values()) == film["num_frames"]


def test_thresholds_out_of_range_say_what_to_use(capsys):
    assert main(["input=/tmp", "max_text=3"]) == 2
    assert "max_text=3: must be at most 1. Use 1." in capsys.readouterr().err
    assert main(["input=/tmp", "shots=sometimes"]) == 2
    assert "shots=sometimes" in capsys.readouterr().err
