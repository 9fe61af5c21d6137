"""A fitted law: what a fit gives and what stands in law.json."""

from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.fit.bands import bands
from sweeps.fit.describe import describe
from sweeps.fit.entries import plain, residual_rows, shared_keys
from sweeps.fit.figure import draw_law
from sweeps.fit.forecast.choice import Choice
from sweeps.fit.forecast.frontier import foreseen
from sweeps.fit.forms.base import Array, FlopsPerToken, Rows
from sweeps.fit.held_out import HeldOut
from sweeps.fit.minima.frontier import FrontierPoint, frontier_draws, frontier_point
from sweeps.fit.minima.isoflop import IsoflopMinimum
from sweeps.fit.optimum.nested import NestedTest
from sweeps.fit.optimum.profile import Profile
from sweeps.fit.optimum.solve import Fit
from sweeps.fit.rows.runs import Run
from sweeps.fit.trust.bootstrap import Bootstrap
from sweeps.fit.trust.identified import Verdicts


@dataclass(frozen=True)
class Law:
    """Hold a fitted law and everything said about it.

    `to_dict()` is its JSON, of which `sweeps.fit.saved.read_law` reads back what the file holds.
    """

    runs: list[Run]
    budgets: list[tuple[float, Rows]]
    fit: Fit
    bootstrap: Bootstrap
    profiles: dict[str, Profile]
    exponents: dict[str, Any]
    identified: Verdicts
    frontier: list[FrontierPoint]
    isoflop: list[IsoflopMinimum]
    held_out: HeldOut | None
    held_out_reason: str | None
    sensitivity: list[dict[str, Any]]
    scatter: float
    noise_floor: float | None
    excluded: list[dict[str, str]]
    seed: int
    flops_per_token: FlopsPerToken
    sizes: tuple[float, ...]
    warnings: list[str]
    choice: Choice | None = None  # where the form was chosen and not named
    nested: list[NestedTest] = field(default_factory=list)  # of forms of which one holds another

    def at(self, flops: float) -> FrontierPoint:
        """Return N*, D* and the loss at `flops`, with intervals."""
        largest = max(r.flops for r in self.runs)
        fit, boot, cost = self.fit, self.bootstrap, self.flops_per_token
        draws = frontier_draws(fit, boot, flops, cost)
        point = frontier_point(fit, boot, flops, cost, largest, self.sizes, draws)
        return foreseen(point, self.choice, draws, boot.level, cost)

    def predict(self, params: Array, tokens: Array) -> Array:
        """Return the fitted loss at each (params, tokens)."""
        return self.fit.predict({"params": np.asarray(params), "tokens": np.asarray(tokens)})

    def bands(self) -> list[dict[str, float]]:
        """Return the frontier over compute with its intervals, a dict a row (`bands.COLUMNS`)."""
        return list(bands(self))

    def plot(self, path: str | Path | None = None) -> str:
        """Return the law as one picture, the text of an SVG, and write it to `path` if given."""
        picture = draw_law(self)
        if path is not None:
            Path(path).write_text(picture, encoding="utf-8")
        return picture

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the picture over what a terminal shows."""
        return f"{self.plot()}<pre>{escape(describe(self.to_dict()))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: no NaN or infinity, they become None."""
        fit, boot = self.fit, self.bootstrap
        return plain(
            {
                **shared_keys(fit, boot, self.profiles, self.identified, self.seed),
                "exponents": self.exponents,
                "frontier": [p.to_dict() for p in self.frontier],
                "isoflop": [asdict(m) for m in self.isoflop],
                "held_out": asdict(self.held_out) if self.held_out else None,
                "held_out_reason": self.held_out_reason,
                "sensitivity": self.sensitivity,
                "noise_floor": self.noise_floor,
                "residuals": residual_rows(fit, [r.name for r in self.runs]),
                "warnings": self.warnings,
                "excluded": self.excluded,
            }
            | ({"nested": [asdict(test) for test in self.nested]} if self.nested else {})
            | (self.choice.to_dict() if self.choice else {})
        )
