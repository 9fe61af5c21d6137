"""Write samples into webdataset tars, one after another, each appearing whole or not.

They are written with tarfile: importing webdataset imports torch, 3 processor seconds before the
first sample.
"""

import dataclasses
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from data.dataset.sample import SampleInfo, is_key
from data.files import publish

TAR_BLOCK_BYTES = 512
OWNER = "bigdata"  # as webdataset's writer names it
TRUTH_EXTENSION = "truth.json"
# Where a sample's bytes lie: in the index only, since a tar does not know it while it is written.
LOCATIONS = ("shard", "offset", "nbytes", "truth_offset", "truth_nbytes")


class HashedFile:
    """A file that is written from begin to end, with the SHA-256 of what was."""

    def __init__(self, path: Path) -> None:
        self.path, self.nbytes, self.digest = path, 0, hashlib.sha256()
        self._stream: IO[bytes] = open(path, "wb")  # noqa: SIM115 - closed by close

    def write(self, content: bytes) -> int:
        """Append bytes."""
        self.digest.update(content)
        self.nbytes += len(content)
        return self._stream.write(content)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class TarWriter:
    """Write samples into tars of a folder; a tar is closed once it is over ``shard_bytes``.

    ``name_of(number, sha256)`` names a tar, where its SHA-256 is empty until it is closed. infos:
    where each sample lies. shards: SHA-256 and bytes of each tar that is closed.
    """

    def __init__(
        self, folder: Path, shard_bytes: int, name_of: Callable[[int, str], str], attempt: str = ""
    ) -> None:
        if shard_bytes < 1:
            raise ValueError(f"shard_bytes={shard_bytes}: must be at least 1. Use 32000000.")
        self.folder, self.shard_bytes, self.name_of = folder, shard_bytes, name_of
        self.suffix = f".{attempt}.tmp" if attempt else ".tmp"
        self.infos: list[SampleInfo] = []
        self.shards: dict[str, dict[str, Any]] = {}
        self._keys: set[str] = set()
        self._first = 0  # of the samples in the open tar
        self._file: HashedFile | None = None
        self._tar: tarfile.TarFile | None = None

    def write(
        self,
        meta: dict[str, Any],
        payload: bytes,
        extension: str,
        truth: dict[str, Any] | None = None,
    ) -> SampleInfo:
        """Append one sample and return where it lies.

        ``meta`` holds the fields of :class:`SampleInfo` except ``sha256`` and where things lie,
        which are worked out here; ``extension`` is mp4, png or safetensors; ``truth`` is what a
        simulator knows, in JSON types.
        Raises ValueError on an unusable or repeated key and on values out of range; then nothing
        was written.
        """
        if not is_key(extension.replace(".", "_")) or extension == "json":
            raise ValueError(f"extension={extension!r}: must name the payload. Use mp4 or png.")
        key = meta.get("key")
        if key in self._keys:
            raise ValueError(f"key={key!r}: is already in this split. Make keys unique.")
        located = {
            "sha256": hashlib.sha256(payload).hexdigest(),
            "shard": self.name_of(len(self.shards), ""),
            "offset": 0,
            "nbytes": len(payload),
            "truth_offset": 0,
            "truth_nbytes": 0,
        }
        info = SampleInfo.from_json({**meta, **located})
        known = b"" if truth is None else json.dumps(truth, ensure_ascii=False).encode()
        if self._tar is None:
            self._open()
        stored = {k: v for k, v in info.to_json().items() if k not in LOCATIONS}
        self._append(info.key, "json", json.dumps(stored, ensure_ascii=False).encode())
        if known:
            place = self._append(info.key, TRUTH_EXTENSION, known)
            info = dataclasses.replace(info, truth_offset=place, truth_nbytes=len(known))
        info = dataclasses.replace(info, offset=self._append(info.key, extension, payload))
        end = self._end()
        self.infos.append(info)
        self._keys.add(info.key)
        if end > self.shard_bytes:
            self.close()
        return info

    def _append(self, key: str, extension: str, content: bytes) -> int:
        """Write one tar member; return where its content lies, counted back from its end."""
        assert self._tar is not None
        member = tarfile.TarInfo(f"{key}.{extension}")
        member.size, member.mtime, member.mode = len(content), 0, 0o444
        member.uname = member.gname = OWNER
        self._tar.addfile(member, io.BytesIO(content))
        padded = -(-len(content) // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES
        return self._end() - padded

    def _end(self) -> int:
        """Return how many bytes of the open tar are written."""
        assert self._tar is not None
        return int(self._tar.offset)

    def _open(self) -> None:
        number = len(self.shards)
        path = self.folder / (self.name_of(number, "") + self.suffix)
        self._file, self._first = HashedFile(path), len(self.infos)
        self._tar = tarfile.open(fileobj=self._file, mode="w|")  # type: ignore[call-overload]  # noqa: SIM115 - closed by close or abort

    def close(self) -> None:
        """Finish the open tar, if there is one, and give it its name."""
        if self._file is None or self._tar is None:
            return
        self._tar.close()
        self._file.close()
        digest = self._file.digest.hexdigest()
        name = self.name_of(len(self.shards), digest)
        publish(self._file.path, self.folder / name)
        self.shards[name] = {"sha256": digest, "nbytes": self._file.nbytes}
        rest = self.infos[self._first :]
        self.infos[self._first :] = [dataclasses.replace(info, shard=name) for info in rest]
        self._file = self._tar = None

    def abort(self) -> None:
        """Drop the open tar."""
        if self._file is not None and self._tar is not None:
            with suppress(OSError):  # a full disk, say: what is left unwritten goes anyway
                self._tar.close()
            with suppress(OSError):
                self._file.close()
            self._file.path.unlink(missing_ok=True)
        self._file = self._tar = None
