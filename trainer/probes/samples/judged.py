"""How far a continuation is from the true one, and which rules it breaks, state against state.

Bodies of a frame are matched by kind, the nearest first. A body that is wholly in sight and has no
match vanished; one that was found and is not there appeared. A match may be of another colour,
elsewhere (by more than ``FAR``) or of another size. Neither what no law binds nor what is the same
in every clip is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from data.worlds.tiny.state import (
    COLOUR,
    FULLY,
    HEIGHT,
    SEEN,
    THERE,
    WIDTH,
    Array,
    State,
    X,
    Y,
    match,
)

FAR = 1.0  # pixels by which a body may be misplaced or missized before a rule is broken
LOST = 8.0  # pixels that a body counts as away which is not there, and the most of any
BREAKS = ("vanish", "appear", "colour", "place", "size")
# Of a whole continuation: each is right where none of these breaks occurs in any frame.
PARTS = {
    "there": ("vanish", "appear"),
    "colour": ("vanish", "colour"),
    "place": ("vanish", "place"),
    "all": BREAKS,
}
LEVEL = 0.95


@dataclass(frozen=True)
class Judged:
    """One continuation, at each of the H frames after the splice.

    away: (H,) mean distance of its bodies in pixels, nan where none is in sight.
    breaks: (H, len(BREAKS)) counts of each kind.
    """

    away: Array
    breaks: Array

    def right(self, part: str) -> bool:
        """Say whether a part is right in all frames."""
        return not self.breaks[:, [BREAKS.index(name) for name in PARTS[part]]].any()


def compared_kinds(states: Sequence[State], free: Sequence[str]) -> list[str]:
    """Return the kinds of bodies that a law binds and that are not the same in every clip."""
    kinds = dict.fromkeys(kind for state in states for kind in state.kinds)
    return [
        kind
        for kind in kinds
        if kind not in free
        and any(not np.array_equal(state.of(kind), states[0].of(kind)) for state in states)
    ]


def judge(true: State, found: State, kinds: Sequence[str], first: int) -> Judged:
    """Compare the frames from ``first`` on; both states have as many frames."""
    frames = range(first, true.num_frames)
    away, breaks = np.full(len(frames), np.nan), np.zeros((len(frames), len(BREAKS)))
    for row, frame in enumerate(frames):
        distances: list[float] = []
        for kind in kinds:
            distances += _judge_frame(true.of(kind)[frame], found.of(kind)[frame], breaks[row])
        away[row] = np.mean(distances) if distances else np.nan
    return Judged(away, breaks)


def _judge_frame(ours: Array, theirs: Array, breaks: Array) -> list[float]:
    """Return the distances of bodies of one kind in one frame; add to counts of breaks."""
    here = ours[(ours[:, THERE] > 0) & (ours[:, SEEN] > 0)]
    hidden = ours[(ours[:, THERE] > 0) & (ours[:, SEEN] <= 0)]
    there = theirs[theirs[:, THERE] > 0]
    gaps = np.hypot(here[:, None, X] - there[None, :, X], here[:, None, Y] - there[None, :, Y])
    pairs = match(gaps)
    # What is hidden but for a soft edge may be found or not.
    unpaired = [there[n, COLOUR] for n in range(len(there)) if n not in pairs.values()]
    broken = {"appear": sum(colour not in hidden[:, COLOUR] for colour in unpaired)}
    distances = []
    for body in np.flatnonzero(here[:, SEEN] >= FULLY).tolist():
        if body not in pairs:
            broken["vanish"] = broken.get("vanish", 0) + 1
            distances.append(LOST)
            continue
        a, b, gap = here[body], there[pairs[body]], float(gaps[body, pairs[body]])
        distances.append(min(gap, LOST))
        sizes = max(abs(a[WIDTH] - b[WIDTH]), abs(a[HEIGHT] - b[HEIGHT]))
        for name, wrong in (("colour", a[COLOUR] != b[COLOUR]), ("place", gap > FAR),
                            ("size", sizes > FAR)):  # fmt: skip
            broken[name] = broken.get(name, 0) + int(wrong)
    for name, count in broken.items():
        breaks[BREAKS.index(name)] += count
    return distances


def summarise(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return means over continuations with 95 % intervals, as JSON.

    away: by frame after the splice. breaks: in 100 frames, in all and of each kind. parts: shares
    of continuations that are right in all frames. halves: the same of every other one, beside the
    share of the rest of which all is right, so that a product of parts meets trials of its own.
    """
    away = np.array([each.away for each in judged])  # (N, H)
    breaks = np.array([each.breaks for each in judged])  # (N, H, kinds)
    return {
        "clips": len(judged),
        "away": [_mean(column[~np.isnan(column)]) for column in away.T],
        "breaks": _mean(100 * breaks.sum(2).mean(1)),
        "by_kind": dict(zip(BREAKS, (100 * breaks.mean((0, 1))).tolist(), strict=True)),
        "parts": _shares(judged),
        "halves": {"parts": _shares(judged[::2]), "all": _shares(judged[1::2])["all"]},
    }


def _shares(judged: Sequence[Judged]) -> dict[str, float]:
    return {part: float(np.mean([each.right(part) for each in judged])) for part in PARTS}


def _mean(values: Array) -> dict[str, float | None]:
    if len(values) < 2:
        return {"value": float(values[0]) if len(values) else None, "low": None, "high": None}
    value, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    reach = float(student.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return {"value": value, "low": value - reach, "high": value + reach}
