"""Measure clips and leave some out: one small function and one threshold for each measure.

Scores are taken from frames reduced to ``data.media.shots.LOOK_SIDE`` pixels (text: ``TEXT_SIDE``)
and stored with every sample, so a threshold can be chosen from the histograms on the dataset's
page.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data.config import IngestConfig
from data.media.reject import Reject

Greys = UInt8[np.ndarray, "F H W"]

# Neighbouring frames of a still picture differ by less than this mean value after encoding.
STILL_LEVEL = 0.25
BLACK_PIXEL = 24
TEXT_SIDE = 480


@dataclass(frozen=True)
class Filter:
    """A measure, the config key of its limit, and on which side of it a clip must be."""

    name: str
    key: str
    at_least: bool
    remedy: str

    def limit(self, config: IngestConfig) -> float:
        """Return the threshold."""
        return float(getattr(config, self.key))

    def passes(self, score: float, config: IngestConfig) -> bool:
        """Say whether a clip with this score is kept."""
        limit = self.limit(config)
        return score >= limit if self.at_least else score <= limit


FILTERS = (
    Filter("seconds", "min_seconds", True, "Lower min_seconds to keep short clips."),
    Filter("side", "min_side", True, "Lower min_side to keep small pictures."),
    Filter("pixels", "max_pixels", False, "Raise max_pixels to keep large pictures."),
    Filter("motion", "min_motion", True, "Lower min_motion to keep calm clips."),
    Filter("static", "max_static", False, "Raise max_static to keep frozen clips."),
    Filter("black", "max_black", False, "Raise max_black to keep dark clips."),
    Filter("text", "max_text", False, "Raise max_text to keep titles and slides."),
)


def changes(greys: Greys) -> Float[np.ndarray, "F-1"]:
    """Return the mean absolute change from each frame to the next, in grey levels (0-255)."""
    return np.array([cv2.mean(cv2.absdiff(a, b))[0] for a, b in pairwise(greys)])


def motion(change: Float[np.ndarray, "F-1"]) -> float:
    """Return the mean of a clip's :func:`changes`, in grey levels (0-255)."""
    return float(np.mean(change))


def static(change: Float[np.ndarray, "F-1"]) -> float:
    """Return the share of frames that repeat the one before, in [0, 1]."""
    return float(np.mean(change < STILL_LEVEL))


def black(greys: Greys) -> float:
    """Return the share of pixels that are black, over all frames, in [0, 1]."""
    return float(np.mean(greys < BLACK_PIXEL))


def text(grey: UInt8[np.ndarray, "H W"]) -> float:
    """Return the share of a picture covered by rows of small, strong, closely set strokes.

    Strokes are where the morphological gradient is strong; joined sideways into lines, those wide,
    low and densely filled count as text. Finds Latin print; see docs/log.md for what it misses.
    """
    scale = min(1.0, TEXT_SIDE / max(grey.shape))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    edges = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
    strokes = cv2.threshold(edges, 48, 255, cv2.THRESH_BINARY)[1]
    lines = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, np.ones((1, 9), np.uint8))
    lines = cv2.morphologyEx(lines, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(lines)
    width, height, area = stats[:, 2], stats[:, 3], stats[:, 4]
    is_line = (height >= 5) & (height <= 0.2 * small.shape[0]) & (width >= 2 * height)
    is_line &= area >= 0.5 * width * height
    is_line[0] = False  # the background
    covered = 0
    for x, y, w, h in stats[is_line, :4].tolist():
        inside = strokes[y : y + h, x : x + w] > 0
        flips = np.count_nonzero(inside[:, 1:] != inside[:, :-1])
        if flips >= 0.15 * h * (w - 1):
            covered += w * h
    return covered / small.size


def clip_scores(greys: Greys, full: UInt8[np.ndarray, "H W"], seconds: float) -> dict[str, float]:
    """Return a clip's scores by filter name; ``full`` is its middle frame, unreduced and grey."""
    change = changes(greys)
    scores = {"seconds": seconds, "motion": motion(change), "static": static(change)}
    return rounded(scores | {"black": black(greys), "text": text(full)}, full)


def picture_scores(grey: UInt8[np.ndarray, "H W"]) -> dict[str, float]:
    """Return a still picture's scores: those that need no time."""
    return rounded({"black": black(grey[None]), "text": text(grey)}, grey)


def rounded(scores: dict[str, float], full: UInt8[np.ndarray, "H W"]) -> dict[str, float]:
    """Return scores to four places, with those of the size."""
    scores = {"side": float(min(full.shape)), "pixels": float(full.size)} | scores
    return {name: round(value, 4) for name, value in scores.items()}


def check_scores(scores: dict[str, float], config: IngestConfig) -> None:
    """Raise Reject by the first filter that a sample's scores do not pass."""
    for rule in FILTERS:
        if rule.name not in scores or rule.passes(scores[rule.name], config):
            continue
        score, limit = scores[rule.name], rule.limit(config)
        side = "under" if rule.at_least else "over"
        reason = f"{rule.name} {score:.4g} is {side} {rule.key}={limit:g}"
        raise Reject(reason, rule.remedy, rule.name, score, limit)
