"""Build a dataset out of finished parts, so that an interrupt loses at most one source's work.

A part is everything one source gave: ``NAME.bin`` (payloads) and ``NAME.jsonl`` (a first line of
notes, then a line per sample), the latter renamed into place last. Parts live in ``ROOT/.parts``
until every source is done, then become shards in the given order.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2

from data.children import Outcome, run_in_children
from data.config import IngestConfig
from data.duplicates import Candidate, near_duplicates
from data.reject import Reject
from data.report import summarise
from data.shards import ShardWriter, read_manifest, write_manifest

PARTS = ".parts"
# Lists the splits that are being written, so that the next attempt knows them for its own.
ASSEMBLING = "assembling.json"
CHILD_MEMORY_BYTES = 6_000_000_000  # address space, most of it never touched; stops bombs


@dataclass
class Sample:
    """One sample on its way into a shard: metadata, payload bytes and the payload's extension.

    ``truth`` is what a simulator knows of it, in JSON types; ``fingerprint`` is for the search of
    near-duplicates (data/duplicates.py), which leaves samples without one alone.
    """

    meta: dict[str, Any]
    payload: bytes
    extension: str
    truth: dict[str, Any] | None = None
    fingerprint: str = ""


@dataclass
class Notes:
    """What a source's owner should hear: things left out, and things worth a look.

    ``films`` tells what became of every frame of a film (``data.film.Account``).
    """

    rejects: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    films: list[dict[str, Any]] = field(default_factory=list)

    def reject(self, file: str, error: Reject) -> None:
        """List something that is left out."""
        self.rejects.append({"file": file, **error.to_json()})


class Source(Protocol):
    """Anything that yields samples in a child process: a media file, a world's seeds."""

    @property
    def name(self) -> str:
        """Unique and stable; the part's file name derives from it."""

    @property
    def split(self) -> str:
        """The split that all samples of this source go to."""

    @property
    def weight(self) -> float:
        """Expected work, for the progress bar."""

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Yield the samples; raise Reject to leave the source out."""


@dataclass(frozen=True)
class Part:
    """One source to be built into a folder."""

    folder: Path
    source: Source
    config: IngestConfig

    @property
    def stem(self) -> Path:
        """Path of the part's files, without suffix."""
        digest = hashlib.sha256(self.source.name.encode()).hexdigest()[:24]
        return self.folder / digest


def build_part(part: Part) -> int:
    """Write one part; return its number of samples. Runs in a child process."""
    cv2.setNumThreads(1)  # the children share the cores already
    notes = Notes()
    lines: list[dict[str, Any]] = []
    with open(part.stem.with_suffix(".bin"), "wb") as stream:
        try:
            for sample in part.source.samples(part.config, notes):
                place = {"offset": stream.tell(), "nbytes": len(sample.payload)}
                stream.write(sample.payload)
                lines.append(
                    {
                        "meta": sample.meta,
                        "extension": sample.extension,
                        "truth": sample.truth,
                        "fingerprint": sample.fingerprint,
                        **place,
                    }
                )
        except Reject as error:
            notes.reject(part.source.name, error)
            if lines:
                notes.warnings.append(f"{part.source.name}: kept the first {len(lines)} clips")
    finish_part(part, notes, lines)
    return len(lines)


def finish_part(part: Part, notes: Notes, lines: list[dict[str, Any]]) -> None:
    """Write the part's list, whose presence says that the part is complete."""
    temporary = part.stem.with_suffix(".tmp")
    with open(temporary, "w", encoding="utf-8") as stream:
        for line in [asdict(notes), *lines]:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    os.replace(temporary, part.stem.with_suffix(".jsonl"))


def read_part(part: Part) -> tuple[Notes, list[dict[str, Any]]]:
    """Read the notes and the sample lines of a finished part."""
    with open(part.stem.with_suffix(".jsonl"), encoding="utf-8") as stream:
        first, *lines = (json.loads(line) for line in stream)
    return Notes(**first), lines


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
    build with the same digest are kept. Raises ValueError if no source gave a sample.
    """
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise ValueError("source=(repeated): names must be unique. Rename one of the inputs.")
    cut = {k: v for k, v in asdict(config).items() if k not in ("num_workers", "overwrite")}
    digest = digest_of([cut, [repr(source) for source in sources], asdict(notes)])
    if not prepare_root(root, digest, config.overwrite):
        return read_manifest(root)
    parts = [Part(root / PARTS / digest, source, config) for source in sources]
    run_parts(parts, config, on_progress)
    samples = assemble(root, parts, config, notes)
    if not samples:
        raise ValueError(
            f"input=({len(sources)} files): none gave a clip. {reasons(notes)} "
            "Give files that PyAV or Pillow can read."
        )
    account = summarise(samples, notes.rejects, notes.warnings, config, notes.films)
    write_manifest(root, {"digest": digest, **(extra or {}), **account})
    shutil.rmtree(root / PARTS, ignore_errors=True)
    return read_manifest(root)


def assemble(
    root: Path, parts: list[Part], config: IngestConfig, notes: Notes
) -> dict[str, list[dict[str, Any]]]:
    """Turn finished parts into shards; return the samples' metadata by split."""
    clear_splits(root)
    splits = sorted({part.source.split for part in parts})
    (parts[0].folder / ASSEMBLING).write_text(json.dumps(splits))
    heard = [read_part(part) for part in parts]
    for said, lines in heard:
        notes.rejects += said.rejects
        notes.warnings += said.warnings
        notes.films += said.films
        name_scenes(lines, said.films)
    alike = find_duplicates(parts, [lines for _, lines in heard], config, notes)
    samples: dict[str, list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        for part, (_, lines) in zip(parts, heard, strict=True):
            split = part.source.split
            with open(part.stem.with_suffix(".bin"), "rb") as stream:
                for line in lines:
                    payload = stream.read(line["nbytes"])
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


def find_duplicates(
    parts: list[Part], lines: list[list[dict[str, Any]]], config: IngestConfig, notes: Notes
) -> set[tuple[str, str]]:
    """Return (split, key) of the samples that nearly repeat a kept one; list them in ``notes``.

    Held-out splits choose first, then larger samples, so training never holds what is held out.
    """
    if max(config.duplicate_bits, config.repeat_bits) < 0:
        return set()
    metas: dict[tuple[str, str], tuple[dict[str, Any], str]] = {}
    candidates: list[Candidate] = []
    for part, own in zip(parts, lines, strict=True):
        split = part.source.split
        for line in own:
            meta = line["meta"]
            if not line["fingerprint"]:
                continue
            metas[split, meta["key"]] = meta, part.source.name
            rank = (split == "train", -size_of(meta), meta["key"])
            id = (split, meta["key"])
            candidates.append(Candidate(id, meta["source"], line["fingerprint"], rank))
    left_out, nearest = near_duplicates(candidates, config.duplicate_bits, config.repeat_bits)
    films = {film["file"]: film for film in notes.films}
    for id, match in nearest.items():
        meta, file = metas[id]
        meta["scores"] = {**meta.get("scores", {}), "duplicate": round(match.distance, 4)}
        if id not in left_out:
            continue
        limit = "repeat_bits" if match.same_source else "duplicate_bits"
        notes.reject(
            f"{file}: {meta['key']}",
            Reject(
                f"nearly repeats {match.id[1]}, {match.distance:.2g} of 64 bits away",
                f"Lower {limit}, or -1, to keep look-alikes.",
                *("duplicate", round(match.distance, 4), getattr(config, limit)),
            ),
        )
        if file in films:
            dropped, length = films[file]["dropped"], meta["num_frames"]
            films[file]["used"] -= length
            dropped["duplicate"] = dropped.get("duplicate", 0) + length
    return left_out


def size_of(meta: dict[str, Any]) -> int:
    """Return how many pixels a sample has, over all its frames."""
    return int(meta["num_frames"] * meta["height"] * meta["width"])


def reasons(notes: Notes, most: int = 3) -> str:
    """Quote the first reasons for which inputs were left out."""
    return " ".join(f"{r['file']}: {r['reason']}." for r in notes.rejects[:most])


def run_parts(
    parts: list[Part], config: IngestConfig, on_progress: Callable[[float, float, str], None]
) -> None:
    """Build the parts that are not there yet, each in a killable child."""
    total = sum(part.source.weight for part in parts)
    missing = [part for part in parts if not part.stem.with_suffix(".jsonl").exists()]
    done = total - sum(part.source.weight for part in missing)
    clips = 0

    def report() -> None:
        on_progress(done, total, f"{clips} clips")

    outcomes: Iterator[Outcome[Part]] = run_in_children(
        build_part,
        missing,
        num_workers=config.num_workers,
        timeout_seconds=config.timeout_seconds,
        memory_bytes=CHILD_MEMORY_BYTES,
        on_wait=report,
    )
    for outcome in outcomes:
        if outcome.death:
            notes = Notes()
            remedy = "Raise timeout_seconds, or re-encode the file."
            notes.reject(outcome.job.source.name, Reject(outcome.death, remedy))
            outcome.job.stem.with_suffix(".bin").touch()
            finish_part(outcome.job, notes, [])
        done += outcome.job.source.weight
        clips += outcome.value or 0
        report()
