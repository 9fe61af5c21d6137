"""Clips that show the same thing after a change: letterboxed, mirrored, cropped, begun later.

The fingerprint of ``data.media.fingerprint`` is of whole pictures at the clip's own times, so none
of these comes near it. Here a clip is its *looks*: frames of 24 x 24 grey levels, without black
borders, eight a second. Of each look, whole and cut to the middle, the lowest cosine frequencies
are a vector; a mirror changes the sign of the odd ones across. Candidates come from faiss (nearest
neighbours of single vectors), and are compared frame by frame at the shift that fits best: what
stands, and what moves, must both agree, so that a fixed camera is no copy of itself.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data.config import IngestConfig

SIDE, KEPT = 24, 8  # pixels of a look; frequencies of it, in each direction
LOOKS_A_SECOND, MOST_LOOKS = 8.0, 24
VIEWS = (1.0, 0.9, 0.8, 0.7)  # shares of the sides, about the middle
DARK = 24  # grey level under which a border is black
MOST_BORDER = 0.5  # of the picture; what is darker is a dark film
NEIGHBOURS, PROBES = 32, 16
SAME_LOOK = 0.97  # cosine of looks of one clip of which the first stands for both
FLAT_BELOW = 4000  # vectors that are compared one by one
LEAST_NEAR = 0.9  # cosine of a candidate
LEAST_STILL, LEAST_MOVING = 0.97, 0.7  # mean cosine of the pictures; of their changes in time
STILL_SHARE = 0.02  # changes below this share of the picture's own contrast are noise

Looks = UInt8[np.ndarray, "T 24 24"]
Vectors = Float[np.ndarray, "V T K"]


def looks_of(greys: UInt8[np.ndarray, "F H W"], fps: float) -> str:
    """Return the looks of a clip as text, for a fingerprint."""
    step = max(1, round((fps or 1) / LOOKS_A_SECOND), -(-len(greys) // MOST_LOOKS))
    top, bottom, left, right = inside_borders(greys)
    chosen = greys[::step, top:bottom, left:right]
    small = [cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for grey in chosen]
    return base64.b64encode(np.stack(small).tobytes()).decode()


def looks_from(text: str) -> Looks:
    """Return what :func:`looks_of` wrote."""
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(-1, SIDE, SIDE)


def inside_borders(greys: UInt8[np.ndarray, "F H W"]) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) of a clip's picture without black borders."""
    brightest = greys.max(0)
    spans: list[int] = []
    for axis in (1, 0):
        lit = np.flatnonzero(np.median(brightest, axis) >= DARK)
        length = brightest.shape[1 - axis]
        first, last = (int(lit[0]), int(lit[-1]) + 1) if len(lit) else (0, length)
        spans += [first, last] if last - first >= (1 - MOST_BORDER) * length else [0, length]
    return spans[0], spans[1], spans[2], spans[3]


@lru_cache(maxsize=1)
def projections() -> Float[np.ndarray, "V 576 K"]:
    """Return for each view the matrix from a look's pixels to its frequencies."""
    unit = np.eye(SIDE * SIDE, dtype=np.float32).reshape(-1, SIDE, SIDE)
    views = []
    for share in VIEWS:
        half = share * SIDE / 2
        # The middle of the view as an affine map, sampled at the size of a look.
        first = SIDE / 2 - half + share / 2 - 0.5  # pixels are told by their centres
        scale = np.array([[share, 0, first], [0, share, first]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cut = [
            cv2.warpAffine(u, scale, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
            for u in unit
        ]
        waves = [cv2.dct(c)[:KEPT, :KEPT].ravel()[1:] for c in cut]
        views.append(np.stack(waves))
    return np.stack(views)


@lru_cache(maxsize=1)
def mirror_signs() -> Float[np.ndarray, "K"]:
    """Return the signs by which a mirror multiplies the frequencies."""
    across = np.tile(np.arange(KEPT), (KEPT, 1)).ravel()[1:]
    return np.where(across % 2, -1.0, 1.0).astype(np.float32)


def vectors_of(looks: Looks) -> Vectors:
    """Return the frequencies of each look in each view."""
    flat = looks.reshape(len(looks), -1).astype(np.float32)
    return np.einsum("tp,vpk->vtk", flat, projections())


def changing(whole: Float[np.ndarray, "T K"]) -> list[int]:
    """Return the looks of a clip that differ from the one before them in this list."""
    lengths = unit(whole)
    kept = [0]
    for place in range(1, len(whole)):
        if lengths[place] @ lengths[kept[-1]] < SAME_LOOK:
            kept.append(place)
    return kept


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length 1, zeros where they have none."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


@dataclass(frozen=True)
class Copy:
    """How a clip was found to be like another: number of that one, and by which change."""

    other: int
    view: float
    mirrored: bool
    still: float
    moving: float


def compared(one: Vectors, other: Vectors) -> tuple[float, float, float, bool]:
    """Return (still, moving, view, mirrored) of the best fit of two clips.

    Whole pictures of each are held against the views of the other, at every shift that leaves half
    of the shorter one.
    """
    best = (0.0, 0.0, 1.0, False)
    pairs = [(one[0], other[v], share) for v, share in enumerate(VIEWS)]
    pairs += [(one[v], other[0], share) for v, share in enumerate(VIEWS) if v]
    for a, b, view in pairs:
        for mirrored in (False, True):
            turned = a * mirror_signs() if mirrored else a
            cosines = unit(turned) @ unit(b).T
            least = -(-min(cosines.shape) // 2)
            shifts = range(least - cosines.shape[0], cosines.shape[1] - least + 1)
            shift = max(shifts, key=lambda s: float(np.diagonal(cosines, s).mean()))
            still = float(np.diagonal(cosines, shift).mean())
            if still <= best[0]:
                continue
            best = (still, moving_of(turned, b, shift), view, mirrored)
    return best


def moving_of(one: np.ndarray, other: np.ndarray, shift: int) -> float:
    """Return the cosine of the changes in time of two clips of vectors, 1 where both stand."""
    first, second = max(0, -shift), max(0, shift)
    length = min(len(one) - first, len(other) - second)
    parts = one[first : first + length], other[second : second + length]
    moves = [part - part.mean(0) for part in parts]
    loud = [
        np.linalg.norm(move) > STILL_SHARE * np.linalg.norm(part)
        for move, part in zip(moves, parts, strict=True)
    ]
    if not all(loud):
        return float(not any(loud))
    return float(unit(moves[0].ravel()) @ unit(moves[1].ravel()))


def check_copies(config: IngestConfig) -> None:
    """Raise ValueError where copies are to be found and faiss is not installed."""
    if config.find_copies and find_spec("faiss") is None:
        raise ValueError(
            "find_copies=true: needs faiss. Install it: pip install 'kinescale[copies]'."
        )


def copies(clips: Sequence[Looks], sources: Sequence[str]) -> dict[int, list[Copy]]:
    """Return for each clip those of other sources that show the same, near-linear in clips."""
    import faiss

    vectors = [vectors_of(looks) for looks in clips]
    if not clips:
        return {}
    kept = [changing(v[0]) for v in vectors]
    owner = np.repeat(np.arange(len(clips)), [len(places) for places in kept])
    asked = np.concatenate([unit(v[0, [len(v[0]) // 3, 2 * len(v[0]) // 3]]) for v in vectors])
    queries = np.concatenate([asked, asked * mirror_signs()])
    asker = np.tile(np.repeat(np.arange(len(clips)), 2), 2)
    pairs: set[tuple[int, int]] = set()
    for view in range(len(VIEWS)):
        stored = np.concatenate([unit(v[view, at]) for v, at in zip(vectors, kept, strict=True)])
        kind = "Flat" if len(stored) < FLAT_BELOW else f"IVF{round(1.5 * len(stored) ** 0.5)},Flat"
        index: Any = faiss.index_factory(stored.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(np.ascontiguousarray(stored[:: max(1, len(stored) // 500_000)]))
            index.nprobe = PROBES
        index.add(stored)
        near, place = index.search(queries, min(NEIGHBOURS, len(stored)))
        pairs |= {
            (min(a, b), max(a, b))
            for a, cosines, places in zip(asker.tolist(), near, place, strict=True)
            for b in set(owner[places[(places >= 0) & (cosines >= LEAST_NEAR)]].tolist())
            if a != b and sources[a] != sources[b]
        }
    found: dict[int, list[Copy]] = {}
    for a, b in sorted(pairs):
        still, moving, share, mirrored = compared(vectors[a], vectors[b])
        if still >= LEAST_STILL and moving >= LEAST_MOVING:
            found.setdefault(a, []).append(Copy(b, share, mirrored, still, moving))
            found.setdefault(b, []).append(Copy(a, share, mirrored, still, moving))
    return found
