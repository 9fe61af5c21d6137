"""Every form of input, every sidecar, and the kinds of film that are not quite films."""

import io
import json
import tarfile
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from rich.console import Console

from data.config import small_clips
from data.dataset.shards import read_index, read_payload
from data.engine.drafts import Draft, build_draft, read_draft
from data.engine.parts import build_dataset
from data.engine.source import Notes
from data.ingest.ingest import ingest
from data.ingest.media_file import MediaFile
from data.ingest.sidecar import Told, read_sidecars
from data.media.h264 import encode_h264

KEEP_COPIES = {"duplicate_bits": -1, "repeat_bits": -1}  # of one pattern, sliding


def sliding(seed, num_frames=17, height=64, width=96):
    """A soft coloured pattern that moves a pixel a frame to the left."""
    rng = np.random.default_rng(seed)
    shape = (height // 8 + 1, (width + num_frames) // 8 + 1, 3)
    coarse = np.kron(rng.integers(0, 256, shape, np.uint8), np.ones((8, 8, 1), np.uint8))
    wide = cv2.GaussianBlur(coarse, (0, 0), 5)
    return np.stack([wide[:height, t : t + width] for t in range(num_frames)])


def film(seed, **shape):
    return encode_h264(sliding(seed, **shape), 25.0)


def foreign(path, seed, codec, pix_fmt, height=64, width=96, times=None, sound=False):
    """Write a film in another codec or pixel format, with frame times in 1/100 s if given."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.bit_rate = 4_000_000
        if times:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 100)
        audio = container.add_stream("aac", rate=48_000) if sound else None
        for index, image in enumerate(sliding(seed, height=height, width=width)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[index], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            silence.sample_rate = 48_000
            container.mux(audio.encode(silence))
            container.mux(audio.encode())


def run(source, out, **values):
    config = small_clips(input=str(source), output=str(out), **values)
    return ingest(config, Console(file=io.StringIO()))


def decode(root, info):
    with av.open(io.BytesIO(read_payload(root, "train", info))) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


class Text:
    """A file in memory."""

    def __init__(self, name, content=""):
        self.name, self.content = name, content.encode()
        self.nbytes = len(self.content)

    def read(self, most):
        return self.content[:most]


def test_sidecars_tell_captions_licences_and_sources():
    files = [
        Text("a/x.mp4"),
        Text("a/x.txt", "from\nthe text"),
        Text("a/x.json", json.dumps({"short_caption": "x", "licence": "CC0-1.0", "source": "set"})),
        Text("a/b/y.mp4"),
        Text("a/b/y.json", json.dumps({"caption": "dense"})),
        Text("a/licence.txt", "CC-BY-4.0\n"),
        Text("z.png"),
        Text("alone.json", "{}"),
        Text("bad.mp4"),
        Text("bad.json", json.dumps({"caption": 3})),
    ]
    refused = {}
    media, told = read_sidecars(files, 4096, refused.__setitem__)
    assert [m.name for m in media] == ["a/x.mp4", "a/b/y.mp4", "z.png", "alone.json", "bad.mp4"]
    assert told("a/x.mp4") == Told("from the text", "x", "CC0-1.0", "set")
    assert told("a/b/y.mp4") == Told("dense", "", "CC-BY-4.0", "")
    assert told("z.png") == Told()
    assert "the caption is not text" in refused.pop("bad.json").reason
    assert not refused


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder with two tars, loose films with sidecars, and films of many kinds."""
    folder = tmp_path_factory.mktemp("mixed")
    for name, seeds in (("one.tar", (1, 2)), ("two.tar", (3,))):
        with tarfile.open(folder / name, "w") as tar:
            for seed in seeds:
                for member, data in {
                    f"{seed}.mp4": film(seed),
                    f"{seed}.json": b'{"caption": "in a tar", "short_caption": "tar"}',
                    "licence.txt": name.encode(),
                }.items():
                    entry = tarfile.TarInfo(member)
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    (folder / "packed.tar.gz").write_bytes(b"\x1f\x8b")
    foreign(folder / "deep.mkv", 4, "ffv1", "yuv420p10le")
    foreign(folder / "odd.mkv", 5, "ffv1", "yuv444p", height=63, width=95)
    foreign(folder / "sound.mp4", 6, "mpeg4", "yuv420p", sound=True)
    times = [4 * i for i in range(8)] + [60 + 4 * i for i in range(9)]
    foreign(folder / "uneven.mkv", 7, "libx264", "yuv420p", times=times)
    (folder / "cut.mkv").write_bytes((folder / "deep.mkv").read_bytes()[:200])
    root = tmp_path_factory.mktemp("mixed-out") / "out"
    return run(folder, root), root, folder


def test_tars_in_a_folder_are_read_with_their_sidecars(mixed):
    manifest, root, _ = mixed
    infos = {i.source: i for i in read_index(root, "train")}
    inside = [infos[name] for name in ("one.tar/1.mp4", "one.tar/2.mp4", "two.tar/3.mp4")]
    assert {(i.caption, i.short_caption) for i in inside} == {("in a tar", "tar")}
    assert [i.licence for i in inside] == ["one.tar", "one.tar", "two.tar"]
    assert manifest["splits"]["train"]["licences"] == {"one.tar": 2, "two.tar": 1, "unknown": 5}
    rejects = {r["file"]: r for r in manifest["rejects"]}
    assert rejects.keys() == {"packed.tar.gz", "cut.mkv"}
    assert "Decompress" in rejects["packed.tar.gz"]["remedy"]


@pytest.mark.parametrize(
    ("name", "seed", "size"),
    [("deep.mkv", 4, (64, 96)), ("odd.mkv", 5, (64, 96)), ("sound.mp4", 6, (64, 96))],
)
def test_other_kinds_of_film_show_the_same_pictures(mixed, name, seed, size):
    _, root, _ = mixed
    info = next(i for i in read_index(root, "train") if i.source == name)
    frames = decode(root, info)
    assert frames.shape == (17, *size, 3)
    want = sliding(seed)[:, : frames.shape[1], : frames.shape[2]]
    assert np.abs(frames.astype(int) - want)[:, 4:-4, 4:-4].mean() < 5


def test_an_uneven_rate_is_filled_by_timestamps(mixed):
    """A pause of .32 s becomes seven repeats, so that the film keeps its length."""
    _, root, _ = mixed
    clips = [i for i in read_index(root, "train") if i.source == "uneven.mkv"]
    frames = np.concatenate([decode(root, i) for i in clips]).astype(int)
    assert clips[0].fps == pytest.approx(25)
    shown = [*range(8), *[7] * 7, *range(8, 17)][: len(frames)]
    assert len(frames) == 22  # 17 + 5 of 24
    assert np.abs(frames - sliding(7)[shown]).mean() < 5


def test_a_list_finds_the_sidecars_beside_its_films(mixed, tmp_path):
    _, _, folder = mixed
    (folder / "sound.json").write_text('{"caption": "beside", "licence": "CC0-1.0"}')
    (tmp_path / "list.txt").write_text(f"{folder / 'sound.mp4'}\n{folder / 'one.tar'}\n")
    run(tmp_path / "list.txt", tmp_path / "out")
    infos = read_index(tmp_path / "out", "train")
    assert [(i.caption, i.licence) for i in infos if "sound" in i.source] == [("beside", "CC0-1.0")]
    assert len(infos) == 3


def test_clips_before_damage_are_kept_and_said_to_be(tmp_path):
    """The film loses its last third; what came before is whole."""

    class Damaged(MediaFile):
        def samples(self, config, notes):
            from data.media.reject import Reject

            for number, sample in enumerate(super().samples(config, notes)):
                if number == 2:
                    raise Reject("decoding failed: cut off", "Get the file again.")
                yield sample

    path = tmp_path / "film.mp4"
    path.write_bytes(film(8, num_frames=51))
    source = Damaged("film.mp4", "train", path, nbytes=path.stat().st_size)
    draft = Draft(tmp_path, source, "film", small_clips())
    assert build_draft(draft) == 2
    notes, lines = read_draft(draft)
    assert [line["meta"]["original"]["start_frame"] for line in lines] == [0, 17]
    assert notes.rejects[0]["reason"] == "decoding failed: cut off"
    assert "kept the first 2 clips" in notes.warnings[0]
    assert isinstance(notes, Notes)


@pytest.mark.heavy
@pytest.mark.parametrize("place", [0.5, 0.7])
def test_flipped_bytes_cost_the_clips_from_there_on_and_every_frame_is_counted(tmp_path, place):
    path = tmp_path / "film.mp4"
    path.write_bytes(film(8, num_frames=85))
    run(path, tmp_path / "whole", remux=False, **KEEP_COPIES)
    whole = {i.original["start_frame"]: i.sha256 for i in read_index(tmp_path / "whole", "train")}
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + int(place * int.from_bytes(data[start - 8 : start - 4], "big"))
    data[middle : middle + 400] = bytes(255 - value for value in data[middle : middle + 400])
    path.write_bytes(data)
    manifest = run(path, tmp_path / "damaged", remux=False, **KEEP_COPIES)
    kept = {i.original["start_frame"]: i.sha256 for i in read_index(tmp_path / "damaged", "train")}
    assert 0 < len(kept) < len(whole)
    assert kept.items() <= whole.items()
    assert [r["reason"] for r in manifest["rejects"]] == ["holds damaged frames"]
    (account,) = manifest["films"]
    assert account["num_frames"] == account["used"] + sum(account["dropped"].values())
    assert account["used"] == 17 * len(kept)
    assert account["dropped"]["before_damage"] < 17 + 4


class Sticking(MediaFile):
    """A film whose decoder hangs in its third clip."""

    def samples(self, config, notes):
        for number, sample in enumerate(super().samples(config, notes)):
            if number == 2:
                time.sleep(60)
            yield sample


@pytest.mark.heavy
def test_a_film_over_its_time_keeps_the_clips_it_had(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(film(8, num_frames=85))
    source = Sticking("film.mp4", "train", path, nbytes=path.stat().st_size)
    config = small_clips(num_workers=1, timeout_seconds=8, **KEEP_COPIES)
    manifest = build_dataset(tmp_path / "out", [source], config, Notes())
    infos = read_index(tmp_path / "out", "train")
    assert [i.original["start_frame"] for i in infos] == [0, 17]
    assert len(decode(tmp_path / "out", infos[1])) == 17
    assert "timeout_seconds=8" in manifest["rejects"][0]["reason"]
    assert manifest["warnings"] == ["film.mp4: kept the first 2 clips"]
    (account,) = manifest["films"]
    assert (account["used"], account["dropped"]) == (34, {"not_read": 51})


@pytest.mark.heavy
def test_clips_know_their_shot_and_scene(tmp_path):
    one, two = sliding(1, 20), sliding(2, 24)
    path = tmp_path / "film.mp4"
    path.write_bytes(encode_h264(np.concatenate([one, two]), 25.0))
    manifest = run(path, tmp_path / "out")
    originals = [i.original for i in read_index(tmp_path / "out", "train")]
    assert [(o["start_frame"], o["shot"], o["scene"]) for o in originals] == [
        (0, 0, 0),
        (20, 1, 1),
        (37, 1, 1),
    ]
    assert manifest["films"][0]["shots"] == [0, 20]
    run(path, tmp_path / "kept", shots="keep")
    assert [i.shots for i in read_index(tmp_path / "kept", "train")] == [[], [3], []]
