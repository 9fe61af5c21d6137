"""Build a dataset out of finished parts, so that an interrupt loses at most one source's work.

A part is everything one source gave: ``NAME.bin`` (payloads) and ``NAME.jsonl`` (a line for each
sample, then one of notes). The latter grows as ``NAME.tmp`` and is renamed last, so that what a
killed child had finished is not lost; the payloads are on disk before it. A part that an earlier
attempt left counts only if its payloads are those that its lines say, else it is built again. Parts
live in ``ROOT/.parts`` until every source is done, then become shards in the given order.
"""

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from data.config import IngestConfig
from data.dataset.shards import ShardWriter, read_manifest, write_manifest
from data.engine.duplicates import drop_duplicates
from data.engine.engines import Work, build_all
from data.engine.settings import BUILDERS, share_of
from data.engine.source import Notes, Sample, Source
from data.files import local_folder, publish, sync
from data.media.film import Account
from data.media.reject import Reject
from data.show.report import summarise
from data.words import counted

PARTS = ".parts"
# Lists the splits that are being written, so that the next attempt knows them for its own.
ASSEMBLING = "assembling.json"
NOT_READ = "not_read"  # why frames after the last clip of a killed child are in no clip
PULSE_SECONDS = 1.0


@dataclass(frozen=True)
class Part:
    """One source to be built into a folder; ``attempt`` parts those who build it at once."""

    folder: Path
    source: Source
    config: IngestConfig
    attempt: str = ""

    @property
    def stem(self) -> Path:
        """Path of the part's files, without suffix."""
        digest = hashlib.sha256(self.source.name.encode()).hexdigest()[:24]
        return self.folder / digest

    @property
    def growing(self) -> Path:
        """Path of the files while they are written, without suffix."""
        return (
            self.stem.with_name(f"{self.stem.name}-{self.attempt}") if self.attempt else self.stem
        )


def build_part(part: Part) -> int:
    """Write one part; return its number of samples. Runs in a child process."""
    cv2.setNumThreads(1)  # the children share the cores already
    notes = Notes(on_frame=Pulse(part.growing.with_suffix(".tmp")))
    count = 0
    with (
        open(part.growing.with_suffix(".bin"), "wb") as payloads,
        open(part.growing.with_suffix(".tmp"), "wb") as lines,
    ):
        try:
            for sample in part.source.samples(part.config, notes):
                line = line_of(sample, payloads.tell())
                payloads.write(sample.payload)
                payloads.flush()
                lines.write(as_line(line))  # after its payload: a line says that it is all there
                lines.flush()
                count += 1
        except Reject as error:
            notes.reject(part.source.name, error)
            if count:
                notes.warnings.append(
                    f"{part.source.name}: kept the first {counted(count, 'clip')}"
                )
        lines.write(as_line(notes.to_json()))
    finish(part)
    return count


class Pulse:
    """Shows in the time of a file's last change that its child is not standing still."""

    def __init__(self, path: Path) -> None:
        self.path, self.last = path, time.monotonic()

    def __call__(self) -> None:
        """Show it, once a second at most."""
        if time.monotonic() - self.last > PULSE_SECONDS:
            self.last = time.monotonic()
            os.utime(self.path)


def last_pulse(part: Part) -> float:
    """Return when a part's child last showed that it is at work, in seconds of the epoch."""
    try:
        return part.growing.with_suffix(".tmp").stat().st_mtime
    except OSError:
        return 0.0


def finish(part: Part) -> None:
    """Name a part's lines, once they and the payloads that they speak of outlast a power cut."""
    payloads = part.growing.with_suffix(".bin")
    payloads.touch()  # a child may have died before it had any
    sync(payloads)
    if part.attempt:
        os.replace(payloads, part.stem.with_suffix(".bin"))
    publish(part.growing.with_suffix(".tmp"), part.stem.with_suffix(".jsonl"))


def line_of(sample: Sample, offset: int) -> dict[str, Any]:
    """Return what a part's list says of a sample whose payload starts at ``offset``."""
    return {
        "meta": sample.meta,
        "extension": sample.extension,
        "truth": sample.truth,
        "fingerprint": sample.fingerprint,
        "offset": offset,
        "nbytes": len(sample.payload),
        "sha256": hashlib.sha256(sample.payload).hexdigest(),
    }


def as_line(value: dict[str, Any]) -> bytes:
    """Return a value as one line of JSON."""
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def finish_dead_part(part: Part, death: str) -> int:
    """Finish the part of a child that died with the samples it had; return how many.

    Of a film the account is made up from its clips: the other frames that it promised count as not
    read, and its shots are not known.
    """
    notes = Notes()
    notes.reject(part.source.name, Reject(death, "Raise timeout_seconds, or re-encode the file."))
    found = part.growing.with_suffix(".tmp")
    whole = found.read_bytes().split(b"\n")[:-1] if found.exists() else []
    lines = [
        line for line in map(json.loads, whole) if "meta" in line
    ]  # it may have died finishing
    if lines:
        notes.warnings.append(f"{part.source.name}: kept the first {counted(len(lines), 'clip')}")
        meta = lines[-1]["meta"]
        if meta["media"] == "video" and "start_frame" in meta["original"]:
            used = sum(line["meta"]["num_frames"] for line in lines)
            expected = max(meta["original"]["num_frames"], used)
            dropped = Counter({NOT_READ: expected - used})
            pixels = meta["original"]["height"] * meta["original"]["width"]
            account = Account(
                *(part.source.name, meta["licence"], meta["fps"], pixels, expected, used),
                dropped=dropped,
            )
            notes.films.append(account.to_json())
    found.write_bytes(b"".join(map(as_line, [*lines, notes.to_json()])))
    finish(part)
    return len(lines)


def read_part(part: Part) -> tuple[Notes, list[dict[str, Any]]]:
    """Read the notes and the sample lines of a finished part."""
    with open(part.stem.with_suffix(".jsonl"), encoding="utf-8") as stream:
        *lines, last = (json.loads(line) for line in stream)
    return Notes(**last), lines


def payloads_of(part: Part, lines: list[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the payloads of a finished part, in the order of its lines.

    Raises ValueError at one whose size or digest is not what its line says; nothing of the part is
    left then, so that the next attempt builds it anew.
    """
    with open(part.stem.with_suffix(".bin"), "rb") as stream:
        for line in lines:
            payload = stream.read(line["nbytes"])
            if hashlib.sha256(payload).hexdigest() != line["sha256"]:
                drop_part(part)
                raise ValueError(
                    f"part={part.source.name}: its payloads changed after they were written. "
                    "Check the disk and run the same command again: only this part is built anew."
                )
            yield payload


def drop_part(part: Part) -> None:
    """Remove the files of a part."""
    for suffix in (".jsonl", ".tmp", ".bin"):
        part.stem.with_suffix(suffix).unlink(missing_ok=True)


def is_whole(part: Part) -> bool:
    """Say whether a finished part is there; remove one that lost or changed bytes since."""
    if not part.stem.with_suffix(".jsonl").exists():
        return False
    try:
        _, lines = read_part(part)
        for _ in payloads_of(part, lines):
            pass
    except (ValueError, LookupError, TypeError, OSError):  # no lines of a part, or none of ours
        drop_part(part)
        return False
    return True


def digest_of(values: Any) -> str:
    """Return a short digest of a JSON-like value."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def prepare_root(root: Path, digest: str, overwrite: bool) -> bool:
    """Return whether there is anything to build in ``root``; drop parts of other settings.

    A dataset to be replaced stays until the new one's parts are all there.

    Raises ValueError if another dataset is there and may not be replaced.
    """
    if (root / "manifest.json").is_file():
        manifest = read_manifest(root)
        if manifest.get("digest") == digest:
            shutil.rmtree(root / PARTS, ignore_errors=True)
            return False
        if not overwrite:
            raise ValueError(
                f"output={root}: holds a dataset made from other inputs or settings. "
                "Choose another folder, or say overwrite=true to replace it."
            )
    for stale in (root / PARTS).glob("*"):
        if stale.name != digest and not (stale / ASSEMBLING).exists():
            shutil.rmtree(stale)
    (root / PARTS / digest).mkdir(parents=True, exist_ok=True)
    return True


def clear_splits(root: Path) -> None:
    """Remove the dataset that is to be replaced, or what an interrupted assembly left."""
    doomed: set[str] = set()
    if (root / "manifest.json").is_file():
        doomed |= set(read_manifest(root).get("splits", {}))
        (root / "manifest.json").unlink()
    for mark in (root / PARTS).glob(f"*/{ASSEMBLING}"):
        doomed |= set(json.loads(mark.read_text()))
    for split in doomed:
        shutil.rmtree(root / split, ignore_errors=True)


def build_dataset(
    root: Path,
    sources: Sequence[Source],
    config: IngestConfig,
    notes: Notes,
    on_progress: Callable[[float, float, str], None] = lambda done, total, text: None,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Build (or find finished) the dataset of these sources and return its manifest.

    ``notes`` carries what was already left out; ``extra`` goes into the manifest;
    ``on_progress(done, total, text)`` is called at least twice a second. Parts of an interrupted
    build with the same digest are kept. With a ``share`` its parts are built and {} is returned.
    Raises ValueError if no source gave a sample.
    """
    local_folder("dataset", root)
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise ValueError("source=(repeated): names must be unique. Rename one of the inputs.")
    cut = {k: v for k, v in asdict(config).items() if k not in BUILDERS}
    digest = digest_of([cut, [repr(source) for source in sources], notes.to_json()])
    if not prepare_root(root, digest, config.overwrite):
        return read_manifest(root)
    parts = [Part(root.absolute() / PARTS / digest, source, config) for source in sources]
    if share := share_of(config.share):
        run_parts(parts[share[0] :: share[1]], config, on_progress)
        return {}
    run_parts(parts, config, on_progress)
    samples = assemble(root, parts, config, notes)
    if not samples:
        raise ValueError(
            f"input=({counted(len(sources), 'file')}): none gave a clip. {reasons(notes)} "
            "Give files that PyAV or Pillow can read."
        )
    account = summarise(samples, notes.rejects, notes.warnings, config, notes.films)
    write_manifest(root, {"digest": digest, **(extra or {}), **account})
    shutil.rmtree(root / PARTS, ignore_errors=True)
    return read_manifest(root)


def assemble(
    root: Path, parts: list[Part], config: IngestConfig, notes: Notes
) -> dict[str, list[dict[str, Any]]]:
    """Turn finished parts into shards; return the samples' metadata by split.

    Raises ValueError if a part's payloads are not those that its lines say.
    """
    clear_splits(root)
    splits = sorted({part.source.split for part in parts})
    (parts[0].folder / ASSEMBLING).write_text(json.dumps(splits))
    heard = [read_part(part) for part in parts]
    paired = list(zip(parts, heard, strict=True))
    for said, lines in heard:
        notes.rejects += said.rejects
        notes.warnings += said.warnings
        notes.films += said.films
        name_scenes(lines, said.films)
    samples_of = {part.source.name: (part.source.split, lines) for part, (_, lines) in paired}
    alike = drop_duplicates(samples_of, config, notes)
    samples: dict[str, list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        for part, (_, lines) in paired:
            split = part.source.split
            for line, payload in zip(lines, payloads_of(part, lines), strict=True):
                if (split, line["meta"]["key"]) in alike:
                    continue
                if split not in writers:
                    writer = ShardWriter(root, split, config.shard_bytes)
                    writers[split] = stack.enter_context(writer)
                writers[split].write(line["meta"], payload, line["extension"], line["truth"])
                samples.setdefault(split, []).append({**line["meta"], "nbytes": len(payload)})
    return samples


def name_scenes(lines: list[dict[str, Any]], films: list[dict[str, Any]]) -> None:
    """Tell each clip of a film the number of its scene, known only once the film had ended."""
    scenes = films[0]["scenes"] if films else []
    for line in lines:
        original = line["meta"]["original"]
        if "shot" in original and original["shot"] < len(scenes):
            original["scene"] = scenes[original["shot"]]


def reasons(notes: Notes, most: int = 3) -> str:
    """Quote the first reasons for which inputs were left out."""
    return " ".join(f"{r['file']}: {r['reason']}." for r in notes.rejects[:most])


def run_parts(
    parts: list[Part], config: IngestConfig, on_progress: Callable[[float, float, str], None]
) -> None:
    """Build the parts that are not there yet or not whole, by the engine of the settings."""
    total = sum(part.source.weight for part in parts)
    done, clips = 0.0, 0

    def report() -> None:
        on_progress(done, total, counted(clips, "clip"))

    missing = []
    for part in parts:
        if is_whole(part):
            done += part.source.weight
        else:
            missing.append(part)
        report()
    if not missing:
        return
    work = Work(missing[0].folder, build_part, finish_dead_part, is_whole, last_pulse)
    for part, count in build_all(work, missing, config, report):
        clips += count
        done += part.source.weight
        report()
