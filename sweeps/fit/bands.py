"""The frontier of a law over compute, row by row: what a plot or a spreadsheet needs."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from sweeps.fit.forms.base import Rows
from sweeps.fit.minima.frontier import FrontierPoint
from sweeps.fit.minima.isoflop import IsoflopMinimum
from sweeps.fit.rows.runs import Run
from sweeps.fit.trust.bootstrap import Bootstrap

ROWS = 33
BEYOND = 10.0  # times the largest run: the last row
COLUMNS = (
    "flops", "params", "params_low", "params_high", "tokens", "tokens_low", "tokens_high",
    "tokens_per_param", "loss", "loss_low", "loss_high",
)  # fmt: skip


class Drawn(Protocol):
    """What a picture needs of a law."""

    @property
    def runs(self) -> Sequence[Run]:
        """Return the fitted runs."""

    @property
    def budgets(self) -> Sequence[tuple[float, Rows]]:
        """Return (FLOPs, run indices) of each budget."""

    @property
    def isoflop(self) -> Sequence[IsoflopMinimum]:
        """Return each budget's minimum."""

    @property
    def bootstrap(self) -> Bootstrap:
        """Return the resamples, whose level is that of every interval."""

    def at(self, flops: float) -> FrontierPoint:
        """Return N*, D* and the loss at `flops`."""


def bands(law: Drawn) -> Iterator[dict[str, float]]:
    """Yield `COLUMNS` from the least fitted compute to `BEYOND` times the largest.

    `_low` and `_high` are the ends of the law's intervals, at its level.
    """
    flops = [run.flops for run in law.runs]
    for compute in np.geomspace(min(flops), BEYOND * max(flops), ROWS):
        point = law.at(float(compute))
        row = {"flops": point.flops, "tokens_per_param": point.tokens / point.params}
        for name in ("params", "tokens", "loss"):
            low, high = point.intervals[name]
            row |= {name: getattr(point, name), f"{name}_low": low, f"{name}_high": high}
        yield {column: row[column] for column in COLUMNS}


def bands_text(law: Drawn) -> str:
    """Return the bands as a csv."""
    lines = [",".join(f"{value:.8g}" for value in row.values()) for row in bands(law)]
    return "\n".join([",".join(COLUMNS), *lines, ""])
