"""A dataset behind a URL, read through ``fsspec`` into a folder that a node's processes share."""

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.config import DataConfig
from data.dataset.sample import SampleInfo, is_count, is_file_name, is_sha256
from data.dataset.shards import INDEX_NAME, MANIFEST_NAME, check_payload
from data.files import publish, write_bytes
from data.secrets import masked

log = logging.getLogger(__name__)

ATTEMPTS = 3
CHUNK_BYTES = 4 * 2**20
LOCK_IF_FREE = fcntl.LOCK_EX | fcntl.LOCK_NB
ROOM_TIMEOUT_SECONDS = 600.0


class FetchError(ValueError):
    """A remote file that could not be fetched whole, or that the cache has no room for.

    Not a bad sample: ``data.on_bad_sample=drop`` must not lose data while a network is down.
    """


class ShardCache:
    """Mirror the read parts of one remote dataset in ``folder``, at most ``limit_bytes`` of shards.

    The manifest is fetched at the start and names the mirror together with the URL, so that another
    version of the dataset gets another mirror. Shards are fetched whole, when first read: into a
    ``.part`` file that takes the shard's name once its size and SHA-256 are those of the manifest.
    Where the limit leaves no room, the shards that were read least recently go first, of any
    dataset in ``folder``. Locks on files make this safe for any number of processes; the kernel
    drops those of a killed one.

    Raises FetchError where the manifest or an index is missing, damaged or inconsistent.
    """

    def __init__(self, url: str, folder: Path, limit_bytes: int) -> None:
        self.url = url.rstrip("/")
        self.shown = masked(self.url, os.environ)  # in messages
        self.folder = folder
        self.limit_bytes = limit_bytes
        manifest = self._fetch_bytes(MANIFEST_NAME)
        self.manifest = self._parse(manifest)
        self.shards: dict[str, dict[str, dict[str, Any]]] = self.manifest["shards"]
        self._check_limit()
        name = hashlib.sha256(self.url.encode() + b"\n" + manifest).hexdigest()[:16]
        self.root = folder / name
        for split in self.shards:
            (self.root / split).mkdir(parents=True, exist_ok=True)
            self._fetch_index(split)
        write_bytes(self.root / MANIFEST_NAME, manifest)

    def _parse(self, manifest: bytes) -> dict[str, Any]:
        try:
            values = json.loads(manifest)
            # Names become paths below the cache's folder.
            names = [name for split, held in values["shards"].items() for name in (split, *held)]
            shards = [s for held in values["shards"].values() for s in held.values()]
            known = all(is_sha256(s["sha256"]) and is_count(s["nbytes"], 1) for s in shards)
            if shards and known and all(map(is_file_name, names)):
                return dict(values)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise FetchError(
            f"data.root={self.shown}: its {MANIFEST_NAME} must list bytes and SHA-256 of all "
            "shards. Write the dataset with kinescale ingest or kinescale encode and upload it "
            "again."
        )

    def _check_limit(self) -> None:
        largest = max(s["nbytes"] for split in self.shards.values() for s in split.values())
        if 0 < self.limit_bytes < largest:
            raise FetchError(
                f"data.cache_bytes={self.limit_bytes}: must hold the largest shard of "
                f"{self.shown}, {largest} bytes. Use 0 (no limit), or as many bytes as the node "
                "can spare."
            )

    def _fetch_index(self, split: str) -> None:
        path = self.root / split / INDEX_NAME
        if path.is_file():
            return
        expected = self.manifest.get("indexes", {}).get(split)
        if expected is None:
            log.warning("%s: the manifest has no SHA-256 of %s's index", self.shown, split)
        write_bytes(path, self._fetch_bytes(f"{split}/{INDEX_NAME}", expected))

    def read_payload(self, split: str, info: SampleInfo) -> bytes:
        """Return the verified payload of one sample, fetching its shard where it is not at hand.

        Raises ValueError as :func:`data.dataset.shards.read_payload` does, and FetchError.
        """
        path = self.root / split / info.shard

        def read() -> bytes:
            # Not kept open: an evicted shard would stay on the disk as long as somebody holds it.
            with open(path, "rb", buffering=0) as stream:
                payload = os.pread(stream.fileno(), info.nbytes, info.offset)
            os.utime(path)
            check_payload(self.root, split, info, payload)
            return payload

        try:
            return self._with_shard(split, info.shard, read)
        except FetchError:
            raise
        except ValueError as error:
            # Verified when it came, so the copy went bad here: a power cut, or a disk's fault.
            log.warning("%s: %s Fetching the shard again.", self.shown, error)
            return self._with_shard(split, info.shard, read, again=True)

    def _with_shard(
        self, split: str, shard: str, use: Callable[[], bytes], again: bool = False
    ) -> bytes:
        """Return ``use()``, called while the shard is in the mirror and cannot be evicted."""
        path = self.root / split / shard
        if not again:
            with _locked(path, fcntl.LOCK_SH):
                if path.is_file():
                    return use()
        with _locked(path, fcntl.LOCK_EX):
            if again or not path.is_file():
                path.unlink(missing_ok=True)
                self._fetch_shard(split, shard)
            return use()

    def _fetch_shard(self, split: str, shard: str) -> None:
        """Fetch a shard whose lock is held."""
        path = self.root / split / shard
        expected = self.shards.get(split, {}).get(shard)
        if expected is None:
            raise FetchError(
                f"shard={shard}: the manifest of {self.shown} does not list it in {split}. "
                "Write and upload the dataset again."
            )
        part = _part(path)
        part.unlink(missing_ok=True)  # what a killed process left
        self._reserve(part, expected["nbytes"])
        try:
            self._retry(f"{split}/{shard}", lambda stream: _copy_verified(stream, part, expected))
            with _locked(self.folder / "cache", fcntl.LOCK_EX):  # whoever counts sees one name
                publish(part, path, synced=False)  # a copy: it can be fetched again
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _reserve(self, part: Path, nbytes: int) -> None:
        """Give a file its full size, after evicting what is in its way."""
        give_up = time.monotonic() + ROOM_TIMEOUT_SECONDS
        while True:
            with _locked(self.folder / "cache", fcntl.LOCK_EX):
                if not self.limit_bytes or _make_room(self.folder, self.limit_bytes - nbytes):
                    with open(part, "wb") as stream:
                        stream.truncate(nbytes)  # counts from now on, for other processes, too
                    return
            if time.monotonic() > give_up:
                raise FetchError(
                    f"data.cache_bytes={self.limit_bytes}: other processes have filled "
                    f"{self.folder} for {ROOM_TIMEOUT_SECONDS:g} s. Raise data.cache_bytes."
                )
            time.sleep(0.05)

    def _shown_reason(self, error: Exception) -> str:
        """Return an error's words without keys; some file systems leave the scheme of a URL out."""
        inner, shown = (url.partition("://")[2] for url in (self.url, self.shown))
        return masked(f"{type(error).__name__}: {error}".replace(inner, shown), os.environ)

    def _fetch_bytes(self, name: str, expected: dict[str, Any] | None = None) -> bytes:
        def read(stream: Any) -> bytes:
            found: bytes = stream.read()
            if expected and hashlib.sha256(found).hexdigest() != expected["sha256"]:
                raise OSError(f"{len(found)} bytes do not match the manifest's SHA-256")
            return found

        return self._retry(name, read)

    def _retry(self, name: str, read: Callable[[Any], Any]) -> Any:
        """Return ``read(stream)`` of a remote file, trying again after errors."""
        import fsspec  # type: ignore[import-untyped]  # .15 s: only for remote sets

        reasons = []
        for attempt in range(ATTEMPTS):
            time.sleep(0.25 * (2**attempt - 1))
            try:
                with fsspec.open(f"{self.url}/{name}", "rb") as stream:
                    return read(stream)
            except Exception as error:  # noqa: BLE001 - each file system has its own; raised below
                reasons.append(self._shown_reason(error)[:200])
                log.warning("%s/%s: attempt %d: %s", self.shown, name, attempt + 1, reasons[-1])
        raise FetchError(
            f"data.root={self.shown}: {name} could not be fetched in {ATTEMPTS} attempts "
            f"({reasons[-1]}). Check the address, the access rights and the network."
        )


def is_url(root: str) -> bool:
    """Say whether a dataset's root is a URL rather than a folder."""
    return "://" in root


def open_root(config: DataConfig, root: str) -> tuple[Path, ShardCache | None]:
    """Return the folder that holds manifest and indexes of a root, and the cache of a remote one.

    Raises ValueError for a URL without data.cache_dir, and FetchError.
    """
    if not is_url(root):
        return Path(root), None
    if not config.cache_dir:
        raise ValueError(
            "data.cache_dir=(empty): must name a folder on this node where "
            f"data.root={masked(root, os.environ)} is a URL. Use a local disk that all its "
            "processes share."
        )
    cache = ShardCache(root, Path(config.cache_dir), config.cache_bytes)
    return cache.root, cache


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    """Hold a lock of a path, shared or exclusive; its file stays, as others may wait at it."""
    with open(path.with_name(path.name + ".lock"), "ab") as stream:
        fcntl.flock(stream, kind)
        yield


def _make_room(folder: Path, most_bytes: int) -> bool:
    """Evict shards, least recently read first, until at most so many bytes are left.

    Returns whether that was possible: shards that are read or fetched right now stay.
    """
    held = []
    for path in [*folder.glob("*/*/*.tar"), *folder.glob("*/*/*.tar.part")]:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # published or given up since
        held.append((status.st_mtime_ns, status.st_size, path))
    total = sum(nbytes for _, nbytes, _ in held)
    for _, nbytes, path in sorted(held):
        if total <= most_bytes:
            break
        try:
            with _locked(path.with_name(path.name.removesuffix(".part")), LOCK_IF_FREE):
                path.unlink(missing_ok=True)
        except BlockingIOError:
            continue
        total -= nbytes
    return total <= most_bytes


def _copy_verified(stream: Any, part: Path, expected: dict[str, Any]) -> None:
    """Copy a remote shard over its reserved file. Raises OSError where it is another one."""
    digest, count = hashlib.sha256(), 0
    with open(part, "r+b") as out:
        while chunk := stream.read(CHUNK_BYTES):
            count += len(chunk)
            if count > expected["nbytes"]:
                break
            digest.update(chunk)
            out.write(chunk)
    if count != expected["nbytes"] or digest.hexdigest() != expected["sha256"]:
        raise OSError(
            f"{count} bytes do not match size ({expected['nbytes']}) and SHA-256 of the manifest"
        )
