"""Lists of checksums as sha256sum, sha512sum, sha1sum, md5sum (and ``--tag``) write them.

Damage that decoding does not see is in the bytes all the same. Who made the files knows what they
were: ``checksums=FILE`` holds them to it.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from data.engine.source import Notes
from data.ingest.inputs import Entry
from data.ingest.sidecar import SIDECARS
from data.media.reject import Reject, printable, unreadable
from data.words import counted

# Named by the length of their digests in hexadecimal.
ALGORITHMS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}
PLAIN = re.compile(r"(\\?)([0-9a-fA-F]{32,128}) [ *](.+)")
TAGGED = re.compile(r"(\\?)[A-Za-z0-9-]+ ?\((.+)\) ?= ([0-9a-fA-F]{32,128})")
# Read before films are, and so compared before.
READ_AT_ONCE = {*SIDECARS, ".tar", ".csv", ".tsv", ".jsonl", ".parquet"}
MOST_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Checksums:
    """What a list, a file, says: digests by the absolute paths of files."""

    path: Path
    digests: dict[str, str]

    def of(self, path: Path) -> str:
        """Return the digest of a file, empty where the list does not name it."""
        return self.digests.get(os.path.abspath(path), "")

    def checked(self, entries: Sequence[Entry], notes: Notes) -> list[Entry]:
        """Return the entries of an input without the list itself, and without what differs from it.

        Films and pictures are read once more, by who cuts them: here only tars and the words
        beside films are compared. Files that are listed and not there go to the rejects.
        """
        own = os.path.abspath(self.path)
        kept: list[Entry] = []
        verdicts: dict[Path, Reject | None] = {}
        for entry in entries:
            if os.path.abspath(entry.path) == own:
                continue
            if entry.path.suffix.lower() not in READ_AT_ONCE:
                kept.append(entry)
                continue
            if entry.path not in verdicts:
                verdicts[entry.path] = self.verdict(entry.path)
                if bad := verdicts[entry.path]:
                    tar = entry.path.suffix.lower() == ".tar"
                    notes.reject(str(entry.path.name) if tar else entry.name, bad)
            if verdicts[entry.path] is None:
                kept.append(entry)
        found = {os.path.abspath(path) for path in {entry.path for entry in entries}}
        for path in sorted(self.digests.keys() - found - {own}):
            bad = Reject(f"is in {self.path.name} and not in the input", "Get the file.")
            notes.reject(os.path.relpath(path, self.path.parent), bad)
        unsure = found - self.digests.keys() - {own}
        if unsure:
            notes.warnings.append(
                f"{self.path.name}: names no checksum of {counted(len(unsure), 'file')}, "
                f"such as {printable(os.path.basename(min(unsure)))}"
            )
        return kept

    def verdict(self, path: Path) -> Reject | None:
        """Return why a file differs from the list, None where it does not."""
        try:
            with open(path, "rb") as stream:
                check_digest(stream, self.of(path))
        except Reject as bad:
            return bad
        except OSError as error:
            return unreadable(error)
        return None


def read_checksums(value: str, folder: Path) -> Checksums | None:
    """Read the list of a config, None where it names none.

    ``value`` is a path, or a name in ``folder``, the input. Names in a list are below its own
    folder. Raises ValueError where it cannot be read, or a line of it says no checksum.
    """
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_file() and (folder / value).is_file():
        path = folder / value
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise ValueError(
            f"checksums={value}: is no file of at most 1 GB. Give what sha256sum wrote."
        )
    digests: dict[str, str] = {}
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            text = line.rstrip("\r\n")
            if not text or text.startswith("#"):
                continue
            name, digest = entry_of(text)
            if len(digest) not in ALGORITHMS:
                raise ValueError(
                    f"checksums={value}: line {number} says no checksum and name. "
                    "Write it by sha256sum or md5sum."
                )
            digests[os.path.abspath(path.parent / name)] = digest.lower()
    return Checksums(path, digests)


def entry_of(line: str) -> tuple[str, str]:
    """Return (name, digest) of a line, empty where it is none."""
    if found := PLAIN.fullmatch(line):
        escaped, digest, name = found.groups()
    elif found := TAGGED.fullmatch(line):
        escaped, name, digest = found.groups()
    else:
        return "", ""
    if escaped:  # names with a backslash or a line's end in them
        name = re.sub(r"\\([\\nr])", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), name)
    return name, digest


def check_digest(stream: IO[bytes], digest: str) -> None:
    """Raise Reject where a file's bytes have another digest; leave the stream at its start."""
    if not digest:
        return
    name = ALGORITHMS[len(digest)]
    found = hashlib.new(name)
    while block := stream.read(1 << 20):
        found.update(block)
    stream.seek(0)
    if found.hexdigest() != digest:
        raise Reject(
            f"its {name} is {found.hexdigest()[:16]}..., not {digest[:16]}... as listed",
            "Get the file again, or correct the list.",
        )
