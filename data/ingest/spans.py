"""Time stamps: where in a film a clip lies, as other people's tables write it."""

import math
import re
from typing import Any

from data.ingest.tables import list_of
from data.media.reject import Reject

Span = tuple[float, float]  # seconds from the film's first frame, the end not included
CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")
REMEDY = "Write [start, end], each as seconds or H:MM:SS.mmm."


def seconds_of(value: Any) -> float:
    """Return a time in seconds, given as such or as ``H:MM:SS.mmm``. Raises Reject."""
    if isinstance(value, str):
        found = CLOCK.fullmatch(value.strip())
        if found:
            hours, minutes, seconds = (float((p or "0").replace(",", ".")) for p in found.groups())
            return 3600 * hours + 60 * minutes + seconds
    try:
        seconds = float(value)
    except (TypeError, ValueError) as error:
        raise Reject(f"{value!r:.60} is no time", REMEDY) from error
    if not math.isfinite(seconds):
        raise Reject(f"{value!r:.60} is no time", REMEDY)
    return seconds


def span_of(start: Any, end: Any) -> Span:
    """Return the span between two times. Raises Reject if it is empty or starts before the film."""
    span = seconds_of(start), seconds_of(end)
    if not 0 <= span[0] < span[1]:
        raise Reject(f"its stamps {start!r:.40} to {end!r:.40} hold no time", REMEDY)
    return span


def spans_of(value: Any) -> list[Span]:
    """Return the spans of a cell: one [start, end], or a list of such. Raises Reject."""
    found = list_of(value)
    if not found:
        raise Reject(f"its stamps {value!r:.60} are no [start, end]", REMEDY)
    pairs = [list_of(pair) for pair in found]
    if None in pairs:
        pairs = [found]
    spans = []
    for pair in pairs:
        if pair is None or len(pair) != 2:
            raise Reject(f"its stamps {value!r:.60} are no [start, end]", REMEDY)
        spans.append(span_of(*pair))
    return spans
