"""Payload bytes to frames, in this process: decord first, PyAV as fallback and judge.

Only for payloads that are trusted, or inside a child that can be killed (data/decoder_pool.py).
Imports nothing heavier than numpy, because every such child runs this file.
"""

import io
import re
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# An 8K still has 33 million pixels; a larger claim is more likely a decompression bomb.
MAX_IMAGE_PIXELS = 64_000_000
# 20 s of 1080p at 24 fps decode to 3.0 GB; a child that believed a larger header would be swapping.
MAX_CLIP_BYTES = 4_000_000_000

Shape = tuple[int, int, int]


class Decoder(Protocol):
    """Turns one payload into frames."""

    name: str

    def decode(self, payload: bytes, expected: Shape | None = None) -> NDArray[np.uint8]:
        """Return RGB frames (F, H, W, 3), uint8.

        ``expected`` (F, H, W) lets a decoder refuse before it spends memory. Raises ValueError, or
        the library's own error, on anything but a whole clip.
        """
        ...


def check_shape(found: Shape, expected: Shape | None) -> None:
    """Raise ValueError unless (F, H, W) is the expected one and its frames fit the byte limit."""
    if expected is not None and found != expected:
        raise ValueError(f"has (frames, height, width) {found}, not {expected}")
    if found[0] * found[1] * found[2] * 3 > MAX_CLIP_BYTES:
        raise ValueError(f"decodes to more than {MAX_CLIP_BYTES} bytes")


class DecordDecoder:
    """The default: fast on what ingest writes; wrong on edit lists, blind to AV1.

    It also refuses some narrow clips (16, 24, 48 and 72 pixels wide, with 0.6.0).
    """

    name = "decord"

    def decode(self, payload: bytes, expected: Shape | None = None) -> NDArray[np.uint8]:
        import decord

        decord.logging.set_level(decord.logging.FATAL)
        try:
            # One reader per clip, dropped at once: an idle one keeps decoding ahead into memory.
            reader = decord.VideoReader(io.BytesIO(payload), num_threads=1)
            num_frames = len(reader)
            if expected is not None and num_frames != expected[0]:
                raise ValueError(f"has {num_frames} frames, not {expected[0]}")
            frames: NDArray[np.uint8] = reader.get_batch(range(num_frames)).asnumpy()
        except decord.DECORDError as error:
            # Derives from Exception alone; its message carries a C++ stack after the first line.
            first = next(iter(str(error).splitlines()), "failed")
            raise ValueError(re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", first)) from error
        check_shape(frames.shape[:3], expected)
        return frames


class PyAVDecoder:
    """The fallback and the judge: every codec of FFmpeg, counts frames by decoding them."""

    name = "pyav"

    def decode(self, payload: bytes, expected: Shape | None = None) -> NDArray[np.uint8]:
        frames: list[NDArray[np.uint8]] = []
        for frame in av_frames(payload):
            limit = expected[0] if expected else MAX_CLIP_BYTES // (frame.height * frame.width * 3)
            if len(frames) == limit:
                raise ValueError(f"has more than {limit} frames")
            check_shape((limit if expected else 1, frame.height, frame.width), expected)
            frames.append(frame.to_ndarray(format="rgb24"))
        if not frames:
            raise ValueError("holds no frame")
        clip = np.stack(frames)
        check_shape(clip.shape[:3], expected)
        return clip


class PillowDecoder:
    """Still images as one-frame clips."""

    name = "pillow"

    def decode(self, payload: bytes, expected: Shape | None = None) -> NDArray[np.uint8]:
        from PIL import Image

        bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(payload))
            check_shape((1, image.height, image.width), expected)
            if image.height * image.width > MAX_IMAGE_PIXELS:
                raise ValueError(f"has more than {MAX_IMAGE_PIXELS} pixels")
            return np.array(image.convert("RGB"))[None]  # (1, H, W, 3)
        except bombs as error:
            raise ValueError(f"has more than {MAX_IMAGE_PIXELS} pixels") from error
        except (OSError, SyntaxError, EOFError, struct.error) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def av_frames(payload: bytes) -> Iterable[Any]:
    """Yield the decoded frames of the first video stream, in presentation order.

    Raises ValueError where there is no video stream.
    """
    import av

    av.logging.set_level(av.logging.PANIC)
    try:
        with av.open(io.BytesIO(payload), "r") as container:
            if not container.streams.video:
                raise ValueError("holds no video stream")
            container.streams.video[0].thread_count = 1
            yield from container.decode(video=0)
    except av.FFmpegError as error:  # only some of its kinds are also ValueError or OSError
        raise ValueError(f"{type(error).__name__}: {error.strerror}") from error


def probe_video(payload: bytes) -> dict[str, Any]:
    """Return ``num_frames, height, width, fps`` of a video, by decoding all of it.

    Headers lie (one of the test films claims 444 frames and has 68). Raises ValueError if the clip
    is rotated, has pixels that are not square, changes size, or holds no frame.
    """
    import av

    sizes: set[tuple[int, int]] = set()
    num_frames = 0
    for frame in av_frames(payload):
        num_frames += 1
        sizes.add((frame.height, frame.width))
        if frame.rotation:
            raise ValueError(f"is rotated by {frame.rotation} degrees; ingest it instead")
    if len(sizes) != 1:
        raise ValueError("holds no frame" if not sizes else "changes its size")
    with av.open(io.BytesIO(payload)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 0)
        aspect = stream.sample_aspect_ratio
    if aspect not in (None, 0, 1):
        raise ValueError(f"has pixels of aspect {aspect}; ingest it instead")
    height, width = sizes.pop()
    return {"num_frames": num_frames, "height": height, "width": width, "fps": fps}


def decode(payload: bytes, media: str, decoder: str | None = None) -> NDArray[np.uint8]:
    """Decode in this process and return uint8 RGB frames (F, H, W, 3).

    ``media`` is video or image; ``decoder`` is decord (default), pyav or pillow. Only for payloads
    that are trusted: a damaged video can hang or end the process (see data/decoder_pool.py).
    """
    name = decoder or ("pillow" if media == "image" else "decord")
    return make_decoder(name).decode(payload)


def make_decoder(name: str) -> Decoder:
    """Return a decoder by name: decord, pyav or pillow."""
    for kind in (DecordDecoder, PyAVDecoder, PillowDecoder):
        if kind.name == name:
            return kind()
    raise ValueError(f"decoder={name}: must be decord, pyav or pillow. Use decord.")


def decode_by_first(
    payload: bytes, names: Sequence[str], expected: Shape
) -> tuple[NDArray[np.uint8] | None, str, list[str]]:
    """Try decoders in turn; return (frames or None, decoder name, reasons of those that failed)."""
    reasons: list[str] = []
    for name in names:
        try:
            return make_decoder(name).decode(payload, expected), name, reasons
        # decord raises RuntimeError, PyAV mixes of ValueError, OSError and EOFError.
        except (ValueError, RuntimeError, OSError, EOFError, MemoryError) as error:
            lines = str(error).strip().splitlines() or [""]
            reasons.append(f"{name}: {type(error).__name__}: {lines[0]}"[:300])
    return None, "", reasons
