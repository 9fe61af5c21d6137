"""How much of what is true a caption says, and how much of what it says is not true.

Captions are read back to attributes (trainer/captioner/parse.py). Recall is measured against what
the true caption of the same clip states; an object is invented if nothing of its name is among the
objects that can be seen. Intervals are bootstraps over sources: clips of one map or one room are
not independent.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trainer.captioner.parse import ATTRIBUTES, Stated

RESAMPLES = 2000
INVENTED = ("objects", "kinds")
# Kinds and colours are parts of objects: they have rows of their own and do not count twice.
FACTS = tuple(name for name in ATTRIBUTES if name not in ("kinds", "colours"))


@dataclass
class Tally:
    """Counts of one clip: per attribute [right, stated truly], and what was said and invented."""

    source: str
    world: str
    right: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    said: dict[str, int] = field(default_factory=dict)
    invented: dict[str, int] = field(default_factory=dict)


def overlap(one: Sequence[str], other: Sequence[str]) -> int:
    """Count the phrases that two lists share; a phrase counts as often as both hold it."""
    return (Counter(one) & Counter(other)).total()


def tally(source: str, world: str, said: Stated, true: Stated, seen: Stated) -> Tally:
    """Count one clip: ``said`` against the true caption's ``true`` and the visible ``seen``."""
    made = Tally(source, world)
    for name in ATTRIBUTES:
        made.wanted[name] = len(true[name])
        made.right[name] = overlap(said[name], true[name])
    for name in INVENTED:
        made.said[name] = len(said[name])
        made.invented[name] = len(said[name]) - overlap(said[name], seen[name])
    return made


def majority(stated: Sequence[Stated]) -> Stated:
    """Return the caption that is right most often without looking: the commonest of everything.

    Of an attribute it states as many phrases as the median caption, the commonest ones; a phrase
    that captions often hold twice may come twice.
    """
    made: Stated = {}
    for name in ATTRIBUTES:
        counts: Counter[tuple[str, int]] = Counter()
        for one in stated:
            for phrase, times in Counter(one[name]).items():
                counts.update((phrase, number) for number in range(times))
        size = round(float(np.median([len(one[name]) for one in stated]))) if stated else 0
        ranked = sorted(counts, key=lambda item: (-counts[item], item))
        made[name] = [phrase for phrase, _ in ranked[:size]]
    return made


@dataclass(frozen=True)
class Share:
    """A ratio of sums over clips with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if not self.count:
            return "-"
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def share(tallies: Sequence[Tally], parts: Sequence[tuple[float, float]], seed: int = 0) -> Share:
    """Return sum(part) / sum(whole) over clips; the interval resamples sources (2.5 to 97.5 %)."""
    sources = sorted({t.source for t in tallies})
    place = {source: number for number, source in enumerate(sources)}
    sums = np.zeros((len(sources), 2))
    for one, values in zip(tallies, parts, strict=True):
        sums[place[one.source]] += values
    total = sums.sum(0)
    if not total[1]:
        return Share(0.0, 0.0, 0.0, 0)
    draws = np.random.default_rng(seed).integers(0, len(sources), (RESAMPLES, len(sources)))
    resampled = sums[draws].sum(1)  # (resamples, 2)
    ratios = resampled[:, 0] / np.maximum(resampled[:, 1], 1e-9)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Share(float(total[0] / total[1]), float(low), float(high), int(total[1]))


def recall(tallies: Sequence[Tally], names: Sequence[str] = FACTS) -> Share:
    """Return the share of the true caption's attributes that are said."""
    pairs = [(sum(t.right[n] for n in names), sum(t.wanted[n] for n in names)) for t in tallies]
    return share(tallies, pairs)


def invented(tallies: Sequence[Tally], name: str) -> Share:
    """Return the share of the objects said (``objects`` by full name, or ``kinds``) not there."""
    return share(tallies, [(t.invented[name], t.said[name]) for t in tallies])


def table(columns: Mapping[str, Sequence[Tally]]) -> list[str]:
    """Return a Markdown table in per cent: a row an attribute, a column a way to write captions."""
    titles = ["attribute", "in true captions", *columns]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]

    def row(title: str, count: int, shares: Sequence[Share]) -> None:
        if count:
            lines.append(f"| {title} | {count} | " + " | ".join(map(str, shares)) + " |")

    first = next(iter(columns.values()))
    total = sum(t.wanted[n] for t in first for n in FACTS)
    row("**all right**", total, [recall(tallies) for tallies in columns.values()])
    for name in ATTRIBUTES:
        shares = [recall(tallies, [name]) for tallies in columns.values()]
        row(f"{name} right", sum(t.wanted[name] for t in first), shares)
    for name in INVENTED:
        shares = [invented(tallies, name) for tallies in columns.values()]
        row(f"**{name} invented**", sum(t.wanted[name] for t in first), shares)
    return lines
