"""What ingest reads from and hands on: a source of samples, a sample, and notes for the owner."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from data.config import IngestConfig
from data.media.reject import Reject, printable


@dataclass
class Sample:
    """One sample on its way into a shard: metadata, payload bytes and the payload's extension.

    ``truth`` is what a simulator knows of it, in JSON types; ``fingerprint`` is for the search of
    near-duplicates (data/engine/duplicates.py), which leaves samples without one alone.
    """

    meta: dict[str, Any]
    payload: bytes
    extension: str
    truth: dict[str, Any] | None = None
    fingerprint: str = ""


@dataclass
class Notes:
    """What a source's owner should hear: things left out, and things worth a look.

    ``films`` tells what became of every frame of a film (``data.media.film.Account``). A source
    that reads for long calls ``on_frame`` meanwhile: one that does not counts as standing still.
    """

    rejects: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    films: list[dict[str, Any]] = field(default_factory=list)
    on_frame: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return what is noted."""
        return {"rejects": self.rejects, "warnings": self.warnings, "films": self.films}

    def add(self, other: "Notes") -> None:
        """Join what another says."""
        self.rejects += other.rejects
        self.warnings += other.warnings
        self.films += other.films

    def reject(self, file: str, error: Reject) -> None:
        """List something that is left out; its name may be any bytes."""
        self.rejects.append({"file": printable(file), **error.to_json()})


class Source(Protocol):
    """Anything that yields samples in a child process: a media file, a world's seeds."""

    @property
    def name(self) -> str:
        """Unique and stable; the part's file name derives from it."""

    @property
    def split(self) -> str:
        """The split that all samples of this source go to."""

    @property
    def weight(self) -> float:
        """Expected work, for the progress bar."""

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Yield the samples; raise Reject to leave the source out."""
