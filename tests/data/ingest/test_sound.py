"""A film's sound is noted, and kept with its clip, cut at the sample, where the settings say so."""

import io

import av
import numpy as np
import pytest

from data.decode.decoders import PyAVDecoder
from tests.data.conftest import paint
from tests.data.ingest.test_pixels import ingested

RATE = 48_000


def ticking(path, num_frames=48, codec="flac", begins=0.0, fps=24, channels=2):
    """A film with a click of its own height at the start of each frame, from ``begins`` on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        sound = container.add_stream(codec, rate=RATE)
        sound.codec_context.layout = {1: "mono", 2: "stereo"}[channels]
        for image in paint(num_frames, 64, 96):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
        start = round(begins * RATE)
        packed = np.repeat(clicks(num_frames, fps)[start:, None], channels, 1).reshape(1, -1)
        form = "stereo" if channels == 2 else "mono"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(packed), "s16", form)
        frame.sample_rate, frame.pts = RATE, start
        container.mux(sound.encode(frame))
        container.mux(sound.encode())


def clicks(num_frames, fps):
    values = np.zeros(round(num_frames / fps * RATE), np.int16)
    for index in range(num_frames):
        at = round(index / fps * RATE)
        values[at : at + 200] = 400 * (index + 1)
    return values


def heard(payload):
    """Return the samples (N, C) of an MP4's sound, None where it has none."""
    with av.open(io.BytesIO(payload)) as container:
        if not container.streams.audio:
            return None
        assert next(iter(container.streams.audio)).codec_context.name == "flac"
        frames = list(container.decode(audio=0))
        assert float(frames[0].time) == 0
        channels = frames[0].layout.nb_channels
        return np.concatenate([f.to_ndarray().reshape(-1, channels) for f in frames])


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_each_clip_keeps_its_own_sound_to_the_sample(tmp_path, name):
    ticking(tmp_path / name)
    found, _ = ingested(tmp_path / name, audio="keep", max_frames=17)
    assert [sample.meta["original"]["start_frame"] for sample in found] == [0, 17, 34]
    want = clicks(48, 24)
    for sample in found:
        start = round(sample.meta["original"]["start_frame"] / 24 * RATE)
        length = round(sample.meta["duration_seconds"] * RATE)
        assert abs(length - sample.meta["num_frames"] / 24 * RATE) < 48
        got = heard(sample.payload)
        assert got.shape == (length, 2)
        shift = 48 if name == "a.mkv" else 1  # Matroska tells times in milliseconds
        inner = slice(start + shift, start + length - shift)
        away = min(
            np.abs(
                got[shift : length - shift, 0].astype(int) - want[inner.start + d : inner.stop + d]
            ).max()
            for d in range(-shift, shift + 1)
        )
        assert away == 0
        assert sample.meta["original"]["audio"] == {
            "codec": "flac", "channels": 2, "rate": RATE, "seconds": 2.0, "kept": "flac",
        }  # fmt: skip
        assert len(PyAVDecoder().decode(sample.payload)) == sample.meta["num_frames"]


def test_sound_is_only_noted_unless_asked(tmp_path):
    ticking(tmp_path / "a.mp4", codec="aac", channels=1)
    (sample,), _ = ingested(tmp_path / "a.mp4")
    said = sample.meta["original"]["audio"]
    assert (said["codec"], said["channels"], said["rate"]) == ("aac", 1, RATE)
    assert abs(said["seconds"] - 2) < 0.05
    assert heard(sample.payload) is None
    ticking(tmp_path / "b.mp4", num_frames=9, codec="aac")
    (kept,), _ = ingested(tmp_path / "b.mp4", audio="keep")
    (dropped,), _ = ingested(tmp_path / "b.mp4")
    np.testing.assert_array_equal(*map(PyAVDecoder().decode, (kept.payload, dropped.payload)))
    assert heard(kept.payload).shape == (18_000, 2)


def test_where_a_film_has_no_sound_yet_there_is_silence(tmp_path):
    ticking(tmp_path / "a.mkv", begins=1.0)
    found, _ = ingested(tmp_path / "a.mkv", audio="keep", max_frames=17)
    first, second, third = (heard(sample.payload) for sample in found)
    assert not first.any()
    begins = round((1.0 - 17 / 24) * RATE)
    assert not second[: begins - 60].any()
    assert second[begins + 60 :].any()
    assert third.any()


def test_a_copied_clip_keeps_its_pictures_bit_for_bit_beside_its_sound(tmp_path):
    ticking(tmp_path / "a.mp4", num_frames=9)
    found, notes = ingested(tmp_path / "a.mp4", audio="keep", max_frames=9)
    again = tmp_path / "again.mp4"
    again.write_bytes(found[0].payload)
    (copied,), notes = ingested(again, audio="keep", max_frames=9)
    assert notes.films[0]["remuxed_clips"] == 1
    np.testing.assert_array_equal(*map(PyAVDecoder().decode, (found[0].payload, copied.payload)))
    np.testing.assert_array_equal(heard(found[0].payload), heard(copied.payload))


def test_a_gap_in_the_sound_is_silence_of_its_length(tmp_path):
    """Two parts joined by time stamps in a container: 0.5 s of sound, half a second of none."""
    ticking(tmp_path / "whole.mkv")
    with (
        av.open(str(tmp_path / "whole.mkv")) as source,
        av.open(str(tmp_path / "a.mkv"), "w") as out,
    ):
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if not packet.size:
                continue
            if packet.stream.type == "audio" and 0.5 <= packet.pts * packet.time_base < 1.0:
                continue
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    found, notes = ingested(tmp_path / "a.mkv", audio="keep", max_frames=45)
    assert not notes.rejects
    (sample,) = found
    got, want = heard(sample.payload)[:, 0].astype(int), clicks(48, 24)
    quiet = slice(round(0.6 * RATE), round(0.95 * RATE))
    assert want[quiet].any()
    assert not got[quiet].any()
    late = slice(round(1.2 * RATE), round(1.6 * RATE))
    away = min(
        np.abs(got[late] - want[late.start + d : late.stop + d]).max() for d in range(-60, 61)
    )
    assert away == 0


def test_sound_of_a_lossy_codec_is_that_of_the_whole_film(tmp_path):
    ticking(tmp_path / "a.mkv", codec="aac", num_frames=72)
    with av.open(str(tmp_path / "a.mkv")) as container:
        resampler = av.AudioResampler("s16", "stereo", RATE)
        frames = list(container.decode(audio=0))
        first = round(frames[0].time * RATE)
        whole = np.concatenate(
            [p.to_ndarray().reshape(-1, 2) for f in frames for p in resampler.resample(f)]
        ).astype(int)
    found, _ = ingested(tmp_path / "a.mkv", audio="keep", max_frames=17)
    for sample in found[1:3]:
        got = heard(sample.payload).astype(int)
        start = round(sample.meta["original"]["start_seconds"] * RATE) - first
        away = min(
            np.abs(got - whole[start + d : start + d + len(got)]).max() for d in range(-60, 61)
        )
        assert away <= 1
