"""Leave an input out with a reason, and read it without trusting it."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any

import av.error
from PIL import Image


class Reject(ValueError):
    """An input, or a part of one, that is left out: why, and what its owner can do.

    Where a filter decided, ``filter`` names it, with the score and the threshold it missed.
    """

    def __init__(
        self, reason: str, remedy: str, filter: str = "", score: float = 0, threshold: float = 0
    ) -> None:
        super().__init__(f"{reason}. {remedy}")
        self.reason, self.remedy = reason, remedy
        self.filter, self.score, self.threshold = filter, score, threshold

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        said: dict[str, Any] = {"reason": self.reason, "remedy": self.remedy}
        if self.filter:
            said |= {"filter": self.filter, "score": self.score, "threshold": self.threshold}
        return said


def unreadable(error: OSError) -> Reject:
    """Return why a file that the system does not give is left out."""
    return Reject(f"cannot be read: {error.strerror or error}", "Make it readable, or remove it.")


def printable(name: str) -> str:
    """Return a name as text to print and store; bytes that are no UTF-8 as ``\\xe9``."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, from JSON
        return name.encode("utf-8", "backslashreplace").decode()


@contextmanager
def rejecting(action: str) -> Iterator[None]:
    """Turn what broken media raise into :class:`Reject`; a full disk stays an OSError."""
    try:
        yield
    except Reject:
        raise
    except MemoryError as error:
        raise Reject(f"{action} needs too much memory", "Scale the file down first.") from error
    except Image.DecompressionBombError as error:
        raise Reject(f"too large: {error}", "Scale it below max_pixels.") from error
    except (
        av.error.FFmpegError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        RuntimeError,
        TypeError,
        OSError,
        EOFError,
        SyntaxError,
        struct.error,
    ) as error:
        if isinstance(error, OSError) and error.errno == ENOSPC:
            raise
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        words = str(words).split("\n")[0][:120]
        raise Reject(
            f"{action} failed: {words}", "Damaged, truncated or no media: get it again."
        ) from error


class Window(io.RawIOBase):
    """A read-only view of a part of a file: a tar member, without unpacking it."""

    def __init__(self, path: Path, offset: int, nbytes: int) -> None:
        self.stream = open(path, "rb")  # noqa: SIM115 - closed by close()
        self.offset, self.nbytes, self.position = offset, nbytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        origin = (0, self.position, self.nbytes)[whence]
        self.position = max(0, origin + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self.nbytes - self.position))
        self.stream.seek(self.offset + self.position)
        data = self.stream.read(count)
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()
