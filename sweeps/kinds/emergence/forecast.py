"""The registered forecast: forecast.json, written once, before a larger budget begins."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from sweeps.emergence.onset import Onset, find_onset, forecast_onset
from sweeps.kinds.emergence.config import LEAST_FOR_FORECAST
from sweeps.kinds.emergence.curves import Curve
from sweeps.study.answer import Row

FILE = "forecast.json"
FACTOR = 2.0  # within which a forecast onset is called right


def forecast(curves: Sequence[Curve], largest: float, begun: int) -> dict[str, Any]:
    """Forecast every ability's onset from the budgets up to ``largest``.

    begun: runs of larger budgets that have begun already; with any, nothing is registered.
    """
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "registered": not begun,
        "larger_runs_begun": begun,
        "from_budgets": sorted({point.budget for curve in curves for point in curve.points}),
        "largest": largest,
        "least": max((curve.least for curve in curves), default=0.0),
        "onsets": [
            {"world": curve.world, "property": curve.prop, "law": curve.law}
            | asdict(forecast_onset(*_columns(curve), curve.least))
            for curve in curves
            if len(curve.points) >= LEAST_FOR_FORECAST
        ],
    }


def unanswered(curves: Sequence[Curve], budgets: Sequence[float]) -> list[float]:
    """Return the budgets at which an ability has no point yet; all of them without any ability."""
    known = [{point.budget for point in curve.points} for curve in curves]
    return [budget for budget in budgets if not known or any(budget not in of for of in known)]


def onset_of(curve: Curve) -> Onset:
    """Return the onset among all budgets that were measured."""
    return find_onset(*_columns(curve), curve.least)


def _columns(curve: Curve) -> tuple[list[float], list[float], list[float]]:
    return curve.column("budget"), curve.column("value"), curve.column("error")


def compare(registered: dict[str, Any], curves: Sequence[Curve]) -> list[Row]:
    """Return a row for every forecast of a law's onset, beside what was found since."""
    now = {(curve.world, curve.prop): curve for curve in curves}
    rows: list[Row] = []
    for said in registered.get("onsets", []):
        curve = now.get((said["world"], said["property"]))
        if curve is None or not said["law"]:
            continue
        found, largest = onset_of(curve), curve.points[-1].budget
        rows.append(
            {
                "ability": curve.name,
                "forecast": said["verdict"],
                "low": said["low"],
                "high": said["high"],
                "found": found.verdict,
                "verdict": judge(said, found, largest),
            }
        )
    return rows


def judge(said: dict[str, Any], found: Onset, largest: float) -> str:
    """Say how a forecast did, ``largest`` being the largest budget measured since."""
    if said["seen"]:
        return "nothing to forecast: the budgets it saw had reached it"
    budget = float(said["budget"]) if said["budget"] is not None else np.nan
    if not np.isfinite(budget):
        return "forecast none, and it was reached" if found.seen else "forecast none, none came"
    if not found.seen:
        return "too early" if largest >= FACTOR * budget else "cannot be judged yet"
    # Budgets are a ladder: the onset lies between the one before and the one named.
    low, high = max(found.low, 1e-9), found.budget
    off = max(low / budget, budget / high, 1.0)
    side = "within" if off <= FACTOR else "not within"
    return f"{side} a factor of {FACTOR:g} (off by {off:.2g})"
