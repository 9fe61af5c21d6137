"""One decoder process that can be killed: its main, the socket to it, and the parent's handle.

decord can crash on damaged files and can loop for ever while it holds the interpreter lock, where
no signal handler runs, and a small picture can claim gigabytes; so videos and pictures are decoded
in child processes with a time and a memory limit. A child runs
this file, which therefore imports nothing heavier than numpy; it speaks length-prefixed JSON and
raw bytes over one socket, so nothing is ever unpickled.

data/engine/children.py also runs children that can be killed, but is no use here, nor this there.
There a job is a whole file at ingest: few, pickled, under a memory limit, one loop hands them out.
Here it is one clip of a training step: tens of megabytes of pixels are received in place, a child
that
imports only numpy starts and restarts in a fraction of a second, and threads wait on several.
"""

import importlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.decode.decoders import (
    DECODE_FAILURES,
    MAX_CLIP_BYTES,
    Shape,
    decode_by_first,
    frames_at,
    probe_picture,
    probe_video,
)
from data.decode.signature import signature
from data.shell import deaf_children

START_TIMEOUT_SECONDS = 60.0
# What a decode may take beyond its clip: an 8K frame of 10 bits is 100 MB and codecs keep 16 of
# them. decord's idle reader grew to 3.3 GB in 5 s (DESIGN section 5); this ends it.
DECODER_BYTES = 2_000_000_000
# A clip is held as the decoder's own array, its numpy copy, and for a moment while it is copied.
CLIP_COPIES = 3
# Repeated decoding for a speed measurement stops after this many seconds.
REPEAT_SECONDS = 0.5
IMPORTS = {"decord": "decord", "torchcodec": "torchcodec.decoders"}
HEADER = struct.Struct("<QQ")


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


def serve(descriptor: int, decoder_bytes: int, imports: list[str]) -> None:
    """Answer requests on an inherited socket until the parent closes it (a child's main)."""
    channel = socket.socket(fileno=descriptor)
    for name in imports:  # paid once, before the first clip's time limit runs
        with suppress(ImportError, OSError, RuntimeError):  # told to who asks for this decoder
            importlib.import_module(name)
    # decord prints whatever its log level; from here on every reason travels over the socket.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    send(channel, {"ready": True}, memoryview(b""))
    own_bytes = address_bytes()
    while True:
        try:
            request, body_bytes = receive_head(channel)
            payload = bytearray(body_bytes)
            receive(channel, memoryview(payload))
        except (EOFError, ConnectionError):
            return
        limit_memory(own_bytes + decoder_bytes + 2 * body_bytes, request.get("expected"))
        # If the parent dies while a decoder spins, the kernel ends this process: no handler needed.
        signal.setitimer(signal.ITIMER_REAL, 2 * request["timeout_seconds"] + 5)
        head, body = answer(request, bytes(payload))
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            send(channel, head, body)
        except ConnectionError:
            return


def address_bytes() -> int:
    """Return the address space of this process, which is what RLIMIT_AS counts."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def limit_memory(other_bytes: int, expected: Shape | None) -> None:
    """Let allocations fail that this clip (F, H, W), or the largest there may be, cannot need."""
    clip_bytes = 3 * expected[0] * expected[1] * expected[2] if expected else MAX_CLIP_BYTES
    limit = other_bytes + CLIP_COPIES * min(clip_bytes, MAX_CLIP_BYTES)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def answer(request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], memoryview]:
    """Carry out one request in the child: ``probe``, ``decode`` or ``frames_at``.

    ``probe`` measures a payload of ``media`` image or video.
    ``decode`` uses the decoders in ``decoders``, or else the one that ``choices`` gives for the
    payload's signature with PyAV behind it; ``repeats`` decodes again and reports the best seconds.
    """
    nothing = memoryview(b"")
    try:
        if request["verb"] == "probe":
            probe = probe_picture if request["media"] == "image" else probe_video
            return {"probe": probe(payload)}, nothing
        if request["verb"] == "frames_at":
            frames = frames_at(request["decoder"], payload, request["indices"])
            return {"shape": frames.shape}, np.ascontiguousarray(frames).data.cast("B")
    except DECODE_FAILURES as error:
        return {"reasons": [f"{type(error).__name__}: {error}"[:300]]}, nothing
    return decode_as_asked(request, payload)


def decode_as_asked(request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], memoryview]:
    """Carry out a ``decode`` request."""
    expected = tuple(request["expected"]) if request["expected"] else None
    kind = ""
    names, part = request.get("decoders"), request.get("part")
    if names is None:
        with suppress(ValueError):  # PyAV will say what is wrong with it
            kind = signature(payload)
        choice = request["choices"].get(kind, "pyav")
        names = [choice, "pyav"] if choice != "pyav" else ["pyav"]
    best, spent, repeats = float("inf"), 0.0, request.get("repeats", 1)
    while True:
        started = time.perf_counter()
        frames, name, reasons = decode_by_first(payload, names, expected, part)
        seconds = time.perf_counter() - started
        best, spent, repeats = min(best, seconds), spent + seconds, repeats - 1
        if frames is None:
            return {"reasons": reasons, "signature": kind}, memoryview(b"")
        if repeats <= 0 or spent > REPEAT_SECONDS:
            break
    head: dict[str, Any] = {"decoder": name, "reasons": reasons, "signature": kind}
    head |= {"shape": frames.shape, "seconds": best}
    return head, np.ascontiguousarray(frames).data.cast("B")


class ChildFailure(Exception):
    """A child crashed or ran out of time; it has been killed."""


class DecoderChild:
    """One decoder process and the socket to it. Used by one thread at a time.

    ``decoders`` are imported before it is ready; ``decoder_bytes`` is what it may allocate beyond
    its libraries and a few copies of the clip.
    """

    def __init__(
        self, decoders: Sequence[str] = ("decord",), decoder_bytes: int = DECODER_BYTES
    ) -> None:
        self.channel, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        with theirs:
            # A plain subprocess: multiprocessing's spawn would import the parent's main module,
            # and with it torch and DeepSpeed.
            imports = [IMPORTS[name] for name in decoders if name in IMPORTS]
            arguments = [str(theirs.fileno()), str(decoder_bytes), "av", *imports]
            with deaf_children():
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "data.decode.child", *arguments],
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
            frames = np.empty(head["shape"], np.uint8)
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


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
