"""List the files of an input: a folder, a list, tars. Nothing is ever unpacked by name."""

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.dataset.shards import TAR_FAILURES
from data.dataset.tars import open_tar
from data.engine.source import Notes
from data.ingest.sidecar import LICENCE_NAME, SIDECARS
from data.media.reject import Reject, printable, unreadable

COMPRESSED_TARS = (".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class Entry:
    """A file found in an input: its name there, where its bytes lie, its last change in ns."""

    name: str
    path: Path
    offset: int
    nbytes: int
    stamp: int

    def read(self, most: int) -> bytes:
        """Return at most ``most`` bytes."""
        with open(self.path, "rb") as stream:
            stream.seek(self.offset)
            return stream.read(min(most, self.nbytes))


def find_entries(path: Path, notes: Notes) -> list[Entry]:
    """List the files of an input in a stable order; what may not be read goes to ``notes``.

    Raises ValueError if the input itself does not exist or cannot be read.
    """
    try:
        found = find_files(path, notes)
    except OSError as error:
        raise ValueError(
            f"input={path}: cannot be read ({error.strerror}). Make it readable."
        ) from error
    entries: list[Entry] = []
    for name, file in found:
        try:
            entries += entries_of(name, file, notes)
        except Reject as error:
            notes.reject(name, error)
    return entries


def find_files(path: Path, notes: Notes) -> list[tuple[str, Path]]:
    """Return (name, path) of what an input lists, of whatever kind, with the sidecars beside it."""
    if not path.exists():
        raise ValueError(f"input={path}: does not exist. Give a folder, a .txt list or a .tar.")
    if path.is_dir():
        return files_below(path, notes)
    if path.suffix != ".txt" or not path.is_file():
        return with_sidecars([(path.name, path)])
    # A name is bytes: a line that is no UTF-8 still names its file, which is then refused by name.
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    lines = [line.strip() for line in text.splitlines()]
    return with_sidecars([(line, path.parent / line) for line in lines if line and line[0] != "#"])


def files_below(folder: Path, notes: Notes) -> list[tuple[str, Path]]:
    """Return (name, path) of all but folders in a folder; refuse links and what does not list."""
    found: list[Path] = []

    def note(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise error
        notes.reject(str(Path(error.filename).relative_to(folder)), unreadable(error))

    for here, folders, files in os.walk(folder, onerror=note):
        inside = [Path(here, name) for name in (*folders, *files)]
        for link in (one for one in inside if one.is_symlink()):
            bad = Reject("is a link", "Put the file itself into the folder.")
            notes.reject(str(link.relative_to(folder)), bad)
        found += [one for one in inside[len(folders) :] if not one.is_symlink()]
    return [(str(file.relative_to(folder)), file) for file in sorted(found)]


def entries_of(name: str, file: Path, notes: Notes) -> Iterable[Entry]:
    """Return a file as an entry, or the entries of a tar. Raises Reject where it is none."""
    check_name(name)
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in it
        raise Reject("does not exist", "Correct the list.") from error
    except OSError as error:
        raise unreadable(error) from error
    if stat.S_ISDIR(status.st_mode):
        raise Reject("is a folder", "List the files in it.")
    if not stat.S_ISREG(status.st_mode):
        raise Reject("is a pipe, socket or device", "Give a plain file.")
    if name.lower().endswith(COMPRESSED_TARS):
        raise Reject("is a compressed tar", "Decompress it to a plain .tar.")
    if file.suffix == ".tar":
        return tar_entries(name, file, status.st_mtime_ns, notes)
    return [Entry(name, file, 0, status.st_size, status.st_mtime_ns)]


def check_name(name: str) -> None:
    """Raise Reject for a name that no text file and no console could repeat."""
    if printable(name) != name:
        raise Reject("its name is not UTF-8", "Rename it.")


def with_sidecars(found: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Add the sidecars that lie beside listed files and the licences of their folders.

    Also those that are no plain files, so that they are refused by name.
    """
    listed = dict(found)
    for name, file in found:
        if not PurePosixPath(name).name or not file.name:
            continue  # a line such as . or /
        for suffix in SIDECARS:
            beside = file.with_suffix(suffix)
            if os.path.lexists(beside):
                listed.setdefault(str(PurePosixPath(name).with_suffix(suffix)), beside)
        licence = file.parent / LICENCE_NAME
        if os.path.lexists(licence):
            listed.setdefault(str(PurePosixPath(name).parent / LICENCE_NAME), licence)
    return list(listed.items())


def tar_entries(name: str, path: Path, stamp: int, notes: Notes) -> Iterator[Entry]:
    """Yield the regular members of an uncompressed tar, without unpacking; refuse the others."""
    try:
        with open_tar(path) as tar:
            for member in tar:
                full = f"{name}/{member.name}"
                try:
                    if is_plain_member(member):
                        yield Entry(full, path, member.offset_data, member.size, stamp)
                except Reject as bad:
                    notes.reject(full, bad)
    except TAR_FAILURES as error:
        notes.reject(name, Reject(f"is no whole tar: {error}", "Decompress it or copy it again."))


def is_plain_member(member: tarfile.TarInfo) -> bool:
    """Say whether a tar member is a file, not a folder. Raises Reject for all else."""
    inside = PurePosixPath(member.name)
    check_name(member.name)
    if inside.is_absolute() or ".." in inside.parts:
        raise Reject("its name leaves the archive", "Rename the member.")
    if member.isdir():
        return False
    if not member.isreg() or member.issparse():
        raise Reject("is a link or device in an archive", "Store a plain file.")
    return True
