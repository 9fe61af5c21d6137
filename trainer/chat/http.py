"""Talking to a server that may be slow, greedy or hostile: pace, bounded answers, Retry-After."""

import threading
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

ANSWER_BYTES = 262_144  # of one HTTP answer: a caption is a few hundred bytes
LONGEST_RETRY_AFTER = 600.0


class Pace:
    """Let callers through one by one, at most so many a minute, and none before a held time."""

    def __init__(
        self,
        per_minute: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gap, self._clock, self.sleep = 60.0 / per_minute, clock, sleep
        self._next = clock()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is this caller's turn."""
        with self._lock:
            turn = max(self._next, self._clock())
            self._next = turn + self._gap
        self.sleep(max(0.0, turn - self._clock()))

    def hold(self, seconds: float) -> None:
        """Let nobody through for so long: the server asked for it."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)


class BoundedStream(httpx2.SyncByteStream):
    """An answer's bytes, at most so many and only until a deadline."""

    def __init__(self, stream: Any, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def __iter__(self) -> Iterator[bytes]:
        total = 0
        for chunk in self._stream:
            total += len(chunk)
            if total > ANSWER_BYTES:
                raise httpx2.ReadError(f"the answer is larger than {ANSWER_BYTES} bytes")
            if time.monotonic() > self._deadline:
                raise httpx2.ReadTimeout("the answer took too long")
            yield chunk

    def close(self) -> None:
        """Close the connection's stream."""
        self._stream.close()


class BoundedTransport(httpx2.HTTPTransport):
    """Plain transport that refuses large, slow and compressed answers."""

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__()
        self._seconds = timeout_seconds

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the answer's bytes are bounded."""
        request.headers["Accept-Encoding"] = "identity"  # nothing to unpack, so no bombs
        deadline = time.monotonic() + self._seconds
        response = super().handle_request(request)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            response.close()
            raise httpx2.ReadError("the answer is compressed, which was not asked for")
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=BoundedStream(response.stream, deadline),
            extensions=response.extensions,
        )


def retry_after(value: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, bounded; None for other texts."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if seconds == seconds else None
