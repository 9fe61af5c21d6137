"""What a simulator knows of one frame, as a set of short labels; and which of them are learned."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

# Of an object's frames those count in which a fair part of it can be seen (data.worlds.truth).
_SEEN = 0.3
# Attributes that speak of the whole clip or of words, not of what a frame shows.
_NOT_SEEN = {"actions", "events", "named", "also", "places", "verb", "move", "camera", "objects"}
_MOST_SHARE = 0.98


def frame_labels(truth: dict[str, Any], frame: int) -> set[str]:
    """Return the labels of a frame: its world, attributes, camera, and the objects in sight."""
    found = {f"world={truth['world']}", f"camera={truth['camera']['kind']}"}
    for name, value in truth["attributes"].items():
        if name in _NOT_SEEN:
            continue
        found |= {f"{name}={one}" for one in ([value] if isinstance(value, str) else value)}
    for track in truth["objects"]:
        if min(track["in_frame"][frame] or 0.0, track["visible"][frame] or 0.0) < _SEEN:
            continue
        found.add(f"sees={track['kind']}")
        if track["colour"]:
            found.add(f"sees={track['colour']} {track['kind']}")
            found.add(f"sees={track['colour']}")
    return found


def choose_labels(frames: Iterable[set[str]], most: int, min_share: float) -> list[str]:
    """Return the commonest labels, in a fixed order; those on nearly all frames teach nothing.

    Raises ValueError where no label is common enough.
    """
    counts: Counter[str] = Counter()
    total = 0
    for labels in frames:
        counts.update(labels)
        total += 1
    kept = [
        (count, label)
        for label, count in counts.items()
        if min_share <= count / max(total, 1) <= _MOST_SHARE
    ]
    if not kept:
        raise ValueError(
            f"min_share={min_share}: no label is that common on {total} frames. Use clips whose "
            "truth is known: kinescale worlds --help."
        )
    kept.sort(key=lambda item: (-item[0], item[1]))
    return [label for _, label in kept[:most]]
