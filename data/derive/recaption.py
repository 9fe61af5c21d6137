"""Give a data set other captions: an index of its own over the same shards, which are linked.

Text is written, no payload: payloads, truth, splits and order are those of the first. Who wrote the
captions is none of this room's business: they come as a table, with a line of provenance for the
manifest.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from data.dataset.sample import SampleInfo
from data.dataset.shards import (
    MANIFEST_NAME,
    digest_of,
    read_index,
    read_manifest,
    write_index,
    write_manifest,
)
from data.files import local_folder

FORMAT = 2
# What a manifest says of its own files alone.
OF_FILES = ("shards", "indexes", "parts", "left_out", "staying")
CaptionKey = tuple[str, str]  # split and key of a sample


class Existing(StrEnum):
    """What becomes of the captions that a sample has already.

    short: its short caption stays; without one, a caption of few words becomes it.
    drop: both make room for the new ones.
    """

    short = "short"
    drop = "drop"


@dataclass(frozen=True)
class NewCaption:
    """What was written for one sample; ``scores`` join those that its filters measured."""

    caption: str
    short_caption: str = ""
    scores: dict[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Policy:
    """What becomes of old captions; ``short_words``: a caption of at most so many is short."""

    existing: Existing = Existing.short
    short_words: int = 12

    def check(self) -> None:
        """Raise ValueError on a value out of range."""
        if self.short_words < 0:
            raise ValueError(f"short_words={self.short_words}: must be at least 0. Use 12.")

    def short_of(self, info: SampleInfo, new: NewCaption) -> tuple[str, str]:
        """Return the short caption that a sample gets, and in a word where it comes from."""
        if self.existing is Existing.short:
            if info.short_caption:
                return info.short_caption, "kept"
            if 0 < len(info.caption.split()) <= self.short_words:
                return info.caption, "was the caption"
        return new.short_caption, "written" if new.short_caption else "none"


def list_splits(root: Path) -> list[str]:
    """Return the splits of a data set. Raises ValueError where there is none."""
    splits = sorted(path.parent.name for path in root.glob("*/index.jsonl"))
    if not splits:
        raise ValueError(f"root={root}: holds no split. Give a data set that ingest has written.")
    return splits


def source_digest(root: Path, splits: list[str]) -> str:
    """Return a SHA-256 of the samples and captions of a data set."""
    digest = hashlib.sha256()
    for split in splits:
        for info in read_index(root, split):
            parts = [split, info.key, info.sha256, info.caption, info.short_caption]
            digest.update(json.dumps(parts).encode())
    return digest.hexdigest()


def check_target(root: Path, out: Path) -> None:
    """Raise ValueError unless ``out`` is free, or holds an earlier result of this kind."""
    local_folder("out", out)
    if out.resolve() == root.resolve():
        raise ValueError(f"out={out}: must not be root itself. Give another folder.")
    if (out / MANIFEST_NAME).exists():
        if "recaptioned" not in read_manifest(out):
            raise ValueError(f"out={out}: holds another data set. Give another folder.")
    elif (
        any(out.glob("*/*.tar"))
        and not any(out.glob("*/.writing"))
        and not any(out.glob("captions*.jsonl"))
    ):
        raise ValueError(f"out={out}: holds shards of unknown origin. Give another folder.")


def recaption(
    root: Path,
    out: Path,
    captions: Mapping[CaptionKey, NewCaption],
    policy: Policy,
    provenance: dict[str, Any],
    update: Callable[[float, float, str], None],
) -> dict[str, Any]:
    """Write an index of ``root`` with new captions into ``out``; return its manifest.

    A sample without a new caption keeps its old ones and is counted. The manifest's entry
    ``recaptioned`` tells who wrote the captions. An equal result is kept, an unfinished or stale
    one made anew. ``update`` is told (done, total, split). Raises ValueError for latents, whose
    caption states would no longer be of their captions, and for a folder that holds other things.
    """
    policy.check()
    check_target(root, out)
    splits = list_splits(root)
    parts = {
        "format": FORMAT,
        "source": source_digest(root, splits),
        "captions": [[*key, asdict(new)] for key, new in sorted(captions.items())],
        "policy": asdict(policy),
        "provenance": provenance,
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    if (out / MANIFEST_NAME).exists() and read_manifest(out)["recaptioned"]["digest"] == digest:
        return read_manifest(out)
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    counts: Counter[str] = Counter()
    manifest = read_manifest(root)
    digests: dict[Path, dict[str, Any]] = {}
    for number, split in enumerate(splits):
        update(number, len(splits), split)
        infos = [
            _joined(info, captions.get((split, info.key)), policy, counts)
            for info in read_index(root, split)
        ]
        shutil.rmtree(out / split, ignore_errors=True)
        (out / split).mkdir(parents=True)
        known = manifest.get("shards", {}).get(split, {})
        for name in sorted({info.shard for info in infos}):
            link = out / split / name
            link.symlink_to((root / split / name).resolve())
            digests[link] = known.get(name) or digest_of(link)
        write_index(out / split, infos)
    update(len(splits), len(splits), "")
    about = {
        "digest": digest,
        "source": parts["source"],
        "policy": asdict(policy),
        "short_captions": {k: n for k, n in sorted(counts.items()) if k not in ("new", "old")},
        "captions_written": counts["new"],
        "captions_left": counts["old"],
        "before": manifest.get("recaptioned"),
        **provenance,
    }
    kept = {k: v for k, v in manifest.items() if k not in OF_FILES}
    write_manifest(out, kept | {"recaptioned": about}, digests)
    return read_manifest(out)


def _joined(
    info: SampleInfo, new: NewCaption | None, policy: Policy, counts: Counter[str]
) -> SampleInfo:
    """Return a sample with its new captions, or with its old ones where there are none."""
    if info.media == "latent":
        raise ValueError(
            f"media=latent: {info.key!r} carries encoded captions, which new words would belie. "
            "Caption the clips, then encode them."
        )
    counts["old" if new is None else "new"] += 1
    if new is None:
        return info
    short, origin = policy.short_of(info, new)
    counts[origin] += 1
    scores = info.scores | new.scores
    return replace(info, caption=new.caption, short_caption=short, scores=scores)
