"""Find clips that show the same thing: a perceptual hash of frames and of what moves.

Appearance alone would call every clip of a fixed camera a duplicate, so the fingerprint has two
parts of equal weight: the low frequencies of three frames, and those of the changes between them
(where nothing moves, those of three parts of the picture).

How far copies and neighbouring clips are apart is not measured for this form of the fingerprint.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data.config import IngestConfig
from data.engine.source import Notes
from data.media.copies import copies, looks_from
from data.media.reject import Reject

NUM_HASHES = 6
BAND_DIGITS = 4  # hexadecimal: 16 bits


def distance(a: int, b: int) -> float:
    """Return how far two fingerprints, as integers, are apart, in bits of 64."""
    return (a ^ b).bit_count() / NUM_HASHES


@dataclass(frozen=True)
class Candidate:
    """A clip to compare: its split and key. ``rank`` says which look-alike stays: the lower."""

    id: tuple[str, str]
    source: str
    fingerprint: str
    rank: tuple[int | str, ...]


@dataclass(frozen=True)
class Match:
    """The nearest kept clip: whether it has the same source, and how many bits of 64 away."""

    id: tuple[str, str]
    same_source: bool
    distance: float


def near_duplicates(
    candidates: Sequence[Candidate], duplicate_bits: float, repeat_bits: float
) -> tuple[set[tuple[str, str]], dict[tuple[str, str], Match]]:
    """Return (ids to leave out, nearest kept clip of each clip that has one near).

    In order of rank, a clip stays unless one that stayed is near: within ``repeat_bits`` of 64 in
    its own source, ``duplicate_bits`` in another. The order of the input has no influence. Only
    clips that share one of 24 bands of 16 bits are compared (locality-sensitive hashing: Indyk and
    Motwani, 1998), so time stays nearly linear: of pairs 4 bits apart it compares all but 3 in
    100,000, of pairs 8 bits apart 95 %.
    """
    bands: dict[tuple[int, str], list[int]] = defaultdict(list)
    kept: list[tuple[Candidate, int]] = []
    left_out: set[tuple[str, str]] = set()
    nearest: dict[tuple[str, str], Match] = {}
    for clip in sorted(candidates, key=lambda c: c.rank):
        value = int(clip.fingerprint, 16)
        places = bands_of(clip.fingerprint)
        others = sorted({number for place in places for number in bands[place]})
        found = [
            Match(o.id, o.source == clip.source, distance(value, v))
            for o, v in (kept[number] for number in others)
        ]
        if found:
            nearest[clip.id] = min(found, key=lambda m: m.distance)
        close = [
            m for m in found if m.distance <= (repeat_bits if m.same_source else duplicate_bits)
        ]
        if close:
            left_out.add(clip.id)
            nearest[clip.id] = min(close, key=lambda m: m.distance)
            continue
        for place in places:
            bands[place].append(len(kept))
        kept.append((clip, value))
    return left_out, nearest


def bands_of(fingerprint: str) -> list[tuple[int, str]]:
    """Return the numbered bands of a fingerprint."""
    starts = range(0, len(fingerprint), BAND_DIGITS)
    return [(start, fingerprint[start : start + BAND_DIGITS]) for start in starts]


def drop_duplicates(
    sources: dict[str, tuple[str, list[dict[str, Any]]]], config: IngestConfig, notes: Notes
) -> set[tuple[str, str]]:
    """Return (split, key) of the samples that nearly repeat a kept one; list them in ``notes``.

    ``sources`` gives each source's split and the lines of its samples, whose metadata gets a score.
    Held-out splits choose first, then larger samples, so training never holds what is held out.
    """
    if max(config.duplicate_bits, config.repeat_bits) < 0 and not config.find_copies:
        return set()
    metas: dict[tuple[str, str], tuple[dict[str, Any], str]] = {}
    candidates: list[Candidate] = []
    seen: dict[tuple[str, str], str] = {}
    for name, (split, lines) in sources.items():
        for line in lines:
            meta = line["meta"]
            if not line["fingerprint"]:
                continue
            metas[split, meta["key"]] = meta, name
            rank = (split == "train", -size_of(meta), meta["key"])
            id = (split, meta["key"])
            bits, _, looks = line["fingerprint"].partition(":")
            candidates.append(Candidate(id, meta["source"], bits, rank))
            if looks:
                seen[id] = looks
    left_out, nearest = near_duplicates(candidates, config.duplicate_bits, config.repeat_bits)
    rest = sorted((c for c in candidates if c.id in seen), key=lambda c: c.rank)
    changed = changed_copies([c for c in rest if c.id not in left_out], seen)
    for id, why in changed.items():
        meta, file = metas[id]
        notes.reject(f"{file}: {meta['key']}", Reject(why, "Say find_copies=false to keep it."))
        drop_from(films_of(notes), file, meta)
    films = films_of(notes)
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
        drop_from(films, file, meta)
    return left_out | changed.keys()


def changed_copies(
    clips: Sequence[Candidate], seen: dict[tuple[str, str], str]
) -> dict[tuple[str, str], str]:
    """Return why clips, given by rank, are left out: each is a changed copy of one that stays."""
    if not clips:
        return {}
    found = copies([looks_from(seen[c.id]) for c in clips], [c.source for c in clips])
    reasons: dict[tuple[str, str], str] = {}
    for place, clip in enumerate(clips):
        for copy in found.get(place, []):
            other = clips[copy.other]
            if copy.other < place and other.id not in reasons:
                how = " mirrored" if copy.mirrored else ""
                how += f" cut to {copy.view:g}" if copy.view < 1 else ""
                reasons[clip.id] = f"shows what {other.id[1]} does{how or ' at other times'}"
                break
    return reasons


def films_of(notes: Notes) -> dict[str, dict[str, Any]]:
    """Return the accounts of films by name."""
    return {film["file"]: film for film in notes.films}


def drop_from(films: dict[str, dict[str, Any]], file: str, meta: dict[str, Any]) -> None:
    """Count the frames of a clip that is left out in its film's account."""
    if file in films:
        dropped, length = films[file]["dropped"], meta["num_frames"]
        films[file]["used"] -= length
        dropped["duplicate"] = dropped.get("duplicate", 0) + length


def size_of(meta: dict[str, Any]) -> int:
    """Return how many pixels a sample has, over all its frames."""
    return int(meta["num_frames"] * meta["height"] * meta["width"])
