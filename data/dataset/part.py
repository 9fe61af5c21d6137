"""A part: some samples of a split in shards of their own, and a piece of the index. It is final.

    SPLIT/shard-000012-5f0c….tar     number of the part, then of the tar's own SHA-256
    SPLIT/part-000012-9ab1….jsonl    head, then one line a sample: its entry of the index, and more

The head tells what the part was made of (``made_of``, digests), its shards with sizes and digests,
whatever else its maker has to say (``said``), and the digest of the lines. The piece is named after
what the part is made of, is written last, and names tars by what they hold: two who build one part
write no file twice, and what one of them wrote stays what the piece of the other says.
"""

import hashlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from data.dataset.sample import SampleInfo
from data.dataset.shards import (
    MANIFEST_NAME,
    WRITING_NAME,
    digest_of,
    read_manifest,
    write_index,
    write_manifest,
)
from data.dataset.tar_writer import TarWriter
from data.files import publish

PIECES = "part-*.jsonl"
SHARD = re.compile(r"shard-\d{6,}-[0-9a-f]{16}(-\d+)?\.tar")  # of a part
FORGOTTEN_SECONDS = 86400.0
ID_DIGITS = 16


@dataclass(frozen=True)
class PartName:
    """Where a part lies: its split, its number and a digest of all that it is made of."""

    split: str
    number: int
    id: str

    def piece(self, root: Path) -> Path:
        """Return the path of its piece of the index."""
        return root / self.split / f"part-{self.number:06d}-{self.id}.jsonl"


@dataclass(frozen=True)
class Piece:
    """What a piece says: the head's values, and a line a sample."""

    path: Path
    made_of: list[str]
    shards: dict[str, dict[str, Any]]
    said: dict[str, Any]
    infos: list[SampleInfo] = field(default_factory=list)
    extra: list[dict[str, Any]] = field(default_factory=list)

    @property
    def split(self) -> str:
        """The split that it is of."""
        return self.path.parent.name

    @property
    def number(self) -> int:
        """The number in its name."""
        return int(self.path.name.split("-")[1])

    def digests(self) -> dict[Path, dict[str, Any]]:
        """Return sizes and digests of its shards by path."""
        return {self.path.with_name(name): about for name, about in self.shards.items()}


class PartWriter:
    """Write a part. Leaving by an exception leaves nothing that counts.

    made_of: digests of what it holds, to tell whether it still is what is wanted.
    """

    def __init__(
        self, root: Path, name: PartName, made_of: Sequence[str], shard_bytes: int
    ) -> None:
        self.path, self.made_of = name.piece(root), list(made_of)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.extra: list[dict[str, Any]] = []
        self.said: dict[str, Any] = {}

        def name_of(number: int, sha256: str) -> str:
            more = f"-{number}" if number else ""
            return f"shard-{name.number:06d}-{sha256[:ID_DIGITS] or 'new'}{more}.tar"

        self._attempt = attempt_name()
        self._tars = TarWriter(self.path.parent, shard_bytes, name_of, self._attempt)

    def write(
        self,
        meta: dict[str, Any],
        payload: bytes,
        extension: str,
        truth: dict[str, Any] | None = None,
        **extra: Any,
    ) -> None:
        """Append one sample, as :meth:`TarWriter.write` does; ``extra`` joins its line alone."""
        self._tars.write(meta, payload, extension, truth)
        self.extra.append(extra)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        growing = self.path.with_name(f"{self.path.name}.{self._attempt}.tmp")
        try:
            if error is None:
                self._tars.close()
                growing.write_bytes(self._content())
                publish(growing, self.path)
        finally:
            self._tars.abort()
            growing.unlink(missing_ok=True)

    def _content(self) -> bytes:
        pairs = zip(self._tars.infos, self.extra, strict=True)
        lines = b"".join(_line({**extra, "sample": info.to_json()}) for info, extra in pairs)
        head = {"made_of": self.made_of, "shards": self._tars.shards, "said": self.said}
        return _line({**head, "lines": hashlib.sha256(lines).hexdigest()}) + lines


def _line(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def attempt_name() -> str:
    """Return a name that no other process of any machine has: for files that are being written."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}".replace(".", "_")


def read_piece(path: Path, head_only: bool = False) -> Piece | None:
    """Return a piece, or its head; None where there is none or it is damaged."""
    try:
        with open(path, "rb") as stream:
            head = json.loads(stream.readline())
            piece = Piece(path, head["made_of"], head["shards"], head["said"])
            lines = b"" if head_only else stream.read()
        if not head_only and hashlib.sha256(lines).hexdigest() != head["lines"]:
            return None
        for line in lines.splitlines():
            extra = json.loads(line)
            piece.infos.append(SampleInfo.from_json(extra.pop("sample")))
            piece.extra.append(extra)
        return piece
    except (OSError, ValueError, LookupError, TypeError):
        return None


def is_whole(piece: Piece, by_digest: bool) -> bool:
    """Say whether the shards of a piece are there at their sizes, and ``by_digest`` unchanged."""
    for path, about in piece.digests().items():
        try:
            if path.stat().st_size != about["nbytes"]:
                return False
            if by_digest and digest_of(path) != about:
                return False
        except OSError:
            return False
    return True


def find_pieces(root: Path, manifest: dict[str, Any]) -> tuple[list[Piece], list[Path]]:
    """Return the heads of the parts of a manifest in the order of the index, and damaged ones."""
    found, damaged = [], []
    for split, held in manifest.get("parts", {}).items():
        for name, about in held.items():
            path = root / split / name
            piece = read_piece(path, head_only=True)
            if piece and digest_of(path) == about and is_whole(piece, by_digest=False):
                found.append(piece)
            else:
                damaged.append(path)
    return found, damaged


def numbers_there(root: Path, split: str) -> dict[str, int]:
    """Return the numbers of the parts that lie in a split, by what they are made of."""
    found = (path.stem.split("-") for path in (root / split).glob(PIECES))
    return {words[2]: int(words[1]) for words in found if len(words) == 3 and words[1].isdecimal()}


def index_pieces(
    root: Path,
    pieces: Sequence[Piece],
    infos: dict[str, list[SampleInfo]],
    manifest: dict[str, Any],
    sole: bool,
) -> None:
    """Make parts a dataset: write each split's index and the manifest, and copy no payload.

    infos: by split, in order. Until the manifest is there the dataset is the one before. What that
    one had and this one has not is removed then; ``sole``: also the parts of other settings.
    """
    before = read_manifest(root) if (root / MANIFEST_NAME).is_file() else {}
    parts: dict[str, dict[str, Any]] = {}
    digests: dict[Path, dict[str, Any]] = {}
    for piece in pieces:
        parts.setdefault(piece.split, {})[piece.path.name] = digest_of(piece.path)
        digests |= piece.digests()
    for split, members in infos.items():
        write_index(root / split, members)
    write_manifest(root, {**manifest, "parts": parts}, digests)
    tidy(root, before, {piece.path for piece in pieces}, set(infos), sole)


def tidy(
    root: Path, before: dict[str, Any], named: set[Path], splits: set[str], sole: bool
) -> None:
    """Remove what a dataset no longer holds: parts, shards, indexes, and what was left unfinished.

    before: the manifest until now. named: the pieces that stay.
    """
    old = {
        root / split / name
        for kind in ("parts", "shards")
        for split, held in before.get(kind, {}).items()
        for name in held
    }
    pieces = set(root.glob(f"*/{PIECES}"))
    staying = named if sole else named | (pieces - old)
    forgotten = {path for name in ("shard-*-*.tar", "*.tmp") for path in root.glob(f"*/{name}")
                 if is_forgotten(path)}  # fmt: skip
    gone = (pieces | old | _shards_of(pieces - staying) | forgotten) - staying - _shards_of(staying)
    for split in set(before.get("indexes", {})) - splits:
        gone |= {*(root / split).glob("index.*"), root / split / WRITING_NAME}
    for path in gone:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in gone if path.parent.is_dir()}:
        if not any(folder.iterdir()):
            folder.rmdir()


def _shards_of(paths: set[Path]) -> set[Path]:
    heads = (read_piece(path, head_only=True) for path in paths)
    return {path for head in heads if head for path in head.digests()}


def is_forgotten(path: Path) -> bool:
    """Say whether nobody writes a file any more: its process is gone, or it is a day old."""
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS:
            return True
    words = path.name.split(".")[-2].split("-") if path.suffix == ".tmp" else []
    here = socket.gethostname().replace(".", "_").split("-")
    if len(words) < 3 or words[:-2] != here or not words[-2].isdecimal():
        return False
    return not Path("/proc", words[-2]).exists()


def part_id(made_of: Sequence[str]) -> str:
    """Return what names a part: a digest of all that it is made of."""
    return hashlib.sha256(json.dumps(list(made_of)).encode()).hexdigest()[:ID_DIGITS]
