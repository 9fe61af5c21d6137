"""Copies that were letterboxed, mirrored, cropped or begun later are found, and nothing else is."""

import io

import cv2
import numpy as np
import pytest
from rich.console import Console

from data.config import small_clips
from data.dataset.shards import read_index
from data.ingest.ingest import ingest
from data.media.copies import (
    LEAST_STILL,
    VIEWS,
    compared,
    copies,
    inside_borders,
    looks_from,
    looks_of,
    mirror_signs,
    projections,
    vectors_of,
)
from data.media.h264 import encode_h264

faiss = pytest.importorskip("faiss")
NUM = 10


def scene(seed, num_frames=33, height=72, width=112):
    """Soft shapes, some of which move: grey frames (F, H, W)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (height // 12 + 2, width // 12 + 2)).astype(np.float32)
    ground = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    frames = np.repeat(ground[None], num_frames, 0)
    for _ in range(3):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        dx, dy = rng.uniform(-2, 2, 2)
        shade, radius = float(rng.choice([0, 255])), int(rng.integers(8, 16))
        for t, frame in enumerate(frames):
            centre = (int(x + dx * t) % width, int(y + dy * t) % height)
            cv2.circle(frame, centre, radius, shade, -1)
    return np.clip(frames, 0, 255).astype(np.uint8)


def middle(clip, share):
    rows, columns = (round(side * (1 - share) / 2) for side in clip.shape[1:])
    return clip[:, rows : clip.shape[1] - rows, columns : clip.shape[2] - columns]


CHANGES = {
    "letterboxed": lambda clip: np.pad(clip, ((0, 0), (12, 12), (0, 0))),
    "mirrored": lambda clip: clip[:, :, ::-1],
    "cropped": lambda clip: middle(clip, 0.8),
    "shifted": lambda clip: clip[9:],
    "mirrored and cropped": lambda clip: middle(clip, 0.9)[:, :, ::-1],
}


def looks(clip):
    return looks_from(looks_of(clip, 24.0))


@pytest.fixture(scope="module")
def scenes():
    return [scene(seed) for seed in range(NUM)]


@pytest.mark.parametrize("name", CHANGES)
def test_each_changed_copy_is_found_beside_its_own_clip_alone(scenes, name):
    clips = [*scenes, *map(CHANGES[name], scenes)]
    found = copies([looks(clip) for clip in clips], [str(place) for place in range(2 * NUM)])
    others = {place: [copy.other for copy in some] for place, some in found.items()}
    assert others == {place: [(place + NUM) % (2 * NUM)] for place in range(2 * NUM)}
    if name == "mirrored":
        assert all(copy.mirrored for some in found.values() for copy in some)


def test_clips_of_one_source_are_left_to_the_fingerprint(scenes):
    clips = [looks(scenes[0]), looks(scenes[0][9:])]
    assert copies(clips, ["film", "film"]) == {}
    assert copies([], []) == {}


def test_one_ground_with_other_things_moving_is_no_copy():
    ground = scene(3)[:1]
    clips = []
    for row, way in ((20, 3), (40, -3)):
        frames = np.repeat(ground, 33, 0)
        for t, frame in enumerate(frames):
            left = (20 + way * t) % 90
            frame[row : row + 8, left : left + 8] = 250
        clips.append(looks(frames))
    still, moving, _, _ = compared(*map(vectors_of, clips))
    assert still >= LEAST_STILL  # the pictures alone would be copies
    assert moving < 0.5
    assert copies(clips, ["a", "b"]) == {}


def test_vectors_are_the_cosines_of_the_middle_and_a_mirror_changes_their_signs(scenes):
    clip = looks(scenes[1])
    vectors = vectors_of(clip)
    assert vectors.shape == (len(VIEWS), len(clip), projections().shape[-1])
    want = cv2.dct(clip[2].astype(np.float32))[:8, :8].ravel()[1:]
    np.testing.assert_allclose(vectors[0, 2], want, rtol=1e-3, atol=0.5)
    turned = vectors_of(np.ascontiguousarray(clip[:, :, ::-1]))
    np.testing.assert_allclose(turned, vectors * mirror_signs(), rtol=1e-3, atol=0.5)


def test_borders_are_black_and_a_dark_film_has_none(scenes):
    clip = np.pad(scenes[2], ((0, 0), (10, 14), (0, 6)))
    assert inside_borders(clip) == (10, 82, 0, 112)
    assert inside_borders(np.full((4, 40, 60), 5, np.uint8)) == (0, 40, 0, 60)


def test_many_clips_are_searched_by_an_index_that_is_trained(monkeypatch, scenes):
    monkeypatch.setattr("data.media.copies.FLAT_BELOW", 10)
    clips = [*scenes, CHANGES["mirrored"](scenes[4])]
    found = copies([looks(clip) for clip in clips], [str(place) for place in range(len(clips))])
    assert {place: [copy.other for copy in some] for place, some in found.items()} == {
        4: [NUM],
        NUM: [4],
    }


def test_ingest_leaves_a_mirrored_copy_out_and_says_of_what(tmp_path, monkeypatch):
    folder = tmp_path / "films"
    folder.mkdir()
    for name, clip in {"a": scene(1), "b": scene(1)[:, :, ::-1], "c": scene(2)}.items():
        frames = np.ascontiguousarray(np.stack([clip] * 3, -1))
        (folder / f"{name}.mp4").write_bytes(encode_h264(frames, 24.0))
    settings = {"input": str(folder), "max_frames": 33, "token_cap": 4096}

    def kept(name, **more):
        config = small_clips(**settings, output=str(tmp_path / name), **more)
        manifest = ingest(config, Console(file=io.StringIO()))
        return manifest, {info.source for info in read_index(tmp_path / name, "train")}

    assert kept("all")[1] == {"a.mp4", "b.mp4", "c.mp4"}
    manifest, sources = kept("few", find_copies=True)
    assert "c.mp4" in sources
    assert len(sources) == 2
    assert "mirrored" in manifest["rejects"][0]["reason"]
    assert manifest["frames"]["dropped"] == {"duplicate": 33}
    monkeypatch.setattr("data.media.copies.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"find_copies=true: needs faiss.*kinescale\[copies\]"):
        kept("none", find_copies=True)
