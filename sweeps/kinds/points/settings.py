"""Which settings have the least loss at each length, beside the spread over seeds.

It reads losses and seeds alone, so that runs of every kind can be asked. Differences between the
k settings of one length are judged all at once (Tukey and Kramer; Hochberg and Tamhane 1987,
section 3.2): with s the relative deviation over seeds, pooled over all settings, and n the seeds,

    log(mean_i / mean_j) +- q(level, k, degrees of s) s sqrt((1 / n_i + 1 / n_j) / 2)

so that naming the least of many costs no level.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.kinds.points.noise import Spread
from sweeps.kinds.points.table import EXTRA
from sweeps.kinds.points.worth import Worth, worth_sentences, worths
from sweeps.study.answer import Finding, Panel, Row, Series, grouped, included
from sweeps.study.results import COLUMNS

UNITS = {"flops": "FLOPs", "tokens_per_param": "tokens a parameter"}
MANY_DEGREES = 4  # of freedom; below them the spread itself is hardly known


@dataclass(frozen=True)
class Group:
    """The runs of one setting at one length, over seeds.

    name: the setting without the length. measures: means of what its kind measures beside the loss.
    """

    name: str
    length: float
    losses: list[float]
    measures: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean loss."""
        return float(np.mean(self.losses))


@dataclass(frozen=True)
class Gap:
    """How far a group's loss lies above the least of its length, with its interval; fractions.

    low, high: nan of the least itself, and where no two seeds tell the spread.
    """

    value: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether it is more than noise."""
        return self.low > 0


def settings(rows: Sequence[Row], spread: Spread | None, level: float, unit: str) -> Finding:
    """Answer which setting has the least loss at each length, and which are worse than noise."""
    groups = [_group(found) for found in grouped(included(rows), "setting").values()]
    if not groups:
        return Finding("No run finished.")
    finding = Finding("")
    means = {(g.name, g.length): (g.mean, len(g.losses)) for g in groups}
    found = worths(means, groups[0].name, spread, level) if unit == "flops" else {}
    worth = worth_sentences(found, groups[0].name, level)
    tables: list[Row] = []
    sentences = []
    for length in sorted({group.length for group in groups}):
        ranked = sorted((g for g in groups if g.length == length), key=lambda g: g.mean)
        gaps = gaps_of(ranked, spread, level)
        pairs = zip(ranked, gaps, strict=True)
        if found:
            found[groups[0].name, length] = Worth(1.0, math.nan, math.nan)
        tables += [_row(group, gap, found.get((group.name, length))) for group, gap in pairs]
        sentences.append(_sentence(ranked, gaps, level, f"{length:g} {UNITS.get(unit, unit)}"))
    finding.answer = sentences[-1]
    finding.said = [*worth, *sentences[:-1]]
    finding.said += _gains(groups, UNITS.get(unit, unit))
    finding.tables = {"Settings": tables}
    finding.panels = _panels(groups, spread, level, UNITS.get(unit, unit))
    best = min((g for g in groups if g.length == length), key=lambda g: g.mean)
    finding.numbers = {"best": best.name, "length": length, "loss": best.mean}
    if spread is None:
        finding.warnings.append(
            "No setting has two seeds: no difference can be told from noise. Set seeds=[0,1]."
        )
        return finding
    finding.numbers |= {"spread": spread.relative, "degrees": spread.degrees}
    finding.said.append(
        f"Two seeds of one setting differ by {100 * spread.relative:.2g} % in loss (standard "
        f"deviation, pooled over all settings, {spread.degrees} degrees of freedom)."
    )
    if spread.degrees < MANY_DEGREES:
        finding.warnings.append(f"The noise rests on {spread.degrees} degrees of freedom.")
    return finding


def gaps_of(ranked: Sequence[Group], spread: Spread | None, level: float) -> list[Gap]:
    """Return how far each group lies above the first, the least; intervals hold all at once."""
    best, found = ranked[0], [Gap(0.0, math.nan, math.nan)]
    width = math.nan
    if spread is not None and len(ranked) > 1:
        from scipy.stats import studentized_range  # as in noise.py

        width = float(studentized_range.ppf(level, len(ranked), spread.degrees)) * spread.relative
    for group in ranked[1:]:
        apart = math.log(group.mean / best.mean)
        half = width * math.sqrt((1 / len(group.losses) + 1 / len(best.losses)) / 2)
        found.append(Gap(*(math.expm1(x) for x in (apart, apart - half, apart + half))))
    return found


def _group(rows: Sequence[Row]) -> Group:
    first = rows[0]
    arm, _, shape, length = json.loads(first["group"])
    known = {*COLUMNS, *EXTRA, *first["axes"]}
    measured = [key for key in first if key not in known]
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("params", *measured)}
    words = [arm, *(f"{key}={value}" for key, value in first["axes"].items()), *shape]
    name = " ".join(word for word in words if word) or "the base"
    return Group(name, float(length), [float(row["loss"]) for row in rows], means)


def _row(group: Group, gap: Gap, worth: Worth | None) -> Row:
    told = {}
    if worth is not None:
        told = {"compute": worth.factor, "compute_low": worth.low, "compute_high": worth.high}
    return {
        "setting": group.name, "length": group.length, "seeds": len(group.losses),
        "mean_loss": group.mean, "above_least_percent": 100 * gap.value,
        "low_percent": 100 * gap.low, "high_percent": 100 * gap.high, **told,
        **group.measures,
    }  # fmt: skip


def _sentence(ranked: Sequence[Group], gaps: Sequence[Gap], level: float, where: str) -> str:
    """Say which setting is the least at one length, and which cannot be told from it."""
    best = f"At {where} the loss is least, {ranked[0].mean:.4g}, with {ranked[0].name}"
    if len(ranked) == 1:
        return f"{best}, the only setting that finished."
    if math.isnan(gaps[1].low):
        return f"{best}; {ranked[1].name} is {100 * gaps[1].value:.3g} % above it, in one seed."
    near = [group.name for group, gap in zip(ranked[1:], gaps[1:], strict=True) if not gap.told]
    next_one = (
        f"{ranked[1].name} is {100 * gaps[1].value:.3g} % above it ({100 * level:.0f} % interval "
        f"{100 * gaps[1].low:.3g} to {100 * gaps[1].high:.3g} %, all settings at once)"
    )
    verdict = f", and noise alone may part it from {', '.join(near)}" if near else ""
    return f"{best}{verdict}; {next_one}."


def _gains(groups: Sequence[Group], unit: str) -> list[str]:
    """Say by how much the loss falls from the shortest to the longest; nothing for one length."""
    first, last = (f(group.length for group in groups) for f in (min, max))
    short = {group.name: group.mean for group in groups if group.length == first}
    found = {g.name: 100 * (1 - g.mean / short[g.name])
             for g in sorted(groups, key=lambda g: g.mean)
             if g.length == last and g.name in short}  # fmt: skip
    if first == last or not found:
        return []
    name, gain = next(iter(found.items()))
    rest = f"; over all settings by {min(found.values()):.3g} to {max(found.values()):.3g} %"
    return [
        f"From {first:g} to {last:g} {unit} the loss of {name} falls by {gain:.3g} %"
        f"{rest * (len(found) > 1)}."
    ]


def _panels(groups: Sequence[Group], spread: Spread | None, level: float, unit: str) -> list[Panel]:
    names = list(dict.fromkeys(group.name for group in groups))
    by_length = []
    for number, name in enumerate(names):
        marks = _series(name, [g for g in groups if g.name == name], number, spread, level)
        by_length += [Series("", marks.x, marks.y, line=True, colour=number), marks]
    panels = [Panel("Loss against length", unit, "held-out loss", by_length)]
    longest = max(group.length for group in groups)
    last = [group for group in groups if group.length == longest]
    places = [Series("", [float(i)] * len(g.losses), g.losses, colour=names.index(g.name))
              for i, g in enumerate(last)]  # fmt: skip
    title = f"Every run at {longest:g} {unit}"
    panels.append(Panel(title, "setting", "held-out loss", places, xlog=False,
                        ticks=[group.name for group in last]))  # fmt: skip
    return panels if len({group.length for group in groups}) > 1 else panels[1:]


def _series(
    name: str, groups: Sequence[Group], colour: int, spread: Spread | None, level: float
) -> Series:
    """Return a setting's mean losses over lengths, each with the interval of its mean."""
    ordered = sorted(groups, key=lambda group: group.length)
    x, y = [group.length for group in ordered], [group.mean for group in ordered]
    if spread is None:
        return Series(name, x, y, colour=colour)
    from scipy.stats import t as student  # as in noise.py

    bound = float(student.ppf((1 + level) / 2, spread.degrees)) * spread.relative
    halves = [math.exp(bound / math.sqrt(len(group.losses))) for group in ordered]
    low = [value / half for value, half in zip(y, halves, strict=True)]
    high = [value * half for value, half in zip(y, halves, strict=True)]
    return Series(name, x, y, low, high, colour=colour)
