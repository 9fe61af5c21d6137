"""Read the table of a tar that anybody may have made, without trusting what its headers claim."""

import tarfile
from pathlib import Path

# Names end at a few thousand bytes. tarfile reads a header of names and times whole, into memory.
MAX_HEADER_BYTES = 1_000_000
EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


class BoundedHeader(tarfile.TarInfo):
    """A member whose extended header is refused, before it is read, where it is too large."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in EXTENDED and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"holds a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def open_tar(path: Path) -> tarfile.TarFile:
    """Open a plain tar for reading. What it raises, also later, is in ``TAR_FAILURES``."""
    return tarfile.open(path, "r:", tarinfo=BoundedHeader)
