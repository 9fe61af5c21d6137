"""Decoders agree, damaged files end in a named error, and a stuck child does not stop the line."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data.decode import decode
from data.decoder_pool import DecodeError, DecoderPool
from tests.data.conftest import encode, info_of, paint, png

SHAPE = (9, 48, 64)


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(1, 20.0) as made:
        yield made


@pytest.fixture(scope="module")
def clip():
    return encode(paint(*SHAPE))


def test_decord_reads_h264_and_agrees_with_pyav(pool, clip):
    info = info_of("a", "video", SHAPE)
    decoded = pool.decode_many([(info, clip)])[0]
    assert decoded.decoder == "decord"
    assert decoded.frames.shape == (*SHAPE, 3)
    assert decoded.frames.dtype == np.uint8
    np.testing.assert_array_equal(decoded.frames, decode(clip, "video", "pyav"))
    assert np.abs(decoded.frames.astype(int) - paint(*SHAPE)).mean() < 30


def test_av1_falls_to_pyav_and_says_so(pool):
    try:
        payload = encode(paint(*SHAPE), "libsvtav1")
    except (ValueError, OSError) as error:
        pytest.skip(f"this build of PyAV cannot encode AV1: {error}")
    decoded = pool.decode_many([(info_of("av1", "video", SHAPE), payload)])[0]
    assert decoded.decoder == "pyav"
    assert "decord" in decoded.reasons[0]
    assert decoded.frames.shape == (*SHAPE, 3)


def test_a_clip_too_narrow_for_decord_is_read_by_pyav(pool):
    shape = (5, 64, 48)
    decoded = pool.decode_many([(info_of("thin", "video", shape), encode(paint(*shape)))])[0]
    assert decoded.decoder == "pyav"
    assert "The size must exactly match" in decoded.reasons[0]


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (50, 66), (64, 64), (120, 426)])
def test_both_decoders_give_equal_pixels_at_odd_sizes(pool, size):
    payload = encode(paint(5, *size))
    decoded = pool.decode_many([(info_of("odd", "video", (5, *size)), payload)])[0]
    assert decoded.decoder == "decord"
    np.testing.assert_array_equal(decoded.frames, decode(payload, "video", "pyav"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda clip: clip[: len(clip) // 2],
        lambda clip: clip[:40],
        lambda clip: b"",
        lambda clip: random.Random(0).randbytes(5000),
        lambda clip: b"#!/bin/sh\necho this is not a video\n",
    ],
    ids=["half", "head", "nothing", "garbage", "script"],
)
def test_damaged_videos_end_in_an_error_that_names_them(pool, clip, damage):
    result = pool.decode_many([(info_of("bad", "video", SHAPE), damage(clip))])[0]
    assert isinstance(result, DecodeError)
    assert "key=bad: cannot be decoded" in str(result)
    assert "pyav" in result.reason


@pytest.mark.parametrize("shape", [(13, 48, 64), (5, 48, 64), (9, 64, 48)])
def test_a_clip_that_differs_from_its_index_is_refused(pool, clip, shape):
    result = pool.decode_many([(info_of("lies", "video", shape), clip)])[0]
    assert isinstance(result, DecodeError)


def test_results_keep_their_order_around_a_failure(pool, clip):
    image = paint(1, 20, 30)
    items = [
        (info_of("a", "video", SHAPE), clip),
        (info_of("b", "video", SHAPE), b"junk"),
        (info_of("c", "image", (1, 20, 30)), png(image)),
        (info_of("d", "video", SHAPE), clip),
    ]
    results = pool.decode_many(items)
    assert [getattr(r, "decoder", "error") for r in results] == [
        "decord",
        "error",
        "pillow",
        "decord",
    ]
    np.testing.assert_array_equal(results[2].frames, image)


@pytest.mark.parametrize("sign", [signal.SIGSTOP, signal.SIGKILL, signal.SIGSEGV])
def test_a_stopped_or_killed_child_is_replaced_and_its_clip_read_by_pyav(clip, sign):
    with DecoderPool(1, 3.0) as pool:
        info = info_of("a", "video", SHAPE)
        assert pool.decode_many([(info, clip)])[0].decoder == "decord"
        (pid,) = pool.pids()
        os.kill(pid, sign)
        time.sleep(0.1)
        first, second = pool.decode_many([(info, clip), (info, clip)])
        assert first.decoder == "pyav"
        assert ("killed" in first.reasons[0]) or (sign.name in first.reasons[0])
        assert second.decoder == "decord"
        assert pool.pids() != [pid]


def test_a_clip_over_the_time_limit_is_an_error_after_two_attempts(clip):
    with DecoderPool(1, 1e-5) as pool:
        result = pool.decode_many([(info_of("slow", "video", SHAPE), clip)])[0]
    assert isinstance(result, DecodeError)
    assert result.reason.count("exceeded 1e-05 s and was killed") == 2


def test_closing_the_pool_ends_its_children(clip):
    pool = DecoderPool(2, 20.0)
    pool.decode_many([(info_of("a", "video", SHAPE), clip)] * 2)
    pids = pool.pids()
    pool.close()
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_images_over_the_pixel_limit_and_broken_images_are_refused(monkeypatch):
    with DecoderPool(0, 20.0) as pool:
        info = info_of("big", "image", (1, 64, 64))
        payload = png(paint(1, 64, 64))
        broken = pool.decode_many([(info, payload[:60]), (info, b""), (info, payload)])
        assert [type(b).__name__ for b in broken] == ["DecodeError", "DecodeError", "Decoded"]
        monkeypatch.setattr("data.decode.MAX_IMAGE_PIXELS", 1000)
        assert "more than 1000 pixels" in pool.decode_many([(info, payload)])[0].reason


def test_the_child_imports_neither_torch_nor_webdataset():
    code = (
        "import sys, numpy, av, decord, data.decoder_child;"
        "print({'torch', 'webdataset'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
