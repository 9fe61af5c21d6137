"""Every caption as soon as it is written: files of JSON lines beside the new data set.

Each process writes one of its own, ``captions.jsonl`` or ``captions-NAME.jsonl``, and reads all.

A line holds what was described (split, key, sha256 of the payload), by whom (a digest of the
captioner or of the endpoint's model and prompt), and the caption or why there is none. Nothing is
ever removed: a failure stays in the file when a later attempt succeeds.
"""

import fcntl
import json
import logging
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from data.dataset.sample import SampleInfo

NAME = "captions.jsonl"
log = logging.getLogger("trainer")


@dataclass(frozen=True)
class Entry:
    """One line. ``error`` is empty where there is a caption; tokens are those that were paid."""

    split: str
    key: str
    sha256: str
    by: str
    caption: str = ""
    short_caption: str = ""
    logprob: float | None = None
    error: str = ""
    attempts: int = 1
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What a caption answers: the same question is not asked twice."""
        return self.split, self.key, self.sha256, self.by


class Journal:
    """The open journal of one process; another process that opens it is refused.

    name: tells it from those of other processes at work on the same data set.
    Raises ValueError if it is open elsewhere. A last line that a crash cut short is ignored.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / (f"captions-{name}.jsonl" if name else NAME)
        self._stream = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115 - closed by close
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._stream.close()
            raise ValueError(
                f"out={folder}: another process writes captions there. Wait for it, or stop it."
            ) from error
        self._lock = threading.Lock()
        self._end_last_line()
        self.entries = self.read_all()

    def _end_last_line(self) -> None:
        """Keep a line that a crash cut short apart from the next one."""
        self._stream.seek(0)
        text = self._stream.read()
        if text and not text.endswith("\n"):
            self._stream.write("\n")
            self._stream.flush()

    def read_all(self) -> list[Entry]:
        """Return the entries of all journals of the folder, those of other processes, too."""
        entries = []
        for path in sorted(self.path.parent.glob("captions*.jsonl")):
            text = path.read_text(encoding="utf-8")
            for number, line in enumerate(text.splitlines(), 1):
                try:
                    entries.append(parse_entry(json.loads(line)))
                except (ValueError, TypeError) as error:
                    log.warning("%s:%d: ignored (%s)", path, number, error)
        return entries

    def add(self, entry: Entry) -> None:
        """Append a line; it is on the disk when this returns."""
        with self._lock:
            self._stream.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self.entries.append(entry)

    def answers(self, by: str) -> dict[tuple[str, str, str, str], Entry]:
        """Return the captions that ``by`` wrote; of several for one sample the last."""
        return {e.name: e for e in self.entries if e.by == by and not e.error}

    def tokens(self, by: str) -> tuple[int, int]:
        """Return the tokens (in, out) paid for ``by``, failed attempts included."""
        mine = [entry for entry in self.entries if entry.by == by]
        return sum(e.tokens_in for e in mine), sum(e.tokens_out for e in mine)

    def close(self) -> None:
        """Close the file and let others open it."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def parse_entry(values: Any) -> Entry:
    """Build an entry from a decoded line; raise ValueError where it is none."""
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    entry = Entry(**values)
    texts = (entry.split, entry.key, entry.sha256, entry.by, entry.caption, entry.short_caption)
    if not all(isinstance(text, str) for text in (*texts, entry.error)):
        raise ValueError("texts must be texts")
    return entry


def entry_of(split: str, info: SampleInfo, by: str, **values: Any) -> Entry:
    """Build the entry of a sample."""
    return Entry(split=split, key=info.key, sha256=info.sha256, by=by, **values)
