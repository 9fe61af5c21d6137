"""Pixels are right: clips show what a film or picture means, and what was done is said."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from data.config import Hdr, IngestConfig, Interlaced, Shots, Sound
from data.decode.decoders import PillowDecoder, PyAVDecoder
from data.engine.source import Notes
from data.ingest.media_file import MediaFile
from data.media.h264 import encode_h264
from data.media.hdr import nits_of_hlg, pq_of_nits, shown_of, under_curve
from data.media.reject import Reject
from tests.data.conftest import paint

KINDS = {"shots": Shots, "hdr": Hdr, "interlaced": Interlaced, "audio": Sound}
SOLID = [(250, 20, 30), (20, 200, 40), (30, 40, 240), (128, 128, 128)]


def ingested(path, **values):
    """Return the samples of one file and what was noted, cut in this process."""
    notes = Notes()
    file = MediaFile(path.name, "train", path, nbytes=path.stat().st_size)
    found = []
    values = {"shots": "none"} | values
    config = IngestConfig(**{k: KINDS[k](v) if k in KINDS else v for k, v in values.items()})
    try:
        for sample in file.samples(config, notes):
            found.append(sample)
    except Reject as error:
        notes.reject(path.name, error)
    return found, notes


def pixels(sample):
    decoder = PillowDecoder() if sample.extension == "png" else PyAVDecoder()
    return decoder.decode(sample.payload)


def solids(num_frames=9, height=32, width=48):
    """Frames of one colour each, in turn."""
    colours = [SOLID[index % len(SOLID)] for index in range(num_frames)]
    return [np.full((height, width, 3), colour, np.uint8) for colour in colours]


def film(path, images, codec, pix_fmt, fps=24, format=None, options=None, **context):
    """Write a film; ``context`` sets attributes of its encoder. Images are RGB of 8 or 16 bits."""
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for image in images:
            depth = {(3, 1): "rgb24", (3, 2): "rgb48le", (4, 1): "rgba"}
            form = depth[image.shape[2], image.itemsize]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format=form)))
        container.mux(stream.encode())


def near(shown, colour, by=6):
    assert np.abs(shown.reshape(-1, 3).astype(int) - np.array(colour)).mean(0).max() <= by


@pytest.mark.parametrize("form", ["WEBP", "PNG", "GIF", "AVIF"])
def test_pictures_in_turn_are_a_film_with_their_own_times(tmp_path, form):
    """Four frames of 100 ms, one of 300, four of 100: a film of ten frames a second, 1.1 s long."""
    images = [Image.fromarray(image) for image in solids()]
    lasts = [100, 100, 100, 100, 300, 100, 100, 100, 100]
    path = tmp_path / f"a.{form.lower()}"
    more = {"lossless": True} if form == "WEBP" else {}
    images[0].save(path, form, save_all=True, append_images=images[1:], duration=lasts, **more)
    (sample,), notes = ingested(path, max_frames=9)
    assert not notes.rejects
    assert (sample.meta["fps"], sample.meta["num_frames"]) == (10.0, 9)
    assert notes.films[0]["num_frames"] == 11
    order = [0, 1, 2, 3, 4, 4, 4, 5, 6]
    for shown, index in zip(pixels(sample), order, strict=True):
        near(shown, SOLID[index % len(SOLID)])


def test_the_last_picture_is_shown_as_long_as_it_says(tmp_path):
    images = [Image.fromarray(image) for image in solids(6)]
    path = tmp_path / "a.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[100] * 5 + [500])
    (sample,), notes = ingested(path, max_frames=9)
    assert notes.films[0]["num_frames"] == 10
    for shown in pixels(sample)[5:]:
        near(shown, SOLID[5 % len(SOLID)])


def test_pages_of_a_tiff_are_a_film_and_its_rate_is_said_to_be_a_guess(tmp_path):
    images = [Image.fromarray(image) for image in solids(5)]
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:])
    (sample,), _ = ingested(tmp_path / "a.tif")
    assert (sample.meta["num_frames"], sample.meta["fps"]) == (5, 25.0)
    assert "say no times" in sample.meta["original"]["rate"]
    small = images[1].resize((24, 16))  # a preview beside its picture
    images[0].save(tmp_path / "b.tif", save_all=True, append_images=[small] * 5)
    (still,), _ = ingested(tmp_path / "b.tif")
    assert (still.meta["media"], still.meta["height"]) == ("image", 32)


def test_moving_pictures_lie_over_white_where_they_are_transparent(tmp_path):
    images = [Image.new("RGBA", (48, 32), (255, 0, 0, 255 if n % 2 else 0)) for n in range(5)]
    path = tmp_path / "a.webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=40, lossless=True)
    (sample,), _ = ingested(path, max_black=1)
    assert sample.meta["original"]["alpha"] == "over white"
    shown = pixels(sample)
    near(shown[0], (255, 255, 255))
    near(shown[1], (255, 0, 0))


def test_a_moving_picture_in_a_shard_is_refused_where_it_would_lose_its_film(tmp_path):
    from data.decode.decoders import probe_picture

    images = [Image.fromarray(image) for image in solids(6)]
    buffer = io.BytesIO()
    images[0].save(buffer, "WEBP", save_all=True, append_images=images[1:], duration=40)
    with pytest.raises(ValueError, match="holds 6 pictures, a film"):
        probe_picture(buffer.getvalue())


@pytest.mark.parametrize(("name", "form"), [("a.avif", "AVIF"), ("a.jp2", "JPEG2000")])
def test_stills_of_newer_formats_are_read(tmp_path, name, form):
    Image.fromarray(paint(1, 32, 48)[0]).save(tmp_path / name, form, quality=95)
    (sample,), _ = ingested(tmp_path / name)
    want = np.asarray(Image.open(tmp_path / name).convert("RGB"))
    np.testing.assert_array_equal(pixels(sample)[0], want)


def test_heic_is_read_by_its_plugin_or_says_what_to_install(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    colour = Image.new("RGB", (64, 48), SOLID[0])
    colour.save(tmp_path / "a.heic", "HEIF", quality=95)
    (sample,), _ = ingested(tmp_path / "a.heic")
    near(pixels(sample), SOLID[0])
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    found, notes = ingested(tmp_path / "a.heic")
    assert not found
    assert "kinescale[heif]" in notes.rejects[0]["reason"]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "size"),
    [
        ("a.mxf", "mpeg2video", "yuv422p", (32, 48)),
        ("a.y4m", "wrapped_avframe", "yuv420p", (32, 48)),
        ("a.dv", "dvvideo", "yuv420p", (576, 720)),
        ("a.mov", "jpeg2000", "yuv444p", (32, 48)),
    ],
)
def test_containers_of_studios_are_read(tmp_path, name, codec, pix_fmt, size):
    fps = 25
    options = {"qscale": "2"} if codec != "wrapped_avframe" else {}
    film(tmp_path / name, solids(9, *size), codec, pix_fmt, fps, options=options)
    (sample,), notes = ingested(tmp_path / name, interlaced="keep", duplicate_bits=-1)
    assert not notes.rejects
    assert sample.meta["fps"] == 25.0
    for index, shown in enumerate(pixels(sample)):
        near(shown[2:-2, 2:-2], SOLID[index % len(SOLID)], by=12)


@pytest.mark.parametrize(
    ("height", "width", "matrix"),
    [(64, 96, "bt601"), (64, 1280, "bt709"), (720, 96, "bt709"), (576, 720, "bt601")],
)
def test_a_film_that_names_no_matrix_gets_one_by_its_size_here_and_at_loading(
    tmp_path, height, width, matrix
):
    """Levels of BT.709 (ITU-R BT.709 table 3) and BT.601 for pure green of limited range."""
    levels = {"bt601": (145, 54, 34), "bt709": (173, 42, 26)}[matrix]
    planes = [
        np.full((rows, columns), level, np.uint8)
        for level, rows, columns in zip(
            levels, (height, *[height // 2] * 2), (width, *[width // 2] * 2), strict=True
        )
    ]
    packed = np.concatenate([plane.ravel() for plane in planes]).reshape(height * 3 // 2, width)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    near(PyAVDecoder().decode(path.read_bytes()), (0, 255, 0), by=3)
    (sample,), _ = ingested(path)
    assert sample.meta["original"]["matrix"] == f"{matrix}, not said by the film"
    near(pixels(sample), (0, 255, 0), by=4)
    again = tmp_path / "again.mp4"
    again.write_bytes(sample.payload)
    (second,), _ = ingested(again)
    near(pixels(second), (0, 255, 0), by=5)


def hdr_film(path, codes, transfer):
    """A film of grey patches with these code values in [0, 1], lossless RGB of 16 bits as HDR."""
    image = np.zeros((32, 32 * len(codes), 3), np.uint16)
    for index, code in enumerate(codes):
        image[:, 32 * index : 32 * index + 32] = round(code * 65535)
    film(path, [image] * 5, "libx265", "yuv444p10le", color_trc=transfer, color_primaries=9,
         colorspace=9, options={"x265-params": "log-level=none:lossless=1:pools=1"})  # fmt: skip


@pytest.mark.parametrize(
    ("transfer", "name", "codes"),
    [  # 0, 26 and 203 nits (ITU-R BT.2408 tables 1 and 2), and the peak of 1,000
        (16, "smpte2084", (0.0, 0.38, 0.58, 0.7518)),
        (18, "arib-std-b67", (0.0, 0.38, 0.75, 1.0)),
    ],
)
def test_hdr_is_brought_to_standard_range_and_its_transfer_noted(tmp_path, transfer, name, codes):
    hdr_film(tmp_path / "a.mp4", codes, transfer)
    (sample,), _ = ingested(tmp_path / "a.mp4")
    assert sample.meta["original"]["transfer"] == name
    shown = pixels(sample)[2, 16, 16::32].astype(int)
    assert np.ptp(shown, axis=1).max() <= 2  # grey stays grey
    black, dark, white, peak = shown.mean(1)
    assert black <= 1
    assert abs(dark - 255 * (26 / 203) ** (1 / 2.4)) <= 6  # below the knee light is kept
    assert 215 <= white <= 232
    assert 253 <= peak <= 255
    found, notes = ingested(tmp_path / "a.mp4", hdr="refuse")
    assert not found
    assert notes.rejects[0]["reason"] == f"is HDR ({name})"


def test_the_curve_of_light_has_the_published_points():
    # SMPTE ST 2084: codes of 100, 203 and 1,000 nits. BT.2408: HLG's 75 % is 203 nits.
    np.testing.assert_allclose(pq_of_nits([100, 203, 1000]), [0.5081, 0.5807, 0.7518], atol=1e-4)
    grey = np.full(3, 0.75)
    assert abs(nits_of_hlg(grey).mean() - 203) < 1
    light = np.linspace(0, 2000, 500)
    curve = under_curve(light)
    assert (np.diff(curve) >= -1e-6).all()
    assert abs(curve.max() - 203) < 0.01
    np.testing.assert_allclose(curve[light < 85], light[light < 85], atol=1e-6)
    # BT.709's own red at 80 nits, said in BT.2020 (ITU-R BT.2087): it comes back as red alone.
    red = np.array([0.6274, 0.0691, 0.0164]) * 80
    shown = shown_of(pq_of_nits(red)[None], 16)[0]
    assert shown[0] > 0.6
    assert shown[1:].max() < 0.08


def test_interlaced_frames_become_whole_pictures_by_policy(tmp_path):
    """A bar moves four pixels a field: woven, its edge is a comb."""
    images = []
    for index in range(9):
        image = np.full((64, 96, 3), 16, np.uint8)
        for field in range(2):
            left = 8 * index + 4 * field
            image[field::2, left : left + 16] = 235
        images.append(image)
    flags = {"options": {"flags": "+ilme+ildct", "qscale": "1", "g": "1"}}
    film(tmp_path / "a.mpg", images, "mpeg2video", "yuv422p", 25, **flags)

    def comb(sample):
        rows = pixels(sample)[4].mean(-1)
        return np.abs(np.diff(rows, axis=0)).mean()

    (woven,), _ = ingested(tmp_path / "a.mpg", interlaced="keep")
    (whole,), notes = ingested(tmp_path / "a.mpg")
    assert notes.films[0]["num_frames"] == 9
    assert woven.meta["original"]["interlaced"] == "kept"
    assert whole.meta["original"]["interlaced"] == "deinterlaced"
    assert comb(whole) < 0.3 * comb(woven)
    found, notes = ingested(tmp_path / "a.mpg", interlaced="refuse")
    assert not found
    assert "is interlaced" in notes.rejects[0]["reason"]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.mov", "prores_ks", "yuva444p10le"), ("a.webm", "libvpx-vp9", "yuva420p"),
     ("a.mkv", "ffv1", "bgra")],
)  # fmt: skip
def test_a_transparent_film_lies_over_white(tmp_path, name, codec, pix_fmt):
    image = np.zeros((64, 96, 4), np.uint8)
    image[:, :48] = (255, 0, 0, 255)
    image[:, 48:, 0] = 255  # red, and seen through
    options = {"profile": "4444"} if codec == "prores_ks" else {}
    film(tmp_path / name, [image] * 5, codec, pix_fmt, options=options)
    (sample,), _ = ingested(tmp_path / name)
    shown = pixels(sample)[2]
    near(shown[8:-8, 8:40], (255, 0, 0), by=8)
    near(shown[8:-8, 56:88], (255, 255, 255), by=8)
    assert sample.meta["original"]["alpha"] == "over white"


@pytest.mark.parametrize("fps", [240, 480, 1000])
def test_fast_films_keep_their_rate(tmp_path, fps):
    film(tmp_path / "a.mp4", solids(9), "libx264", "yuv420p", fps)
    (sample,), _ = ingested(tmp_path / "a.mp4")
    assert (sample.meta["num_frames"], round(sample.meta["fps"])) == (9, fps)
    with av.open(io.BytesIO(sample.payload)) as container:
        times = [float(packet.pts * packet.time_base) for packet in container.demux(video=0)
                 if packet.size]  # fmt: skip
    np.testing.assert_allclose(np.diff(sorted(times)), 1 / fps, rtol=0.01)


def test_uneven_stamps_a_microsecond_apart_do_not_multiply_frames():
    from data.media.probe import constant_rate

    times = [0.0, 1e-6, 2e-6, 1.0, 1.000001, 1.000002, 1.9]
    fps, shown = constant_rate(times, 25.0)
    assert fps <= 1000
    assert len(shown) <= 1901


def test_frames_before_another_size_are_kept_and_the_change_is_said(tmp_path):
    with av.open(str(tmp_path / "one.ts"), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=24, options={"g": "12", "crf": "12"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for image in paint(24, 64, 96):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    film(tmp_path / "two.ts", list(paint(24, 96, 64)), "libx264", "yuv420p", format="mpegts")
    joined = (tmp_path / "one.ts").read_bytes() + (tmp_path / "two.ts").read_bytes()
    (tmp_path / "a.ts").write_bytes(joined)
    found, notes = ingested(tmp_path / "a.ts")
    assert [sample.meta["num_frames"] for sample in found] == [21]
    assert "changes its frame size midway" in notes.rejects[0]["reason"]
    assert notes.films[0]["num_frames"] == 24
    shown, want = pixels(found[0])[20], paint(24, 64, 96)[20]
    assert np.abs(shown.astype(int) - want).mean() < 8


@pytest.mark.parametrize(("height", "width"), [(97, 161), (40, 64), (31, 50)])
def test_how_much_wider_pixels_became_is_said_of_each_sample(tmp_path, height, width):
    path = tmp_path / "a.mkv"
    film(path, list(paint(5, height, width)), "ffv1", "bgr0")
    (sample,), _ = ingested(path)
    stored = sample.meta["width"] / sample.meta["height"]
    want = stored / Fraction(width, height) - 1
    assert sample.meta["original"].get("stretch", 0) == pytest.approx(float(want), abs=1e-6)
    assert ("stretch" in sample.meta["original"]) == (height % 2 == 1 or width % 2 == 1)


def test_our_own_large_clips_say_their_matrix_and_come_back_as_they_were(tmp_path):
    payload = encode_h264(np.stack(solids(5, 64, 1280)), 24.0)
    (tmp_path / "a.mp4").write_bytes(payload)
    (sample,), _ = ingested(tmp_path / "a.mp4")
    assert "matrix" not in sample.meta["original"]
    for index, shown in enumerate(pixels(sample)):
        near(shown, SOLID[index % len(SOLID)])
