"""Decode many samples in decoder processes that can be killed, each owned by one thread."""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from data.dataset.sample import SampleInfo
from data.decode.check import JUDGE, Choices, Verdict, judge, reader
from data.decode.child import DECODER_BYTES, IMPORTS, ChildFailure, DecoderChild
from data.decode.decoders import Shape, make_decoder

log = logging.getLogger(__name__)


class DecodeError(ValueError):
    """A sample that no decoder could read; carries the ``key`` and the ``reason``."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(
            f"key={key}: cannot be decoded ({reason}). "
            "Ingest it again, or set data.on_bad_sample=drop."
        )
        self.key = key
        self.reason = reason


@dataclass
class Decoded:
    """Frames (F, H, W, 3) uint8, the decoder that read them, and why earlier attempts failed."""

    frames: NDArray[np.uint8]
    decoder: str
    reasons: list[str]


class DecoderPool:
    """Decode samples in killable child processes, each owned by one thread.

    A payload met for the first time is read by the judge, PyAV, which refuses what is damaged. On
    later visits the first clips of every kind of file are also read by the other ``decoders``, and
    then the fastest that agreed with the judge on all of them reads, PyAV behind it
    (data/decode/check.py).
    A child that crashes, is killed, exceeds ``timeout_seconds`` or ``decoder_bytes`` beyond its
    libraries and the clip, is replaced and the sample is decoded once more, by PyAV. Frame count
    and size must equal those of the index, whose plan then cuts the clip in time. Images are
    decoded by Pillow, in the same children.
    With ``workers=0`` there are no children: for latents, which need none.

    Raises ValueError for a decoder that does not exist or is not installed.
    """

    def __init__(
        self,
        workers: int,
        timeout_seconds: float,
        decoders: Sequence[str] = ("decord",),
        decoder_bytes: int = DECODER_BYTES,
    ) -> None:
        if workers < 0 or timeout_seconds <= 0:
            raise ValueError(
                f"data.decode_workers={workers}, data.decode_timeout_seconds={timeout_seconds}: "
                "must be at least 0 and above 0. Use 1 and 20."
            )
        check_installed(decoders)
        self.timeout_seconds = timeout_seconds
        self.decoders = tuple(decoders)
        self.decoder_bytes = decoder_bytes
        self.choices = Choices()
        self._threads = ThreadPoolExecutor(workers, "decode") if workers else None
        self._local = threading.local()
        self._lock = threading.Lock()
        self._children: set[DecoderChild] = set()

    def submit(
        self, info: SampleInfo, payload: bytes, part: tuple[int, int] | None = None
    ) -> Future[Decoded]:
        """Start decoding; the future's result raises DecodeError where nothing could read it.

        part: first and last of the frames to keep; none keeps all. PyAV reads parts.
        """
        assert self._threads is not None
        return self._threads.submit(self.decode, info, payload, part)

    def decode_many(self, items: Iterable[tuple[SampleInfo, bytes]]) -> list[Decoded | DecodeError]:
        """Decode all, in the given order; a failure stands in the place of its sample."""
        results: list[Decoded | DecodeError] = []
        for future in [self.submit(info, payload) for info, payload in items]:
            try:
                results.append(future.result())
            except DecodeError as error:
                results.append(error)
        return results

    def decode(
        self, info: SampleInfo, payload: bytes, part: tuple[int, int] | None = None
    ) -> Decoded:
        """Decode one sample, or a part of it, in the calling thread. Raises DecodeError."""
        if info.media == "latent":
            raise DecodeError(info.key, "is a latent, not a clip")
        frames, name, reasons = self._decode_in_child(info, payload, part)
        if frames is None:
            raise DecodeError(info.key, "; ".join(reasons))
        if reasons:
            log.warning("%s: read by %s after: %s", info.key, name, "; ".join(reasons))
        return Decoded(frames[: info.num_frames], name, reasons)

    def probe(self, key: str, media: str, payload: bytes) -> dict[str, Any]:
        """Return ``num_frames, height, width, fps`` of a video or image. Raises DecodeError."""
        assert self._threads is not None
        request = {"verb": "probe", "media": media}
        try:
            head, _ = self._threads.submit(self._ask, request, payload).result()
        except ChildFailure as error:
            raise DecodeError(key, str(error)) from error
        if "probe" not in head:
            raise DecodeError(key, "; ".join(head["reasons"]))
        found: dict[str, Any] = head["probe"]
        return found

    def _decode_in_child(
        self, info: SampleInfo, payload: bytes, part: tuple[int, int] | None
    ) -> tuple[NDArray[np.uint8] | None, str, list[str]]:
        reasons: list[str] = []
        expected = info.payload_shape
        for how in [{"decoders": [JUDGE], "part": part}] * 2 if part else self._attempts(info):
            try:
                head, frames = self._ask({"verb": "decode", "expected": expected, **how}, payload)
            except ChildFailure as failure:
                reasons.append(str(failure))
                continue
            if frames is not None and info.media == "video" and part is None:
                self._learn(info.sha256, head, payload, expected)
            return frames, head.get("decoder", ""), reasons + head["reasons"]
        return None, "", reasons

    def _attempts(self, info: SampleInfo) -> list[dict[str, Any]]:
        """Return what to ask of a child, and what of another one if that child ends."""
        if info.media == "image":
            return [{"decoders": ["pillow"]}] * 2
        with self._lock:
            choices = self.choices.table() if self.choices.is_whole(info.sha256) else {}
        return [{"choices": table} for table in (choices, {})]

    def _learn(self, digest: str, head: dict[str, Any], payload: bytes, expected: Shape) -> None:
        """Remember a clip that was read; judge the other decoders on it if its kind is new."""
        kind = head["signature"]
        with self._lock:
            again = self.choices.is_whole(digest)
            self.choices.note_read(digest, head["seconds"])
            if not (again and head["decoder"] == JUDGE and self.choices.wants(kind)):
                return
        started = time.perf_counter()
        verdicts = judge(reader(self._ask, payload, expected), self.decoders)
        with self._lock:
            settled = self.choices.add(kind, verdicts, time.perf_counter() - started)
        if settled:
            log.info("decoder chosen: %s", settled)

    def judge(self, payload: bytes) -> list[Verdict]:
        """Return the judge's verdict on a payload, and then one for each of the decoders."""
        assert self._threads is not None
        return self._threads.submit(judge, reader(self._ask, payload), self.decoders).result()

    def _ask(
        self, request: dict[str, Any], payload: bytes
    ) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
        child: DecoderChild | None = getattr(self._local, "child", None)
        if child is not None and child.process.poll() is not None:
            self._forget(child)  # ended while it was idle, which says nothing of this payload
            child = None
        if child is None:
            child = self._local.child = DecoderChild(self.decoders, self.decoder_bytes)
            with self._lock:
                self._children.add(child)
        try:
            return child.ask(request, payload, self.timeout_seconds)
        except ChildFailure:
            self._forget(child)
            raise

    def _forget(self, child: DecoderChild) -> None:
        child.kill()
        self._local.child = None
        with self._lock:
            self._children.discard(child)

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


def check_installed(decoders: Sequence[str]) -> None:
    """Raise ValueError unless each decoder exists and its package is installed."""
    for name in decoders:
        make_decoder(name)
        if name in IMPORTS and find_spec(name) is None:
            raise ValueError(
                f"decoder={name}: its package is not installed. pip install {name}, or use pyav."
            )
