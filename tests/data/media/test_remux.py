"""Clips that already are as they would be stored keep their very packets."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from rich.console import Console

from data.config import Shots, small_clips
from data.dataset.shards import read_index, read_manifest, read_payload
from data.ingest.ingest import ingest
from data.media.h264 import encode_h264


def moving(num_frames, height=64, width=96):
    y, x = np.mgrid[0:height, 0:width]
    t = np.arange(num_frames)[:, None, None]
    planes = [x * 2 + 3 * t, y * 3 - 2 * t, x + y + t]
    return np.stack([np.broadcast_to(p, (num_frames, height, width)) % 256 for p in planes], -1)


def write(path, num_frames, keyint, bframes=0, pix_fmt="yuv420p", **colours):
    with av.open(str(path), "w") as container:
        params = f"bframes={bframes}:keyint={keyint}:min-keyint={keyint}:scenecut=0:open-gop=0"
        stream = container.add_stream("libx264", rate=25, options={"x264-params": params})
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        for image in moving(num_frames).astype(np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def frames_of(data):
    with av.open(io.BytesIO(data)) as container:
        return np.stack([f.to_ndarray(format="yuv420p") for f in container.decode(video=0)])


def run(tmp_path, source, **values):
    config = small_clips(input=str(source), output=str(tmp_path / "out"), **values)
    ingest(config, Console(file=io.StringIO()))
    root = tmp_path / "out"
    infos = read_index(root, "train")
    copied = read_manifest(root)["frames"]["remuxed_clips"]
    return [read_payload(root, "train", info) for info in infos], infos, copied


def packets_of(data):
    with av.open(io.BytesIO(data)) as container:
        return [bytes(p) for p in container.demux(video=0) if p.size]


def test_a_conforming_film_is_cut_at_its_key_frames_without_encoding(tmp_path):
    path = tmp_path / "film.mp4"
    write(path, 3 * 17, keyint=17)
    payloads, infos, copied = run(tmp_path, path, shots=Shots.none)
    assert copied == len(payloads) == 3
    film = frames_of(path.read_bytes())
    for info, payload in zip(infos, payloads, strict=True):
        start = info.original["start_frame"]
        assert np.array_equal(frames_of(payload), film[start : start + 17])
    copies = [packet for payload in payloads for packet in packets_of(payload)]
    assert copies == packets_of(path.read_bytes())


def test_copied_clips_are_normalised_like_encoded_ones(tmp_path):
    path = tmp_path / "film.mkv"
    write(path, 34, keyint=17)
    payloads, _, copied = run(tmp_path, path)
    assert copied == 2
    for payload in payloads:
        assert b"elst" not in payload
        with av.open(io.BytesIO(payload)) as container:
            stream = container.streams.video[0]
            assert stream.average_rate == Fraction(25)
            packets = [p for p in container.demux(stream) if p.size]
            assert [p.pts for p in packets] == [p.dts for p in packets]
            assert packets[0].pts == 0
            assert [p.is_keyframe for p in packets] == [True] + [False] * 16


def test_our_own_clips_pass_through_bit_for_bit(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(encode_h264(moving(13).astype(np.uint8), 24.0))
    (payload,), _, copied = run(tmp_path, path)
    assert copied == 1
    assert packets_of(payload) == packets_of(path.read_bytes())


@pytest.mark.heavy
@pytest.mark.parametrize(
    "made",
    [
        {"keyint": 17, "bframes": 2},
        {"keyint": 10},
        {"keyint": 17, "pix_fmt": "yuv444p"},
        {"keyint": 17, "colorspace": 1},
        {"keyint": 17, "sample_aspect_ratio": 2},
    ],
    ids=["b-frames", "key frames inside", "full chroma", "another matrix", "wide pixels"],
)
def test_what_does_not_conform_is_encoded(tmp_path, made):
    path = tmp_path / "film.mp4"
    write(path, 17, **made)
    payloads, infos, copied = run(tmp_path, path)
    assert copied == 0
    assert len(payloads) == 1
    assert infos[0].num_frames == 17


@pytest.mark.heavy
def test_over_the_token_cap_or_when_told_so_clips_are_encoded(tmp_path):
    path = tmp_path / "film.mp4"
    write(path, 17, keyint=17)
    assert run(tmp_path, path, remux=False)[2] == 0
    assert run(tmp_path, path, token_cap=60, overwrite=True)[2] == 0
