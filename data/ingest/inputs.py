"""List the files of an input: a folder, a list, tars. Nothing is ever unpacked by name."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.engine.source import Notes
from data.ingest.sidecar import LICENCE_NAME, SIDECARS
from data.media.reject import Reject

COMPRESSED_TARS = (".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class Entry:
    """A file found in an input: its name there, and where its bytes lie."""

    name: str
    path: Path
    offset: int
    nbytes: int

    def read(self, most: int) -> bytes:
        """Return at most ``most`` bytes."""
        with open(self.path, "rb") as stream:
            stream.seek(self.offset)
            return stream.read(min(most, self.nbytes))


def find_entries(path: Path, notes: Notes) -> list[Entry]:
    """List the files of an input in a stable order; what may not be followed goes to ``notes``."""
    if not path.exists():
        raise ValueError(f"input={path}: does not exist. Give a folder, a .txt list or a .tar.")
    if path.is_dir():
        found = []
        for file in sorted(path.rglob("*")):
            if file.is_symlink():
                link = Reject("is a link", "Put the file itself into the folder.")
                notes.reject(str(file.relative_to(path)), link)
            elif file.is_file():
                found.append((str(file.relative_to(path)), file))
    elif path.suffix == ".txt":
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found = [(line, path.parent / line) for line in lines if line and line[0] != "#"]
        found = with_sidecars(found)
    else:
        found = with_sidecars([(path.name, path)])
    entries: list[Entry] = []
    for name, file in found:
        if not file.is_file():
            notes.reject(name, Reject("does not exist", "Correct the list."))
        elif name.lower().endswith(COMPRESSED_TARS):
            notes.reject(name, Reject("is a compressed tar", "Decompress it to a plain .tar."))
        elif file.suffix == ".tar":
            entries += tar_entries(name, file, notes)
        else:
            entries.append(Entry(name, file, 0, file.stat().st_size))
    return entries


def with_sidecars(found: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Add the sidecars that lie beside listed files and the licences of their folders."""
    listed = dict(found)
    for name, file in found:
        for suffix in SIDECARS:
            beside = file.with_suffix(suffix)
            if beside.is_file():
                listed.setdefault(str(PurePosixPath(name).with_suffix(suffix)), beside)
        licence = file.parent / LICENCE_NAME
        if licence.is_file():
            listed.setdefault(str(PurePosixPath(name).parent / LICENCE_NAME), licence)
    return list(listed.items())


def tar_entries(name: str, path: Path, notes: Notes) -> Iterator[Entry]:
    """Yield the regular members of an uncompressed tar, without unpacking; refuse the others."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                inside = PurePosixPath(member.name)
                if inside.is_absolute() or ".." in inside.parts:
                    bad = Reject("its name leaves the archive", "Rename the member.")
                elif member.isdir():
                    continue
                elif not member.isreg() or member.issparse():
                    bad = Reject("is a link or device in an archive", "Store a plain file.")
                else:
                    full = f"{name}/{member.name}"
                    yield Entry(full, path, member.offset_data, member.size)
                    continue
                notes.reject(f"{name}/{member.name}", bad)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        notes.reject(name, Reject(f"is no whole tar: {error}", "Decompress it or copy it again."))
