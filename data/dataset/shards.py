"""Shards on disk: webdataset tars beside an index that says where each payload lies.

The tars stay plain webdataset, so any reader of that format can use them; the index lets this
project read any sample with one ``pread``, in any order, and verify it.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from data.dataset.columns import COLUMNS_NAME, ColumnBuilder
from data.dataset.sample import SampleInfo, is_file_name
from data.dataset.tar_writer import TarWriter
from data.files import OpenFile, replacing, write_text

INDEX_NAME = "index.jsonl"
MANIFEST_NAME = "manifest.json"
# Marks a split whose writer has not closed: its shards may be overwritten by the next attempt.
WRITING_NAME = ".writing"
MOST_OPEN = 256  # shards held open for reading, of the 1024 files that many systems allow
# Bytes of an index that is kept parsed, of 30,000 clips: all runs of a process read the same one.
# A larger one is read in columns.
MOST_KEPT = 1 << 24
# What a tar of other tools can make tarfile raise, which trusts its numbers and chains of headers.
TAR_FAILURES = (
    *(tarfile.TarError, OSError, ValueError, EOFError, ArithmeticError, LookupError),
    *(RecursionError, MemoryError),
)


class ShardWriter:
    """Write one split of a dataset: webdataset tars, then the index, each appearing whole or not.

    A shard is closed once it holds more than ``shard_bytes``. The same samples in the same order
    give the same bytes. Use it as a context manager: leaving by an exception removes the unfinished
    shard and writes no index, and the next writer on that split starts again.

    Raises ValueError if the split already holds shards that no interrupted writer left.
    """

    def __init__(self, root: Path, split: str, shard_bytes: int) -> None:
        if not is_file_name(split):
            raise ValueError(f"split={split!r}: must be a folder name. Use train or val_real.")
        self.folder = Path(root) / split
        self._tars = TarWriter(self.folder, shard_bytes, lambda n, _: f"shard-{n:06d}.tar")
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
        """Append one sample and return where it lies, as :meth:`TarWriter.write` does."""
        return self._tars.write(meta, payload, extension, truth)

    def close(self) -> None:
        """Finish the last shard and write the index, atomically."""
        self._tars.close()
        write_index(self.folder, self._tars.infos)
        (self.folder / WRITING_NAME).unlink(missing_ok=True)

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
            self._tars.abort()


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


def write_manifest(
    root: Path | str,
    manifest: dict[str, Any],
    digests: Mapping[Path, dict[str, Any]] | None = None,
) -> None:
    """Write ``manifest.json`` atomically, adding bytes and SHA-256 of shards and indexes.

    digests: of all shards, where they are known; else of every tar that is there.
    """
    shards: dict[str, dict[str, dict[str, Any]]] = {}
    known: dict[Path, dict[str, Any]] = {}  # splits of an index may link to the same shard
    for path in sorted(Path(root).glob("*/*.tar")) if digests is None else []:
        # A pipe would be waited for, for ever; bytes that are no UTF-8 no manifest can hold.
        if not path.is_file() or not is_utf8(path.name):
            continue
        real = path.resolve()
        known[real] = known.get(real) or digest_of(path)
        shards.setdefault(path.parent.name, {})[path.name] = known[real]
    for path, about in sorted((digests or {}).items()):
        shards.setdefault(path.parent.name, {})[path.name] = about
    splits = (
        [path.parent.name for path in Path(root).glob(f"*/{INDEX_NAME}")]
        if digests is None
        else shards
    )
    indexes = {split: digest_of(Path(root) / split / INDEX_NAME) for split in splits}
    whole = {**manifest, "shards": shards, "indexes": dict(sorted(indexes.items()))}
    text = json.dumps(whole, indent=2, ensure_ascii=False)
    Path(root).mkdir(parents=True, exist_ok=True)
    write_text(Path(root) / MANIFEST_NAME, text + "\n")


def is_utf8(name: str) -> bool:
    """Say whether a file's name is text."""
    return name.encode("utf-8", "replace").decode() == name


def digest_of(path: Path) -> dict[str, Any]:
    """Return the SHA-256 and the bytes of a file."""
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
