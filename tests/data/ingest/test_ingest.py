"""Foreign files become clips, whole and native; what cannot be used is named with a reason."""

import hashlib
import io
import json
import multiprocessing
import os
import tarfile
import time
from itertools import pairwise

import av
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from data.command_line import parse
from data.config import IngestConfig, small_clips
from data.dataset.shards import read_index, read_manifest, read_payload
from data.dataset.tokens import tokens
from data.engine.children import ChildError, run_in_children
from data.ingest.ingest import ingest, main
from data.media.film import cut, read_ticks
from data.media.h264 import Scaler, encode_h264
from data.media.probe import constant_rate, fit_size, open_video, probe_video
from data.media.reject import Reject

CELL = (4, 16, 16)
KEEP_COPIES = {"duplicate_bits": -1, "repeat_bits": -1}  # most films here show the same


def picture(num_frames, height, width):
    """A left half that brightens and a right half that stays dark, so order and sides show."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[:, :, : width // 2] = (40 + 4 * np.arange(num_frames) % 200)[:, None, None, None]
    return frames


def write_video(path, num_frames=21, height=64, width=96, fps=25.0):
    path.write_bytes(encode_h264(picture(num_frames, height, width), fps))


def run(tmp_path, source, **values):
    values = {"input": str(source), "output": str(tmp_path / "out")} | KEEP_COPIES | values
    config = small_clips(**values)
    return ingest(config, Console(file=io.StringIO()))


def decode(root, info):
    with av.open(io.BytesIO(read_payload(root, "train", info))) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def turned(data, matrix):
    """Write a display matrix into the track header of an MP4."""
    at = data.index(b"tkhd") + 4 + 40
    values = b"".join(
        int(v * s).to_bytes(4, "big", signed=True)
        for v, s in zip(matrix, [65536, 65536, 1 << 30] * 3, strict=True)
    )
    return data[:at] + values + data[at + 36 :]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder with two good files among every kind of bad one, ingested once."""
    folder = tmp_path_factory.mktemp("hostile")
    write_video(folder / "good.mp4", num_frames=40)
    (folder / "good.txt").write_text("A half of the picture brightens")
    write_video(folder / "talky.mp4")
    (folder / "talky.txt").write_text("x" * 2_000_000)
    (folder / "broken.json").write_text("not json")
    write_video(folder / "broken.mp4")
    whole = (folder / "good.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").touch()
    (folder / "letter.mp4").write_text("Dear Sir")
    (folder / "playlist.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{folder}/good.mp4\n")
    write_video(folder / "short.mp4", num_frames=3)
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    with av.open(str(folder / "pixel.avi"), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width = stream.height = 1
        stream.pix_fmt = "bgr24"
        for _ in range(9):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((1, 1, 3), np.uint8))))
    (folder / "huge.png").write_bytes(huge_png())
    (folder / "link.mp4").symlink_to(folder / "good.mp4")
    Image.fromarray(picture(1, 50, 31)[0]).save(folder / "odd.png")
    with tarfile.open(folder / "some.tar", "w") as tar:
        for name in ("inside.mp4", "../escape.mp4", "/root.mp4"):
            member = tarfile.TarInfo(name)
            member.size = len(whole)
            tar.addfile(member, io.BytesIO(whole))
        link = tarfile.TarInfo("soft.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    out = tmp_path_factory.mktemp("hostile-out")
    return run(out, folder), out / "out"


def huge_png():
    """A PNG header that claims 30,000 x 30,000 pixels."""
    import struct
    import zlib

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0" * 99))


def test_every_bad_file_is_listed_with_reason_and_remedy(hostile):
    manifest, _ = hostile
    reasons = {entry["file"]: entry["reason"] for entry in manifest["rejects"]}
    for file, word in {
        "truncated.mp4": "",
        "empty.mp4": "empty",
        "letter.mp4": "opening failed",
        "playlist.mp4": "opening failed",
        "short.mp4": "too few frames: 3",
        "dot.png": "too small: 1x1",
        "pixel.avi": "too small: 1x1",
        "huge.png": "too large",
        "link.mp4": "link",
        "talky.txt": "caption of 2000000 bytes",
        "broken.json": "caption unreadable",
        "some.tar/../escape.mp4": "leaves the archive",
        "some.tar//root.mp4": "leaves the archive",
        "some.tar/soft.mp4": "link",
    }.items():
        assert word in reasons.pop(file)
    assert not reasons
    assert all(entry["remedy"] for entry in manifest["rejects"])


def test_nothing_else_is_lost(hostile):
    manifest, root = hostile
    infos = read_index(root, "train")
    assert {i.source for i in infos} == {
        "good.mp4",
        "talky.mp4",
        "broken.mp4",
        "odd.png",
        "some.tar/inside.mp4",
    }
    good = [i for i in infos if i.source == "good.mp4"]
    assert [i.num_frames for i in good] == [17, 17, 5]
    assert {i.caption for i in good} == {"A half of the picture brightens"}
    assert good[1].original["start_seconds"] == pytest.approx(17 / 25)
    odd = next(i for i in infos if i.media == "image")
    assert (odd.height, odd.width, odd.num_frames) == (50, 31, 1)
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(read_payload(root, "train", odd)))), picture(1, 50, 31)[0]
    )
    assert manifest["splits"]["train"]["clips"] == len(infos) - 1
    assert not (root / ".parts").exists()


def test_the_clip_is_the_film_at_its_place_and_size(hostile):
    _, root = hostile
    second = [i for i in read_index(root, "train") if i.source == "good.mp4"][1]
    frames = decode(root, second)
    want = picture(40, 64, 96)[17:34]
    assert frames.shape == want.shape
    assert np.abs(frames.astype(int) - want).mean() < 4


def test_stored_clips_are_normalised(hostile):
    _, root = hostile
    for info in read_index(root, "train"):
        if info.media != "video":
            continue
        payload = read_payload(root, "train", info)
        assert b"elst" not in payload
        with av.open(io.BytesIO(payload)) as container:
            stream = container.streams.video[0]
            packets = [p for p in container.demux(stream) if p.size]
            assert [p.pts for p in packets] == [p.dts for p in packets]  # no B-frames
            assert packets[0].pts == 0
            assert [p.is_keyframe for p in packets] == [True] + [False] * (len(packets) - 1)
            assert len({b.pts - a.pts for a, b in pairwise(packets)}) == 1
            assert len(packets) == info.num_frames


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((0, 1, 0, -1, 0, 0, 0, 0, 1), "top"), ((0, -1, 0, 1, 0, 0, 0, 0, 1), "bottom")],
)
def test_rotation_metadata_is_applied(tmp_path, matrix, corner):
    """Filmed with the phone upright: the bright left half shows on top, or below."""
    (tmp_path / "in").mkdir()
    data = turned(
        encode_h264(np.full((9, 64, 96, 3), 60, np.uint8) + picture(9, 64, 96), 25), matrix
    )
    (tmp_path / "in" / "phone.mp4").write_bytes(data)
    run(tmp_path, tmp_path / "in")
    (info,) = read_index(tmp_path / "out", "train")
    assert (info.height, info.width) == (96, 64)
    frame = decode(tmp_path / "out", info)[0].astype(int)
    assert (frame[:40].mean() > frame[56:].mean()) == (corner == "top")


def test_pixel_aspect_ratio_is_applied(tmp_path):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for image in picture(9, 64, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    run(tmp_path, path)
    (info,) = read_index(tmp_path / "out", "train")
    assert (info.height, info.width) == (64, 128)
    assert info.original["stored_width"] == 64


def test_a_variable_frame_rate_becomes_constant_by_timestamps():
    assert constant_rate([0.0, 0.04, 0.08, 0.12], 25.0) == (pytest.approx(25), (0, 1, 2, 3))
    fps, shown = constant_rate([0.0, 0.1, 0.2, 0.5, 0.6], 10.0)
    assert fps == pytest.approx(10)
    assert shown == (0, 1, 2, 2, 2, 3, 4)


def test_over_the_cap_the_largest_size_of_the_same_shape_is_kept():
    config = small_clips()
    for num_frames, height, width in [
        (17, 720, 1280),
        (17, 1080, 608),
        (5, 938, 1160),
        (1, 999, 777),
    ]:
        h, w = fit_size(num_frames, height, width, config)
        count = tokens(num_frames, h, w, CELL)
        assert 0.7 * config.token_cap < count <= config.token_cap
        assert w / h == pytest.approx(width / height, rel=0.02)
        assert num_frames == 1 or (h % 2 == 0 and w % 2 == 0)
    assert fit_size(17, 112, 192, config) == (112, 192)


def test_long_films_are_sampled_evenly_and_lengths_alternate():
    config = small_clips(clip_frames=[17, 9])
    assert cut(31, config, 9) == [(0, 17), (17, 9), (26, 5)]
    spans = cut(10_000, config, 5)
    gaps = np.diff([start for start, _ in spans])
    assert len(spans) == 5
    assert spans[0][0] == 0
    assert gaps.max() - gaps.min() <= 26
    with pytest.raises(Reject, match="too few frames: 4"):
        cut(4, config, 5)


def test_the_film_is_read_frame_by_frame_in_order():
    stream = io.BytesIO(encode_h264(picture(30, 32, 32), 25))
    facts = probe_video(stream, small_clips())
    assert facts.num_frames == 30
    stream.seek(0)
    with open_video(stream) as container:
        ticks = list(read_ticks(container, facts, small_clips(), Scaler()))
    levels = [int(tick.frame.to_ndarray(format="rgb24")[8:-8, 4].mean()) for tick in ticks]
    assert levels == pytest.approx([40 + 4 * i for i in range(30)], abs=4)


@pytest.mark.heavy
def test_a_finished_dataset_is_not_rebuilt_and_another_is_not_overwritten(tmp_path):
    write_video(tmp_path / "a.mp4")
    first = run(tmp_path, tmp_path / "a.mp4")
    (shard,) = (tmp_path / "out" / "train").glob("*.tar")
    before = shard.stat().st_mtime_ns
    assert run(tmp_path, tmp_path / "a.mp4") == first
    assert shard.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="overwrite=true"):
        run(tmp_path, tmp_path / "a.mp4", token_cap=100)
    again = run(tmp_path, tmp_path / "a.mp4", token_cap=100, overwrite=True)
    assert again["splits"]["train"]["tokens_largest"] <= 100


@pytest.mark.heavy
def test_an_interrupted_ingest_keeps_finished_parts(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        write_video(tmp_path / "in" / f"{name}.mp4")

    class Stop(Exception):
        pass

    from data.engine.parts import build_dataset
    from data.engine.source import Notes
    from data.ingest import ingest as module

    folders = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out")}
    config = small_clips(num_workers=1, **folders, **KEEP_COPIES)
    notes = Notes()
    sources = module.find_sources(config, notes)

    def stop_after_two(done, total, text):
        if text == "2 clips" or done > 0.5 * total:
            raise Stop

    with pytest.raises(Stop):
        build_dataset(tmp_path / "out", sources, config, notes, stop_after_two)
    parts = sorted((tmp_path / "out" / ".parts").glob("*.jsonl"))
    assert parts
    assert not (tmp_path / "out" / "manifest.json").exists()
    times = [p.stat().st_mtime_ns for p in parts]
    seen = []
    build_dataset(
        tmp_path / "out",
        sources,
        config,
        Notes(),
        lambda *_: seen or seen.append([p.stat().st_mtime_ns for p in parts]),
    )
    assert seen[0] == times
    assert {i.source for i in read_index(tmp_path / "out", "train")} == {"a.mp4", "b.mp4", "c.mp4"}


def test_by_source_holds_out_whole_sources(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(6):
        Image.fromarray(picture(1, 32, 32)[0]).save(tmp_path / "in" / f"{number}.png")
    run(tmp_path, tmp_path / "in", split="by_source", val_fraction=0.5)
    sides = [{i.source for i in read_index(tmp_path / "out", s)} for s in ("train", "val_real")]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_the_manifest_adds_up(hostile):
    manifest, root = hostile
    infos = read_index(root, "train")
    split = read_manifest(root)["splits"]["train"]
    assert split["tokens"] == sum(tokens(i.num_frames, i.height, i.width, CELL) for i in infos)
    assert split["bytes"] == sum(i.nbytes for i in infos)
    assert sum(s["samples"] for s in split["sources"].values()) == len(infos)
    assert sum(split["histograms"]["aspect_ratio"].values()) == len(infos)
    for name, about in manifest["shards"]["train"].items():
        content = (root / "train" / name).read_bytes()
        assert about == {"sha256": hashlib.sha256(content).hexdigest(), "nbytes": len(content)}
        assert name.startswith(f"shard-000000-{about['sha256'][:16]}")


@pytest.mark.heavy
def test_a_hanging_child_is_killed_and_the_others_go_on():
    outcomes = list(run_in_children(time.sleep, [0.0, 60.0, 0.1], 2, timeout_seconds=2.0))
    assert sorted(o.job for o in outcomes if not o.death) == [0.0, 0.1]
    (dead,) = [o for o in outcomes if o.death]
    assert dead.job == 60.0
    assert "timeout_seconds=2" in dead.death


def test_no_child_starts_without_a_job():
    before, seen = len(multiprocessing.active_children()), []
    jobs = run_in_children(
        time.sleep,
        [0.1],
        3,
        20,
        on_wait=lambda: seen.append(len(multiprocessing.active_children())),
    )
    assert [outcome.job for outcome in jobs] == [0.1]
    assert max(seen) == before + 1


def test_a_child_that_dies_is_reported_and_replaced():
    outcomes = list(run_in_children(os._exit, [7], 1, timeout_seconds=20))
    assert "exit code 7" in outcomes[0].death


def test_our_own_bugs_are_not_counted_as_bad_files():
    with pytest.raises(ChildError, match="ValueError: invalid literal"):
        list(run_in_children(int, ["bug"], 1, timeout_seconds=20))


def test_wrong_keys_and_values_say_what_is_allowed(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"tokens_cap=1: .*Allowed keys: input, output"):
        parse(IngestConfig, ["tokens_cap=1"])
    with pytest.raises(ValueError, match=r"max_frames=many"):
        parse(IngestConfig, ["max_frames=many"])
    with pytest.raises(ValueError, match=r"max_frames=16: .*1 \+ k \* 4"):
        run(tmp_path, tmp_path, max_frames=16)
    assert main(["input=/nowhere"]) == 2
    assert "input=/nowhere: does not exist" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "token_cap=65536" in capsys.readouterr().out


def test_a_list_file_names_what_is_missing(tmp_path):
    write_video(tmp_path / "a.mp4")
    (tmp_path / "list.txt").write_text("# my films\na.mp4\nlost.mp4\n")
    manifest = run(tmp_path, tmp_path / "list.txt")
    assert json.dumps(manifest["rejects"]).count("lost.mp4") == 1
