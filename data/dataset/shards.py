"""Shards on disk: webdataset tars beside an index that says where each payload lies.

The tars stay plain webdataset, so any reader of that format can use them; the index lets this
project read any sample with one ``pread``, in any order, and verify it. They are written with
tarfile: importing webdataset imports torch, 3 processor seconds before the first sample.
"""

import dataclasses
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from data.dataset.columns import COLUMNS_NAME, ColumnBuilder
from data.dataset.sample import SampleInfo, is_file_name, is_key
from data.files import OpenFile, publish, replacing, write_text

INDEX_NAME = "index.jsonl"
MANIFEST_NAME = "manifest.json"
# Marks a split whose writer has not closed: its shards may be overwritten by the next attempt.
WRITING_NAME = ".writing"
TAR_BLOCK_BYTES = 512
MOST_OPEN = 256  # shards held open for reading, of the 1024 files that many systems allow
# Bytes of an index that is kept parsed, of 30,000 clips: all runs of a process read the same one.
# A larger one is read in columns.
MOST_KEPT = 1 << 24
# What a tar of other tools can make tarfile raise, which trusts its numbers and chains of headers.
TAR_FAILURES = (
    *(tarfile.TarError, OSError, ValueError, EOFError, ArithmeticError, LookupError),
    *(RecursionError, MemoryError),
)
OWNER = "bigdata"  # as webdataset's writer names it
TRUTH_EXTENSION = "truth.json"
# Where a sample's bytes lie: in the index only, since a tar does not know it while it is written.
LOCATIONS = ("shard", "offset", "nbytes", "truth_offset", "truth_nbytes")


class ShardWriter:
    """Write one split of a dataset: webdataset tars, then the index, each appearing whole or not.

    A shard is closed once it holds more than ``shard_bytes``. The same samples in the same order
    give the same bytes. Use it as a context manager: leaving by an exception removes the unfinished
    shard and writes no index, and the next writer on that split starts again.

    Raises ValueError if the split already holds shards that no interrupted writer left.
    """

    def __init__(self, root: Path, split: str, shard_bytes: int) -> None:
        if shard_bytes < 1:
            raise ValueError(f"shard_bytes={shard_bytes}: must be at least 1. Use 32000000.")
        if not is_file_name(split):
            raise ValueError(f"split={split!r}: must be a folder name. Use train or val_real.")
        self.folder = Path(root) / split
        self.shard_bytes = shard_bytes
        self.infos: list[SampleInfo] = []
        self._keys: set[str] = set()
        self._num_shards = 0
        self._stream: IO[bytes] | None = None
        self._tar: tarfile.TarFile | None = None
        self._prepare_folder()

    def _prepare_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        mark = self.folder / WRITING_NAME
        found = sorted(self.folder.glob("*.tar"))
        index = self.folder / INDEX_NAME
        if (found or index.exists()) and not mark.exists():
            raise ValueError(
                f"split={self.folder.name}: {self.folder} already holds {len(found)} shards. "
                "Delete that folder or write to another root."
            )
        mark.touch()
        for leftover in [*found, *self.folder.glob("*.tmp"), index]:
            leftover.unlink(missing_ok=True)

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
            "shard": f"shard-{self._num_shards:06d}.tar",
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
            self._close_shard()
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
        """Return how many bytes of the open shard are written."""
        assert self._tar is not None
        return int(self._tar.offset)

    def close(self) -> None:
        """Finish the last shard and write the index, atomically."""
        self._close_shard()
        write_index(self.folder, self.infos)
        (self.folder / WRITING_NAME).unlink(missing_ok=True)

    def abort(self) -> None:
        """Drop the unfinished shard and write no index."""
        if self._stream is not None and self._tar is not None:
            with suppress(OSError):  # a full disk, say: what is left unwritten goes anyway
                self._tar.close()
            self._stream.close()
            Path(self._stream.name).unlink(missing_ok=True)
        self._stream = self._tar = None

    def _open(self) -> None:
        path = self.folder / f"shard-{self._num_shards:06d}.tar.tmp"
        self._stream = open(path, "wb")  # noqa: SIM115 - closed by _close_shard or abort
        self._tar = tarfile.open(fileobj=self._stream, mode="w|")  # noqa: SIM115 - as above

    def _close_shard(self) -> None:
        if self._stream is None or self._tar is None:
            return
        self._tar.close()
        self._stream.close()
        publish(Path(self._stream.name), Path(self._stream.name.removesuffix(".tmp")))
        self._stream = self._tar = None
        self._num_shards += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()


def write_index(folder: Path, infos: Sequence[SampleInfo]) -> None:
    """Write ``index.jsonl`` of a split's folder atomically, one sample a line.

    That of a large split gets its columns (data/dataset/columns.py).
    """
    (folder / COLUMNS_NAME).unlink(missing_ok=True)  # first: they are of the index before
    columns, place = ColumnBuilder(), 0
    with replacing(folder / INDEX_NAME) as temporary, temporary.open("wb") as stream:
        for info in infos:
            columns.add(info, place)
            place += stream.write(json.dumps(info.to_json(), ensure_ascii=False).encode() + b"\n")
    if place > MOST_KEPT:
        columns.write(folder)


def read_index(root: Path | str, split: str) -> list[SampleInfo]:
    """Read the samples of a split, in the order in which they were written.

    Raises ValueError naming the line where the index is missing, damaged, empty or repeats a key.
    """
    path, remedy = index_of(root, split)
    about = path.stat()
    parse = _parse_index if about.st_size <= MOST_KEPT else _parse_index.__wrapped__
    version = (about.st_ino, about.st_mtime_ns, about.st_size)
    return list(parse(path, remedy, version))


def index_of(root: Path | str, split: str) -> tuple[Path, str]:
    """Return the path of an index and how to mend it. Raises ValueError where it is missing."""
    path = Path(root) / split / INDEX_NAME
    if not path.is_file():
        raise ValueError(
            f"split={split}: {path} is missing. Ingest the dataset, or index foreign webdataset "
            f"shards with: kinescale index {root} {split}"
        )
    return path, f"Rebuild it with: kinescale index {root} {split}"


@lru_cache(maxsize=4)
def _parse_index(path: Path, remedy: str, version: tuple[int, ...]) -> tuple[SampleInfo, ...]:
    """Parse an index. ``version`` tells a rewritten file from the one that was parsed before."""
    infos: list[SampleInfo] = []
    keys: set[str] = set()
    for number, (info, _) in enumerate(lines_of(path, remedy), 1):
        if info.key in keys:
            raise ValueError(f"{path}:{number}: key={info.key!r}: must be unique. {remedy}")
        keys.add(info.key)
        infos.append(info)
    return tuple(infos)


def lines_of(path: Path, remedy: str) -> Iterator[tuple[SampleInfo, int]]:
    """Yield the samples of an index, each with the place of its line.

    Raises ValueError at a line that is none, and where there is no line.
    """
    place = 0
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                info = SampleInfo.from_json(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error} {remedy}") from error
            yield info, place
            place += len(line)
    if not place:
        raise ValueError(f"split={path.parent.name}: {path} lists no samples. {remedy}")


@lru_cache(maxsize=MOST_OPEN)
def _open_shard(root: Path | str, split: str, name: str) -> OpenFile:
    return OpenFile(os.path.join(root, split, name))


def read_payload(root: Path | str, split: str, info: SampleInfo, verify: bool = True) -> bytes:
    """Return the payload bytes of one sample by one positional read.

    Raises ValueError if the shard is missing or shorter than the index says, or, with ``verify``,
    if the bytes are not those that were indexed (damaged files often decode without an error).
    """
    if verify:
        # A shard that is open is not looked up again: its bytes are told by their digest.
        with suppress(OSError):
            shard = _open_shard(root, split, info.shard)
            payload = os.pread(shard.descriptor, info.nbytes, info.offset)
            if hashlib.sha256(payload).hexdigest() == info.sha256:
                return payload
    payload = _read_bytes(root, split, info, info.offset, info.nbytes)
    if verify:
        _open_shard.cache_clear()  # another file has its name since
        check_payload(root, split, info, payload)
    return payload


def check_payload(root: Path | str, split: str, info: SampleInfo, payload: bytes) -> None:
    """Raise ValueError unless the bytes are those that were indexed."""
    if hashlib.sha256(payload).hexdigest() != info.sha256:
        raise ValueError(
            f"sha256={info.sha256[:12]}…: the bytes of {info.key!r} in shard {info.shard} do not "
            f"match it. {_remedy(root, split, info)}"
        )


def read_truth(root: Path | str, split: str, info: SampleInfo) -> dict[str, Any] | None:
    """Return what the simulator knew of a sample, or None where nothing is known.

    Raises ValueError if the shard is missing or damaged there.
    """
    if not info.truth_nbytes:
        return None
    content = _read_bytes(root, split, info, info.truth_offset, info.truth_nbytes)
    try:
        truth = json.loads(content)
    except ValueError as error:
        raise ValueError(
            f"shard={info.shard}: the truth of {info.key!r} is no JSON. "
            f"{_remedy(root, split, info)}"
        ) from error
    if not isinstance(truth, dict):
        raise ValueError(f"truth={info.key}: must be a JSON object. {_remedy(root, split, info)}")
    return truth


def _remedy(root: Path | str, split: str, info: SampleInfo) -> str:
    return f"Restore {Path(root) / split / info.shard}, or ingest the dataset again."


def _read_bytes(root: Path | str, split: str, info: SampleInfo, offset: int, nbytes: int) -> bytes:
    try:
        with open(os.path.join(root, split, info.shard), "rb", buffering=0) as stream:
            content = os.pread(stream.fileno(), nbytes, offset)
    except FileNotFoundError as error:
        raise ValueError(
            f"shard={info.shard}: holds {info.key!r} but is missing. {_remedy(root, split, info)}"
        ) from error
    if len(content) != nbytes:
        raise ValueError(
            f"shard={info.shard}: ends inside {info.key!r} ({len(content)} of {nbytes} "
            f"bytes). {_remedy(root, split, info)}"
        )
    return content


def write_manifest(root: Path | str, manifest: dict[str, Any]) -> None:
    """Write ``manifest.json`` atomically, adding bytes and SHA-256 of shards and indexes."""
    shards: dict[str, dict[str, dict[str, Any]]] = {}
    known: dict[Path, dict[str, Any]] = {}  # splits of an index may link to the same shard
    for path in sorted(Path(root).glob("*/*.tar")):
        # A pipe would be waited for, for ever; bytes that are no UTF-8 no manifest can hold.
        if not path.is_file() or not is_utf8(path.name):
            continue
        real = path.resolve()
        known[real] = known.get(real) or _digest_of(path)
        shards.setdefault(path.parent.name, {})[path.name] = known[real]
    indexes = {path.parent.name: _digest_of(path) for path in Path(root).glob(f"*/{INDEX_NAME}")}
    whole = {**manifest, "shards": shards, "indexes": dict(sorted(indexes.items()))}
    text = json.dumps(whole, indent=2, ensure_ascii=False)
    Path(root).mkdir(parents=True, exist_ok=True)
    write_text(Path(root) / MANIFEST_NAME, text + "\n")


def is_utf8(name: str) -> bool:
    """Say whether a file's name is text."""
    return name.encode("utf-8", "replace").decode() == name


def _digest_of(path: Path) -> dict[str, Any]:
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"sha256": digest, "nbytes": path.stat().st_size}


def read_manifest(root: Path | str) -> dict[str, Any]:
    """Return the manifest of a dataset. Raises ValueError if it is missing or not a JSON object."""
    path = Path(root) / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(
            f"root={root}: {path} is missing. Ingest the dataset, or point data.root at one."
        ) from error
    except ValueError as error:
        raise ValueError(f"root={root}: {path} is no JSON. Ingest the dataset again.") from error
    if not isinstance(manifest, dict):
        raise ValueError(f"root={root}: {path} must hold an object. Ingest the dataset again.")
    return manifest
