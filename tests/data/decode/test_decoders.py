"""Decoders agree, damaged files end in a named error, and a stuck child does not stop the line."""

import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from data.decode.child import ChildFailure, DecoderChild
from data.decode.decoders import PyAVDecoder, decode, make_decoder
from data.decode.pool import DecodeError, DecoderPool
from tests.data.conftest import encode, info_of, paint, png

SHAPE = (9, 48, 64)
INFO = info_of("a", "video", SHAPE)


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(1, 20.0) as made:
        yield made


@pytest.fixture(scope="module")
def clip():
    return encode(paint(*SHAPE))


def test_the_judge_reads_a_first_visit_and_decord_agrees(pool, clip):
    decoded = pool.decode_many([(info_of("a", "video", SHAPE, sha256="a" * 64), clip)])[0]
    assert decoded.decoder == "pyav"
    assert decoded.frames.shape == (*SHAPE, 3)
    assert decoded.frames.dtype == np.uint8
    np.testing.assert_array_equal(decoded.frames, decode(clip, "video"))
    assert np.abs(decoded.frames.astype(int) - paint(*SHAPE)).mean() < 30


def test_later_visits_are_read_by_a_decoder_that_proved_exact_and_give_the_same_frames(clip):
    first = decode(clip, "video", "pyav")
    with DecoderPool(1, 20.0) as pool:
        visits = pool.decode_many([(INFO, clip)] * 8)
        (reason,) = pool.choices.text().splitlines()
        (chosen,) = pool.choices.table().values() or ("pyav",)
    assert [visit.decoder for visit in visits[:4]] == ["pyav"] * 4
    assert {visit.decoder for visit in visits[4:]} == {chosen}
    assert chosen in ("pyav", "decord")
    assert all(np.array_equal(visit.frames, first) for visit in visits)
    assert f"by {chosen} [pyav: exact" in reason
    assert "decord: exact" in reason


def test_av1_is_read_and_decord_is_never_chosen_for_it():
    try:
        payload = encode(paint(*SHAPE), "libsvtav1")
    except (ValueError, OSError) as error:
        pytest.skip(f"this build of PyAV cannot encode AV1: {error}")
    with DecoderPool(1, 20.0) as pool:
        visits = pool.decode_many([(INFO, payload)] * 6)
        assert "decord: refused" in pool.choices.text()
    assert {visit.decoder for visit in visits} == {"pyav"}
    assert {visit.frames.shape for visit in visits} == {(*SHAPE, 3)}


@pytest.mark.parametrize("name", ["decord", "torchcodec"])
@pytest.mark.parametrize("size", [(90, 160), (160, 90), (50, 66), (64, 64), (120, 426)])
def test_decoders_give_equal_pixels_at_odd_sizes(name, size):
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    payload = encode(paint(5, *size))
    frames = decode(payload, "video", name)
    np.testing.assert_array_equal(frames, PyAVDecoder().decode(payload, (5, *size)))
    np.testing.assert_array_equal(frames, PyAVDecoder().decode(payload))


def test_an_absent_torchcodec_is_named_with_its_remedy(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ValueError, match=r"decoder=torchcodec: needs .* or use pyav\."):
        make_decoder("torchcodec").decode(clip)
    monkeypatch.setattr("data.decode.pool.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"decoder=torchcodec: .* pip install torchcodec"):
        DecoderPool(1, 20.0, decoders=["torchcodec"])


def test_an_unknown_decoder_is_refused():
    with pytest.raises(ValueError, match=r"decoder=quicktime: must be decord, pyav, torchcodec"):
        DecoderPool(1, 20.0, decoders=["quicktime"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda clip: clip[: len(clip) // 2],
        lambda clip: clip[:40],
        lambda clip: b"",
        lambda clip: random.Random(0).randbytes(5000),
        lambda clip: b"#!/bin/sh\necho this is not a video\n",
        lambda clip: b"ffconcat version 1.0\nfile clip.mp4\n",
    ],
    ids=["half", "head", "nothing", "garbage", "script", "playlist"],
)
def test_damaged_videos_end_in_an_error_that_names_them(pool, clip, damage):
    result = pool.decode_many([(info_of("bad", "video", SHAPE), damage(clip))])[0]
    assert isinstance(result, DecodeError)
    assert "key=bad: cannot be decoded" in str(result)
    assert "pyav" in result.reason


@pytest.mark.parametrize("shape", [(13, 48, 64), (5, 48, 64), (9, 64, 48)])
@pytest.mark.parametrize("name", ["pyav", "decord"])
def test_a_clip_that_differs_from_its_index_is_refused(pool, clip, shape, name):
    result = pool.decode_many([(info_of("lies", "video", shape), clip)])[0]
    assert isinstance(result, DecodeError)
    with pytest.raises(ValueError, match=r"has "):
        make_decoder(name).decode(clip, shape)


def test_results_keep_their_order_around_a_failure(pool, clip):
    image = paint(1, 20, 30)
    items = [
        (INFO, clip),
        (info_of("b", "video", SHAPE), b"junk"),
        (info_of("c", "image", (1, 20, 30)), png(image)),
        (info_of("d", "video", SHAPE), clip),
    ]
    results = pool.decode_many(items)
    assert [type(r).__name__ for r in results] == ["Decoded", "DecodeError", "Decoded", "Decoded"]
    assert results[2].decoder == "pillow"
    np.testing.assert_array_equal(results[2].frames, image)


@pytest.mark.heavy
@pytest.mark.parametrize("sign", [signal.SIGSTOP, signal.SIGKILL, signal.SIGSEGV])
def test_a_child_stopped_or_killed_while_idle_is_replaced(clip, sign):
    with DecoderPool(1, 2.0) as pool:
        assert pool.decode_many([(INFO, clip)])[0].decoder == "pyav"
        (pid,) = pool.pids()
        os.kill(pid, sign)
        time.sleep(0.1)
        first, second = pool.decode_many([(INFO, clip), (INFO, clip)])
        assert first.decoder == second.decoder == "pyav"
        # A dead child is seen before it is asked; a stopped one only at the time limit.
        assert first.reasons == (
            ["exceeded 2.0 s and was killed"] if sign == signal.SIGSTOP else []
        )
        assert pool.pids() != [pid]


@pytest.mark.heavy
def test_children_killed_at_random_moments_cost_no_sample(clip):
    frames = decode(clip, "video", "pyav")
    draw, finished, kills = random.Random(0), threading.Event(), []

    def kill_now_and_then(pool):
        # Slower than two starts of a child, so that one sample is hardly hit twice.
        while not finished.wait(draw.uniform(0.9, 1.2)):
            for pid in pool.pids()[:1]:
                os.kill(pid, signal.SIGKILL)
                kills.append(pid)

    with DecoderPool(1, 20.0) as pool:
        killer = threading.Thread(target=kill_now_and_then, args=(pool,))
        killer.start()
        while len(kills) < 3:
            for found in pool.decode_many([(INFO, clip)] * 100):
                # One hit twice in a row is an error that says so; never other frames.
                if isinstance(found, DecodeError):
                    assert found.reason.count("SIGKILL") == 2
                else:
                    np.testing.assert_array_equal(found.frames, frames)
        finished.set()
        killer.join()
        assert not isinstance(pool.decode_many([(INFO, clip)])[0], DecodeError)


@pytest.mark.heavy
def test_a_clip_over_the_time_limit_is_an_error_after_two_attempts(clip):
    with DecoderPool(1, 1e-5) as pool:
        result = pool.decode_many([(info_of("slow", "video", SHAPE), clip)])[0]
    assert isinstance(result, DecodeError)
    assert result.reason.count("exceeded 1e-05 s and was killed") == 2


def test_an_allocation_over_the_limit_is_an_error_and_the_child_lives_on(clip):
    child = DecoderChild((), decoder_bytes=20_000_000)
    request = {"verb": "decode", "decoders": ["pyav"], "expected": (1, 16, 16)}
    large = encode(np.zeros((3, 2160, 3840, 3), np.uint8))
    try:
        head, frames = child.ask(request, large, 20.0)
        assert frames is None
        assert head["reasons"]
        head, frames = child.ask({**request, "expected": SHAPE}, clip, 20.0)
        assert head["decoder"] == "pyav"
        np.testing.assert_array_equal(frames, decode(clip, "video", "pyav"))
    finally:
        child.process.kill()
        child.kill()


def test_the_memory_limit_holds_for_the_whole_process():
    code = (
        "from data.decode.child import address_bytes, limit_memory\n"
        "limit_memory(address_bytes() + 50_000_000, (1, 16, 16))\n"
        "small = bytearray(10_000_000)\n"
        "try: bytearray(200_000_000)\n"
        "except MemoryError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "refused"


def test_a_child_that_cannot_start_says_how_it_ended(monkeypatch):
    monkeypatch.setattr("data.decode.child.sys.executable", "/bin/false")
    with pytest.raises(ChildFailure, match="did not start: exit status 1"):
        DecoderChild()


def test_closing_the_pool_ends_its_children(clip):
    pool = DecoderPool(2, 20.0)
    pool.decode_many([(INFO, clip)] * 2)
    pids = pool.pids()
    pool.close()
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_images_over_the_pixel_limit_and_broken_images_are_refused(pool):
    info = info_of("big", "image", (1, 64, 64))
    payload = png(paint(1, 64, 64))
    broken = pool.decode_many([(info, payload[:60]), (info, b""), (info, payload)])
    assert [type(b).__name__ for b in broken] == ["DecodeError", "DecodeError", "Decoded"]
    vast = info_of("vast", "image", (1, 8001, 8000))
    assert (
        "more than 64000000 pixels" in pool.decode_many([(vast, blank_png(8001, 8000))])[0].reason
    )


def blank_png(height, width):
    """A PNG of one bit a pixel, all black: a few kilobytes whatever its size."""
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_child_imports_neither_torch_nor_webdataset():
    code = (
        "import sys, numpy, av, decord, data.decode.child;"
        "print({'torch', 'webdataset'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
