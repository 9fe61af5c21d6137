"""What an analysis hands to analysis.json and to the page: words, tables, panels."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Series:
    """Points or a line of a panel.

    x, y: in the panel's units; low, high: interval of each y, or empty. line: joined without marks.
    colour: number of the palette's colour, -1 for muted. hollow: marks that are refused.
    """

    label: str
    x: list[float]
    y: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    line: bool = False
    colour: int = 0
    hollow: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes. ticks: names of the whole numbers 0, 1, ... along x, if they are names."""

    title: str
    xlabel: str
    ylabel: str
    series: list[Series]
    xlog: bool = True
    ylog: bool = True
    ticks: list[str] = field(default_factory=list)


@dataclass
class Finding:
    """The answer of a study.

    answer: one sentence, the page's heading. said: what else it shows. warnings: what limits it.
    tables: titled rows. numbers: for programs, by name; laws: results of sweeps/fit, by name.
    """

    answer: str
    said: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tables: dict[str, list[Row]] = field(default_factory=dict)
    panels: list[Panel] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    laws: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; a number that is none becomes null."""
        found = _plain(asdict(self))
        assert isinstance(found, dict)
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return value if math.isfinite(value) else None


def included(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are not excluded."""
    return [row for row in rows if not row["excluded"]]


def grouped(rows: Sequence[Row], key: str) -> dict[Any, list[Row]]:
    """Return rows by the value of a column, in the order in which values first occur."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found
