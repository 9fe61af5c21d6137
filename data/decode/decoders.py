"""Payload bytes to frames, in this process: decord, torchcodec, Pillow, and PyAV, the judge.

Only for payloads that are trusted, or inside a child that can be killed (data/decode/pool.py).
Imports nothing heavier than numpy, because every such child runs this file.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.decode.colour import TRANSFERS, with_matrix
from data.decode.pictures import (
    EXIF_ORIENTATION,
    PICTURE_FAILURES,
    num_pictures,
    open_picture,
    shown_picture,
)

# An 8K still has 33 million pixels; a larger claim is more likely a decompression bomb.
MAX_IMAGE_PIXELS = 64_000_000
# 20 s of 1080p at 24 fps decode to 3.0 GB; a child that believed a larger header would be swapping.
MAX_CLIP_BYTES = 4_000_000_000
# Only self-contained containers: playlist formats (hls, concat, dash) name other files to open.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,ogg,gif,flv,asf,"
    "m4v,h264,hevc,ivf,yuv4mpegpipe,apng,mxf,dv"
)
# What damaged or unreadable bytes make the libraries raise: PyAV mixes the first three, decord and
# torchcodec raise RuntimeError.
DECODE_FAILURES = (ValueError, OSError, EOFError, RuntimeError, MemoryError)
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
    """The default on its own: right on what ingest writes; wrong on edit lists, blind to AV1.

    It refuses some narrow clips (16, 24, 48 and 72 pixels wide, with 0.6.0), patches damaged frames
    without a word, and its random access is wrong in open GOPs and MPEG-2 and -4 (docs/decode.md).
    """

    name = "decord"

    def decode(self, payload: bytes, expected: Shape | None = None) -> NDArray[np.uint8]:
        def read_all(reader: Any) -> NDArray[np.uint8]:
            num_frames = len(reader)
            if expected is not None and num_frames != expected[0]:
                raise ValueError(f"has {num_frames} frames, not {expected[0]}")
            frames: NDArray[np.uint8] = reader.get_batch(range(num_frames)).asnumpy()
            return frames

        frames = read_by_decord(payload, read_all)
        check_shape(frames.shape[:3], expected)
        return frames


def read_by_decord(payload: bytes, read: Callable[[Any], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return what ``read`` takes from decord's reader. Raises ValueError where decord fails."""
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    try:
        # One reader per clip, dropped at once: an idle one keeps decoding ahead into memory.
        return read(decord.VideoReader(io.BytesIO(payload), num_threads=1))
    except decord.DECORDError as error:
        # Derives from Exception alone; its message carries a C++ stack after the first line.
        first = next(iter(str(error).splitlines()), "failed")
        raise ValueError(re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", first)) from error


class TorchcodecDecoder:
    """The alternative, where installed: exact seeking, wrong on MPEG-TS and AVI with B-frames.

    Its import brings torch: 3 s and 300 MB for each child process.
    """

    name = "torchcodec"

    def decode(self, payload: bytes, expected: Shape | None = None) -> NDArray[np.uint8]:
        decoder = open_torchcodec(payload)
        num_frames = len(decoder)
        if expected is not None and num_frames != expected[0]:
            raise ValueError(f"has {num_frames} frames, not {expected[0]}")
        try:
            frames: NDArray[np.uint8] = decoder.get_frames_in_range(0, num_frames).data.numpy()
        except IndexError as error:
            raise ValueError(str(error)) from error
        check_shape(frames.shape[:3], expected)
        return frames


def open_torchcodec(payload: bytes) -> Any:
    """Return torchcodec's decoder of a payload, giving (F, H, W, 3) on one thread.

    Raises ValueError where torchcodec or the FFmpeg libraries that it needs are not installed.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise ValueError(
            f"decoder=torchcodec: needs the package torchcodec and FFmpeg's libraries ({first}). "
            "Install both, or use pyav."
        ) from error
    return VideoDecoder(payload, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")


class PyAVDecoder:
    """The judge: every codec of FFmpeg, counts frames by decoding them, refuses damaged ones."""

    name = "pyav"

    def decode_part(
        self, payload: bytes, expected: Shape, first: int, last: int
    ) -> NDArray[np.uint8]:
        """Return frames ``first`` to ``last`` of a clip that is whole, at the cost of theirs alone.

        All frames are decoded, since damage shows in no other way; those outside are not kept.
        """
        check_shape((last - first + 1, *expected[1:]), None)
        to_rgb, part = RGBConverter(), np.empty((last - first + 1, *expected[1:], 3), np.uint8)
        number = -1
        for number, frame in enumerate(av_frames(payload)):
            if first <= number <= last:
                image = to_rgb(frame)
                check_shape((expected[0], *image.shape[:2]), expected)
                part[number - first] = image
        if number + 1 != expected[0]:
            raise ValueError(f"has {number + 1} frames, not {expected[0]}")
        return part

    def decode(self, payload: bytes, expected: Shape | None = None) -> NDArray[np.uint8]:
        if expected is not None:
            check_shape(expected, expected)
        to_rgb = RGBConverter()
        clip: NDArray[np.uint8] | None = None
        frames: list[NDArray[np.uint8]] = []
        for number, frame in enumerate(av_frames(payload)):
            image = to_rgb(frame)
            if expected is None:
                most = MAX_CLIP_BYTES // image.nbytes
                if number == most:
                    raise ValueError(f"has more than {most} frames")
                frames.append(image.copy())
                continue
            if number == expected[0]:
                raise ValueError(f"has more than {number} frames")
            check_shape((expected[0], *image.shape[:2]), expected)
            if clip is None:
                clip = np.empty((*expected, 3), np.uint8)
            clip[number] = image
        if expected is not None and clip is not None:
            check_shape((number + 1, *expected[1:]), expected)
            return clip
        if len({image.shape for image in frames}) != 1:
            raise ValueError("changes its size" if frames else "holds no frame")
        return np.stack(frames)


class RGBConverter:
    """Turns the frames of one clip upright and into RGB (H, W, 3), valid until the next call.

    One converter for a whole clip: PyAV's own ``to_ndarray`` sets its scaler up anew for each
    frame and copies each twice, a third of the time at 128 x 128 (docs/decode.md).
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self.reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """Raises ValueError for rotations that are no quarter turns."""
        if frame.rotation % 90:
            raise ValueError(f"is rotated by {frame.rotation} degrees; ingest it instead")
        self.shown = self.reformatter.reformat(with_matrix(frame), format="rgb24")
        plane = self.shown.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        image = rows[: frame.height, : frame.width * 3].reshape(frame.height, frame.width, 3)
        image = image[::-1] if is_mirrored(frame) else image
        return np.rot90(image, frame.rotation // 90)


def is_mirrored(frame: Any) -> bool:
    """Say whether a frame's display matrix mirrors it: it is put upside down before it is turned.

    ``frame.rotation`` does not tell; the determinant does. Front cameras write such matrices.
    """
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
            return bool(a * d < b * c)
    return False


class PillowDecoder:
    """Still images as one-frame clips, as :func:`shown_picture` shows them."""

    name = "pillow"

    def decode(self, payload: bytes, expected: Shape | None = None) -> NDArray[np.uint8]:
        from PIL.Image import DecompressionBombError

        try:
            image = open_picture(io.BytesIO(payload))
            size = (image.height, image.width)
            turned = image.getexif().get(EXIF_ORIENTATION) in (5, 6, 7, 8)
            check_shape((1, *(size[::-1] if turned else size)), expected)
            if image.height * image.width > MAX_IMAGE_PIXELS:
                raise ValueError(f"has more than {MAX_IMAGE_PIXELS} pixels")
            return np.array(shown_picture(image))[None]  # (1, H, W, 3)
        except DecompressionBombError as error:
            raise ValueError(f"has more than {MAX_IMAGE_PIXELS} pixels") from error
        except PICTURE_FAILURES as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def probe_picture(payload: bytes) -> dict[str, Any]:
    """Return ``num_frames, height, width, fps`` of a still, by decoding it.

    Raises ValueError where it is damaged, or one of several that are shown in turn.
    """
    _, height, width, _ = PillowDecoder().decode(payload).shape
    try:
        count = num_pictures(open_picture(io.BytesIO(payload)))
    except PICTURE_FAILURES as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if count > 1:
        raise ValueError(f"holds {count} pictures, a film; ingest it instead")
    return {"num_frames": 1, "height": height, "width": width, "fps": 0.0}


def av_frames(payload: bytes) -> Iterable[Any]:
    """Yield the decoded frames of the first video stream, in presentation order.

    Raises ValueError where there is no video stream, its pixels are not square, or at a frame that
    FFmpeg knows is damaged: it would otherwise be patched from its neighbours, or be missing.
    """
    import av

    try:
        with open_by_pyav(payload) as container:
            if not container.streams.video:
                raise ValueError("holds no video stream")
            stream = container.streams.video[0]
            if stream.sample_aspect_ratio not in (None, 0, 1):
                aspect = stream.sample_aspect_ratio
                raise ValueError(f"has pixels of aspect {aspect}; ingest it instead")
            stream.thread_count = 1
            for number, frame in enumerate(container.decode(video=0)):
                if frame.is_corrupt:
                    raise ValueError(f"frame {number} is damaged")
                yield frame
    except av.FFmpegError as error:  # only some of its kinds are also ValueError or OSError
        raise ValueError(f"{type(error).__name__}: {error.strerror}") from error


def open_by_pyav(payload: bytes) -> Any:
    """Open self-contained media; what breaks raises av.FFmpegError."""
    import av

    av.logging.set_level(av.logging.PANIC)
    return av.open(io.BytesIO(payload), "r", options={"format_whitelist": CONTAINERS})


def probe_video(payload: bytes) -> dict[str, Any]:
    """Return ``num_frames, height, width, fps`` of a video, by decoding all of it.

    Height and width are those of the upright picture. Headers lie (one of the test films claims 444
    frames and has 68). Raises ValueError if the clip is damaged, has pixels that are not square, is
    HDR, changes size, or holds no frame.
    """
    sizes: set[tuple[int, int]] = set()
    num_frames = 0
    for frame in av_frames(payload):
        num_frames += 1
        if frame.rotation % 90:
            raise ValueError(f"is rotated by {frame.rotation} degrees; ingest it instead")
        if frame.color_trc in TRANSFERS:
            raise ValueError(f"is HDR ({TRANSFERS[frame.color_trc]}); ingest it instead")
        size = (frame.height, frame.width)
        sizes.add(size[::-1] if frame.rotation % 180 else size)
    if len(sizes) != 1:
        raise ValueError("holds no frame" if not sizes else "changes its size")
    with open_by_pyav(payload) as container:
        fps = float(container.streams.video[0].average_rate or 0)
    height, width = sizes.pop()
    return {"num_frames": num_frames, "height": height, "width": width, "fps": fps}


def decode(payload: bytes, media: str, decoder: str | None = None) -> NDArray[np.uint8]:
    """Decode in this process and return uint8 RGB frames (F, H, W, 3).

    ``media`` is video or image; ``decoder`` is decord (default), pyav, torchcodec or pillow. Only
    for payloads that are trusted: a damaged video can hang or end the process (see
    data/decode/pool.py).
    """
    name = decoder or ("pillow" if media == "image" else "decord")
    return make_decoder(name).decode(payload)


def make_decoder(name: str) -> Decoder:
    """Return a decoder by name: decord, pyav, torchcodec or pillow."""
    for kind in (DecordDecoder, PyAVDecoder, TorchcodecDecoder, PillowDecoder):
        if kind.name == name:
            return kind()
    raise ValueError(f"decoder={name}: must be decord, pyav, torchcodec or pillow. Use decord.")


def frames_at(name: str, payload: bytes, indices: Sequence[int]) -> NDArray[np.uint8]:
    """Return the frames with these numbers (F, H, W, 3) by a decoder's own random access.

    Raises ValueError where the decoder fails or offers none: PyAV here reads from the start.
    """
    numbers = list(indices)
    if name == "decord":
        return read_by_decord(payload, lambda reader: reader.get_batch(numbers).asnumpy())
    if name == "torchcodec":
        try:
            found: NDArray[np.uint8] = open_torchcodec(payload).get_frames_at(numbers).data.numpy()
        except IndexError as error:
            raise ValueError(str(error)) from error
        return found
    raise ValueError(f"decoder={name}: has no random access. Use decord or torchcodec.")


def decode_by_first(
    payload: bytes,
    names: Sequence[str],
    expected: Shape | None,
    part: tuple[int, int] | None = None,
) -> tuple[NDArray[np.uint8] | None, str, list[str]]:
    """Try decoders in turn; return (frames or None, decoder name, reasons of those that failed).

    part: first and last of the frames that are wanted, which PyAV alone can take from a clip.
    """
    reasons: list[str] = []
    for name in names:
        try:
            if part and expected and name == PyAVDecoder.name:
                return PyAVDecoder().decode_part(payload, expected, *part), name, reasons
            return make_decoder(name).decode(payload, expected), name, reasons
        except DECODE_FAILURES as error:
            lines = str(error).strip().splitlines() or [""]
            reasons.append(f"{name}: {type(error).__name__}: {lines[0]}"[:300])
    return None, "", reasons
