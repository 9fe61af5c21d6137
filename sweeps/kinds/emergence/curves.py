"""An ability against compute: means over seeds at each budget's best size, with their errors.

Pairs are the same for every seed, so that more seeds do not make their error smaller. Seeds spread
by r times the size of a gap: with g the gap of a run and s its error over pairs,

    r^2 = sum over budgets of (n - 1) var(g) / sum of (n - 1) (mean(g)^2 + mean(s)^2)
    error^2 = mean(s)^2 + (t / z)^2 r^2 (mean(g)^2 + mean(s)^2) / n

t and z are the 95 % quantiles of Student's t, at the degrees of freedom of r, and of the normal
distribution, by which the tests and the forecast multiply an error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from sweeps.emergence.finding import LEVEL
from sweeps.study.answer import Row, grouped

_TAIL = (1 + LEVEL) / 2
REACH = float(norm.ppf(_TAIL))


@dataclass(frozen=True)
class Point:
    """One budget of a curve: seeds' mean, its error, and what stands beside it.

    seeds: how many. loss: mean of the runs on lawful clips. rows: of the table, a seed each.
    """

    budget: float
    value: float
    error: float
    seeds: int
    loss: float
    rows: list[Row]

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - REACH * self.error

    @property
    def high(self) -> float:
        """Upper end of it."""
        return self.value + REACH * self.error

    def mean(self, column: str) -> float:
        """Return the mean over seeds of another column."""
        return float(np.mean([row[column] for row in self.rows]))


@dataclass(frozen=True)
class Curve:
    """An ability: law minus twin over budgets, of each budget's best size.

    law: whether a law binds it; a free property is a control. every: rows of all sizes.
    spread: r of the module's words, nan where no budget has two seeds. least: the smallest gap that
    counts as an onset.
    """

    world: str
    prop: str
    law: bool
    points: list[Point]
    every: list[Row]
    spread: float
    freedom: int
    least: float = 0.0

    @property
    def name(self) -> str:
        """World and property."""
        return f"{self.world} {self.prop}"

    def column(self, name: str) -> list[float]:
        """Return budget, value, error or loss of all points."""
        return [float(getattr(point, name)) for point in self.points]

    def error_of(self, row: Row) -> float:
        """Return the error of one run, over pairs and as a draw among seeds."""
        return _error(row["learned"], row["learned_error"], self.spread, self.freedom, 1)


def curves_of(rows: Sequence[Row], look: str, least: float = 0.0) -> list[Curve]:
    """Return a curve for every ability of a table, laws first."""
    chosen: list[dict[str, Any]] = [
        row | {"ability": (row["world"], row["property"])} for row in rows if row["look"] == look
    ]
    found = [curve_of(members, least) for members in grouped(chosen, "ability").values()]
    return sorted(found, key=lambda curve: not curve.law)


def curve_of(rows: Sequence[Row], least: float = 0.0) -> Curve:
    """Return the curve of one ability's rows."""
    best = grouped([row for row in rows if row["best"]], "budget")
    groups = [best[budget] for budget in sorted(best)]
    over = under = 0.0
    freedom = 0
    for group in groups:
        gaps = [row["learned"] for row in group]
        size = np.mean(gaps) ** 2 + np.mean([row["learned_error"] for row in group]) ** 2
        freedom += len(group) - 1
        under += (len(group) - 1) * float(size)
        over += (len(group) - 1) * float(np.var(gaps, ddof=1)) if len(group) > 1 else 0.0
    spread = math.sqrt(over / under) if under else math.nan
    points = []
    for group in groups:
        value, pairs = (float(np.mean([row[k] for row in group]))
                        for k in ("learned", "learned_error"))  # fmt: skip
        error = _error(value, pairs, spread, freedom, len(group))
        loss = float(np.mean([row["loss"] for row in group]))
        points.append(Point(group[0]["budget"], value, error, len(group), loss, group))
    first = rows[0]
    return Curve(
        first["world"], first["property"], bool(first["law"]), points, list(rows), spread, freedom,
        least,
    )  # fmt: skip


def knee_among(curves: Sequence[Curve], seeds: Sequence[int]) -> float | None:
    """Return the first budget at which one seed has a law of the curves, None where none has.

    A seed has it whose interval over pairs lies above zero and whose gap is ``least`` or more. Only
    some seeds are asked, so that those that follow from the knee do not move it.
    """
    having = [
        point.budget
        for curve in curves
        for point in curve.points
        for row in point.rows
        if curve.law
        and row["seed"] in seeds
        and row["learned_low"] > 0
        and row["learned"] >= curve.least
    ]
    return min(having, default=None)


def _error(gap: float, pairs: float, spread: float, freedom: int, seeds: int) -> float:
    if not freedom:
        return pairs
    wider = float(student.ppf(_TAIL, freedom)) / REACH
    return math.sqrt(pairs**2 + (wider * spread) ** 2 * (gap**2 + pairs**2) / seeds)
