"""Payload bytes to frames: decord first, PyAV as fallback and judge, in killable children.

decord can crash on damaged files and can loop for ever while it holds the interpreter lock, where
no signal handler runs; so videos are decoded in child processes with a time limit. A child runs
this file, which therefore imports nothing heavier than numpy; it speaks length-prefixed JSON and
raw bytes over one socket, so nothing is ever unpickled.
"""

import io
import json
import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from data.shards import SampleInfo

log = logging.getLogger(__name__)

# An 8K still has 33 million pixels; a larger claim is more likely a decompression bomb.
MAX_IMAGE_PIXELS = 64_000_000
# 20 s of 1080p at 24 fps decode to 3.0 GB; a child that believed a larger header would be swapping.
MAX_CLIP_BYTES = 4_000_000_000
START_TIMEOUT_SECONDS = 60.0
HEADER = struct.Struct("<QQ")

Shape = tuple[int, int, int]


class DecodeError(ValueError):
    """A sample that no decoder could read; carries the ``key`` and the ``reason``."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(
            f"key={key}: cannot be decoded ({reason}). "
            "Ingest it again, or set data.on_bad_sample=drop."
        )
        self.key = key
        self.reason = reason


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
    that are trusted: a damaged video can hang or end the process (see :class:`DecoderPool`).
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


# --- the child's side -----------------------------------------------------------------------------


def receive(channel: socket.socket, view: memoryview, deadline: float | None = None) -> None:
    """Fill ``view`` from a socket. Raises EOFError when it closes, TimeoutError at the deadline."""
    filled = 0
    while filled < len(view):
        if deadline is not None:
            channel.settimeout(max(deadline - time.monotonic(), 1e-6))
        count = channel.recv_into(view[filled:])
        if count == 0:
            raise EOFError("the other side closed")
        filled += count


def receive_head(channel: socket.socket, deadline: float | None = None) -> tuple[Any, int]:
    """Read one message's JSON; return it and the number of raw bytes that follow."""
    prefix = bytearray(HEADER.size)
    receive(channel, memoryview(prefix), deadline)
    json_bytes, body_bytes = HEADER.unpack(prefix)
    text = bytearray(json_bytes)
    receive(channel, memoryview(text), deadline)
    return json.loads(text.decode()), body_bytes


def send(channel: socket.socket, head: dict[str, Any], body: memoryview) -> None:
    """Send one message; a timeout set on the socket covers each of its two parts."""
    text = json.dumps(head).encode()
    channel.sendall(HEADER.pack(len(text), body.nbytes) + text)
    channel.sendall(body)


def serve(descriptor: int) -> None:
    """Answer requests on an inherited socket until the parent closes it (a child's main)."""
    channel = socket.socket(fileno=descriptor)
    import av  # noqa: F401 - paid once, before the first clip's time limit runs
    import decord  # noqa: F401

    # decord prints whatever its log level; from here on every reason travels over the socket.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    send(channel, {"ready": True}, memoryview(b""))
    while True:
        try:
            request, body_bytes = receive_head(channel)
            payload = bytearray(body_bytes)
            receive(channel, memoryview(payload))
        except (EOFError, ConnectionError):
            return
        # If the parent dies while a decoder spins, the kernel ends this process: no handler needed.
        signal.setitimer(signal.ITIMER_REAL, 2 * request["timeout_seconds"] + 5)
        head, body = answer(request, bytes(payload))
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            send(channel, head, body)
        except ConnectionError:
            return


def answer(request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], memoryview]:
    """Carry out one request in the child: ``probe`` or ``decode``."""
    nothing = memoryview(b"")
    if request["verb"] == "probe":
        try:
            return {"probe": probe_video(payload)}, nothing
        except (ValueError, OSError, EOFError, RuntimeError) as error:
            return {"reasons": [f"{type(error).__name__}: {error}"[:300]]}, nothing
    expected = tuple(request["expected"])
    frames, name, reasons = decode_by_first(payload, request["decoders"], expected)
    if frames is None:
        return {"reasons": reasons}, nothing
    return {"decoder": name, "reasons": reasons}, np.ascontiguousarray(frames).data.cast("B")


# --- the parent's side ----------------------------------------------------------------------------


class ChildFailure(Exception):
    """A child crashed or ran out of time; it has been killed."""


class DecoderChild:
    """One decoder process and the socket to it. Used by one thread at a time."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        with theirs:
            # A plain subprocess: multiprocessing's spawn would import the parent's main module,
            # and with it torch and DeepSpeed.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "data.decode", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        try:
            receive_head(self.channel, time.monotonic() + START_TIMEOUT_SECONDS)
        except (OSError, EOFError) as error:
            raise ChildFailure(f"decoder process did not start: {self.kill()}") from error

    def ask(
        self, request: dict[str, Any], payload: bytes, timeout_seconds: float
    ) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
        """Send a request, return the reply's head and frames (None if it carries none).

        Raises ChildFailure after killing the child if it dies or exceeds the time limit.
        """
        deadline = time.monotonic() + timeout_seconds
        try:
            self.channel.settimeout(timeout_seconds)
            send(self.channel, {**request, "timeout_seconds": timeout_seconds}, memoryview(payload))
            head, body_bytes = receive_head(self.channel, deadline)
            if not body_bytes:
                return head, None
            frames = np.empty((*request["expected"], 3), np.uint8)
            assert frames.nbytes == body_bytes
            receive(self.channel, frames.data.cast("B"), deadline)
            return head, frames
        except TimeoutError as error:
            self.kill()
            raise ChildFailure(f"exceeded {timeout_seconds} s and was killed") from error
        except (ConnectionError, EOFError) as error:
            raise ChildFailure(f"decoder process ended by {self.kill()}") from error

    def kill(self) -> str:
        """End the process, collect it and say how it ended."""
        # A process that crashed by itself may not be reaped yet; its own status is the better one.
        try:
            status = self.process.wait(0.2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.channel.close()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


@dataclass
class Decoded:
    """Frames (F, H, W, 3) uint8, the decoder that read them, and why earlier attempts failed."""

    frames: NDArray[np.uint8]
    decoder: str
    reasons: list[str]


class DecoderPool:
    """Decode samples in killable child processes, each owned by one thread.

    Order of attempts for a video: decord, then PyAV in the same child; if the child crashes or
    exceeds ``timeout_seconds`` it is killed and replaced, and PyAV tries once more in the fresh
    one. Frame count and size must equal those of the index. Images are decoded in this process by
    Pillow. With ``workers=0`` there are no children and no time limits: for images and latents.
    """

    def __init__(self, workers: int, timeout_seconds: float) -> None:
        if workers < 0 or timeout_seconds <= 0:
            raise ValueError(
                f"data.decode_workers={workers}, data.decode_timeout_seconds={timeout_seconds}: "
                "must be at least 0 and above 0. Use 1 and 20."
            )
        self.timeout_seconds = timeout_seconds
        self._threads = ThreadPoolExecutor(workers, "decode") if workers else None
        self._local = threading.local()
        self._lock = threading.Lock()
        self._children: set[DecoderChild] = set()

    def submit(self, info: "SampleInfo", payload: bytes) -> Future[Decoded]:
        """Start decoding; the future's result raises DecodeError where nothing could read it."""
        if self._threads is not None:
            return self._threads.submit(self.decode, info, payload)
        future: Future[Decoded] = Future()
        try:
            future.set_result(self.decode(info, payload))
        except DecodeError as error:
            future.set_exception(error)
        return future

    def decode_many(
        self, items: Iterable[tuple["SampleInfo", bytes]]
    ) -> list[Decoded | DecodeError]:
        """Decode all, in the given order; a failure stands in the place of its sample."""
        results: list[Decoded | DecodeError] = []
        for future in [self.submit(info, payload) for info, payload in items]:
            try:
                results.append(future.result())
            except DecodeError as error:
                results.append(error)
        return results

    def decode(self, info: "SampleInfo", payload: bytes) -> Decoded:
        """Decode one sample in the calling thread. Raises DecodeError."""
        expected = (info.num_frames, info.height, info.width)
        if info.media == "latent":
            raise DecodeError(info.key, "is a latent, not a clip")
        if info.media == "image" or self._threads is None:
            names = ["pillow"] if info.media == "image" else ["decord", "pyav"]
            frames, name, reasons = decode_by_first(payload, names, expected)
        else:
            frames, name, reasons = self._decode_in_child(payload, expected)
        if frames is None:
            raise DecodeError(info.key, "; ".join(reasons))
        if reasons:
            log.warning("%s: read by %s after: %s", info.key, name, "; ".join(reasons))
        return Decoded(frames, name, reasons)

    def probe(self, key: str, payload: bytes) -> dict[str, Any]:
        """Return ``num_frames, height, width, fps`` of a video. Raises DecodeError."""
        request = {"verb": "probe"}
        run = self._threads.submit(self._ask, request, payload) if self._threads else None
        try:
            head, _ = run.result() if run else (answer(request, payload)[0], None)
        except ChildFailure as error:
            raise DecodeError(key, str(error)) from error
        if "probe" not in head:
            raise DecodeError(key, "; ".join(head["reasons"]))
        found: dict[str, Any] = head["probe"]
        return found

    def _decode_in_child(
        self, payload: bytes, expected: Shape
    ) -> tuple[NDArray[np.uint8] | None, str, list[str]]:
        reasons: list[str] = []
        for names in (["decord", "pyav"], ["pyav"]):
            request = {"verb": "decode", "decoders": names, "expected": expected}
            try:
                head, frames = self._ask(request, payload)
            except ChildFailure as failure:
                reasons.append(f"{names[0]}: {failure}")
                continue
            return frames, head.get("decoder", ""), reasons + head["reasons"]
        return None, "", reasons

    def _ask(
        self, request: dict[str, Any], payload: bytes
    ) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
        child: DecoderChild | None = getattr(self._local, "child", None)
        if child is None:
            child = self._local.child = DecoderChild()
            with self._lock:
                self._children.add(child)
        try:
            return child.ask(request, payload, self.timeout_seconds)
        except ChildFailure:
            self._local.child = None
            with self._lock:
                self._children.discard(child)
            raise

    def pids(self) -> list[int]:
        """Return the process ids of the living children."""
        with self._lock:
            return sorted(child.process.pid for child in self._children)

    def close(self) -> None:
        """Wait for what was submitted, then end the children."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            child.process.kill()
            child.kill()
        self._children.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
