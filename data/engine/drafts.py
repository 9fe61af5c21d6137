"""What one source gave, before it is in a part: an interrupt loses at most one source's work.

A draft is ``NAME.bin`` (payloads) and ``NAME.jsonl`` (a line for each sample, then one of notes).
The latter grows as ``NAME.tmp`` and is renamed last, so that what a killed child had finished is
not lost; the payloads are on disk before it. A draft that an earlier attempt left counts only if
its payloads are those that its lines say, else it is built again.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from data.config import IngestConfig
from data.engine.settings import FINDERS
from data.engine.source import Notes, Sample, Source
from data.files import publish, sync
from data.media.film import Account
from data.media.reject import Reject
from data.words import counted

NOT_READ = "not_read"  # why frames after the last clip of a killed child are in no clip
PULSE_SECONDS = 1.0


@dataclass(frozen=True)
class Draft:
    """One source to be built into a folder; ``attempt`` parts those who build it at once."""

    folder: Path
    source: Source
    id: str
    config: IngestConfig
    attempt: str = ""

    @property
    def stem(self) -> Path:
        """Path of the draft's files, without suffix."""
        return self.folder / self.id

    @property
    def growing(self) -> Path:
        """Path of the files while they are written, without suffix."""
        return (
            self.stem.with_name(f"{self.stem.name}-{self.attempt}") if self.attempt else self.stem
        )


def build_draft(draft: Draft) -> int:
    """Write one draft; return its number of samples. Runs in a child process."""
    cv2.setNumThreads(1)  # the children share the cores already
    notes = Notes(on_frame=Pulse(draft.growing.with_suffix(".tmp")))
    count = 0
    with (
        open(draft.growing.with_suffix(".bin"), "wb") as payloads,
        open(draft.growing.with_suffix(".tmp"), "wb") as lines,
    ):
        try:
            for sample in draft.source.samples(draft.config, notes):
                line = line_of(sample, payloads.tell())
                payloads.write(sample.payload)
                payloads.flush()
                lines.write(as_line(line))  # after its payload: a line says that it is all there
                lines.flush()
                count += 1
        except Reject as error:
            notes.reject(draft.source.name, error)
            if count:
                notes.warnings.append(
                    f"{draft.source.name}: kept the first {counted(count, 'clip')}"
                )
        lines.write(as_line(notes.to_json()))
    finish(draft)
    return count


class Pulse:
    """Shows in the time of a file's last change that its child is not standing still."""

    def __init__(self, path: Path) -> None:
        self.path, self.last = path, time.monotonic()

    def __call__(self) -> None:
        """Show it, once a second at most."""
        if time.monotonic() - self.last > PULSE_SECONDS:
            self.last = time.monotonic()
            os.utime(self.path)


def last_pulse(draft: Draft) -> float:
    """Return when a draft's child last showed that it is at work, in seconds of the epoch."""
    try:
        return draft.growing.with_suffix(".tmp").stat().st_mtime
    except OSError:
        return 0.0


def finish(draft: Draft) -> None:
    """Name a draft's lines, once they and the payloads that they speak of outlast a power cut."""
    payloads = draft.growing.with_suffix(".bin")
    payloads.touch()  # a child may have died before it had any
    sync(payloads)
    if draft.attempt:
        os.replace(payloads, draft.stem.with_suffix(".bin"))
    publish(draft.growing.with_suffix(".tmp"), draft.stem.with_suffix(".jsonl"))


def line_of(sample: Sample, offset: int) -> dict[str, Any]:
    """Return what a draft's list says of a sample whose payload starts at ``offset``."""
    return {
        "meta": sample.meta,
        "extension": sample.extension,
        "truth": sample.truth,
        "fingerprint": sample.fingerprint,
        "offset": offset,
        "nbytes": len(sample.payload),
        "sha256": hashlib.sha256(sample.payload).hexdigest(),
    }


def as_line(value: dict[str, Any]) -> bytes:
    """Return a value as one line of JSON."""
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def finish_dead(draft: Draft, death: str) -> int:
    """Finish the draft of a child that died with the samples it had; return how many.

    Of a film the account is made up from its clips: the other frames that it promised count as not
    read, and its shots are not known.
    """
    notes = Notes()
    notes.reject(draft.source.name, Reject(death, "Raise timeout_seconds, or re-encode the file."))
    found = draft.growing.with_suffix(".tmp")
    whole = found.read_bytes().split(b"\n")[:-1] if found.exists() else []
    lines = [
        line for line in map(json.loads, whole) if "meta" in line
    ]  # it may have died finishing
    if lines:
        notes.warnings.append(f"{draft.source.name}: kept the first {counted(len(lines), 'clip')}")
        meta = lines[-1]["meta"]
        if meta["media"] == "video" and "start_frame" in meta["original"]:
            used = sum(line["meta"]["num_frames"] for line in lines)
            expected = max(meta["original"]["num_frames"], used)
            dropped = Counter({NOT_READ: expected - used})
            pixels = meta["original"]["height"] * meta["original"]["width"]
            account = Account(
                *(draft.source.name, meta["licence"], meta["fps"], pixels, expected, used),
                dropped=dropped,
            )
            notes.films.append(account.to_json())
    found.write_bytes(b"".join(map(as_line, [*lines, notes.to_json()])))
    finish(draft)
    return len(lines)


def read_draft(draft: Draft) -> tuple[Notes, list[dict[str, Any]]]:
    """Read the notes and the sample lines of a finished draft."""
    with open(draft.stem.with_suffix(".jsonl"), encoding="utf-8") as stream:
        *lines, last = (json.loads(line) for line in stream)
    return Notes(**last), lines


def payloads_of(draft: Draft, lines: list[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the payloads of a finished draft, in the order of its lines.

    Raises ValueError at one whose size or digest is not what its line says; nothing of the draft is
    left then, so that the next attempt builds it anew.
    """
    with open(draft.stem.with_suffix(".bin"), "rb") as stream:
        for line in lines:
            payload = stream.read(line["nbytes"])
            if hashlib.sha256(payload).hexdigest() != line["sha256"]:
                drop_draft(draft)
                raise ValueError(
                    f"part={draft.source.name}: its payloads changed after they were written. "
                    "Check the disk and run the same command again: only this part is built anew."
                )
            yield payload


def drop_draft(draft: Draft) -> None:
    """Remove the files of a draft."""
    for suffix in (".jsonl", ".tmp", ".bin"):
        draft.stem.with_suffix(suffix).unlink(missing_ok=True)


def is_whole_draft(draft: Draft) -> bool:
    """Say whether a finished draft is there; remove one that lost or changed bytes since."""
    if not draft.stem.with_suffix(".jsonl").exists():
        return False
    try:
        _, lines = read_draft(draft)
        for _ in payloads_of(draft, lines):
            pass
    except (ValueError, LookupError, TypeError, OSError):  # no lines of a draft, or none of ours
        drop_draft(draft)
        return False
    return True


def digest_of(values: Any) -> str:
    """Return a short digest of a JSON-like value."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def source_ids(sources: Sequence[Source], config: IngestConfig) -> list[str]:
    """Return for each source a digest of all that decides which samples it gives."""
    cut = digest_of({k: v for k, v in asdict(config).items() if k not in FINDERS})
    return [digest_of([cut, repr(source)]) for source in sources]
