"""Pictures and films are shown the way up, in the depth and over the ground that they mean."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from data.config import IngestConfig
from data.decode.decoders import PillowDecoder, PyAVDecoder, av_frames, is_mirrored, probe_picture
from data.media.h264 import turned
from data.media.probe import probe_video, read_image
from tests.data.conftest import encode, paint
from tests.data.ingest.test_ingest import turned as with_matrix


def saved(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def shown(payload):
    """Return what the trainer sees of a picture; ingest must see the same."""
    (frame,) = PillowDecoder().decode(payload)
    picture, _ = read_image(io.BytesIO(payload), IngestConfig())
    np.testing.assert_array_equal(np.asarray(picture), frame)
    height = picture.height
    assert probe_picture(payload)["height"] == height
    return frame


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda image: image),
        (2, lambda image: image[:, ::-1]),
        (3, lambda image: image[::-1, ::-1]),
        (6, lambda image: np.rot90(image, -1)),
        (8, lambda image: np.rot90(image, 1)),
        (5, lambda image: image.transpose(1, 0, 2)),
    ],
)
def test_a_picture_is_turned_as_its_exif_says(orientation, upright):
    pixels = paint(1, 20, 30)[0]
    exif = Image.Exif()
    exif[0x112] = orientation
    frame = shown(saved(Image.fromarray(pixels), exif=exif))
    np.testing.assert_array_equal(frame, upright(pixels))


def test_sixteen_bits_of_grey_become_eight():
    ramp = np.tile(np.linspace(0, 65535, 160).astype(np.uint16), (20, 1))
    frame = shown(saved(Image.fromarray(ramp)))
    assert np.abs(frame[..., 0] - ramp / 257).max() <= 0.5
    assert (frame == frame[..., :1]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_over_white(mode):
    image = Image.new("RGBA", (20, 30), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 10, 30))
    options = {}
    if mode == "P":
        image = image.convert("RGB").quantize(4)
        options["transparency"] = image.getpixel((0, 0))
    frame = shown(saved(image if mode == "P" else image.convert(mode), **options))
    assert (frame[:, :10] == 255).all()
    assert (frame[:, 10:, 1] < 100).all()


def test_numbers_that_are_no_grey_levels_are_refused():
    values = Image.fromarray(np.linspace(-1, 1, 600).reshape(20, 30).astype(np.float32))
    with pytest.raises(ValueError, match="pixels of type F"):
        PillowDecoder().decode(saved(values, "TIFF"))


MATRICES = [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, -1, 0),
            (0, -1, 1, 0), (0, 1, 1, 0), (0, -1, -1, 0)]  # fmt: skip


def mapped(image, a, b, c, d):
    """Return an image whose pixel at (x, y) went to (a x + c y, b x + d y)."""
    rows, columns = np.indices(image.shape[:2])
    x, y = a * columns + c * rows, b * columns + d * rows
    x, y = x - x.min(), y - y.min()
    out = np.zeros((y.max() + 1, x.max() + 1, *image.shape[2:]), image.dtype)
    out[y, x] = image
    return out


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_film_is_shown_as_its_matrix_says_also_in_a_mirror(matrix):
    a, b, c, d = matrix
    upright = encode(paint(5, 32, 48))
    payload = with_matrix(upright, (a, b, 0, c, d, 0, 0, 0, 1))
    want = np.stack([mapped(image, *matrix) for image in PyAVDecoder().decode(upright)])
    np.testing.assert_array_equal(PyAVDecoder().decode(payload), want)
    facts = probe_video(io.BytesIO(payload), IngestConfig())
    assert facts.is_mirrored == (a * d - b * c < 0)
    assert facts.remuxable == (matrix == (1, 0, 0, 1))
    frame = next(iter(av_frames(payload)))
    assert is_mirrored(frame) == facts.is_mirrored
    whole = turned(frame.reformat(format="yuv420p"), facts.rotation, facts.is_mirrored)
    luma = av.VideoFrame.to_ndarray(frame)[: frame.height]
    np.testing.assert_array_equal(whole.to_ndarray()[: whole.height], mapped(luma, *matrix))
