"""What is read off a study's files for figures, tables and checklist alike."""

import math
from dataclasses import dataclass

from sweeps.report.inputs.isoflop import Inputs, Json, Run, mapping, records, to_number


@dataclass(frozen=True)
class Residual:
    """A fitted run with log(measured) - log(fitted)."""

    run: Run
    residual: float


def residuals(inputs: Inputs) -> list[Residual]:
    """Return the fitted runs that the law states a residual for."""
    # The law's residual is log(predicted) - log(measured).
    stated = {
        str(item.get("name")): -to_number(item.get("log_residual"))
        for item in records(inputs.law.get("residuals"))
    }
    return [
        Residual(run, stated[run.name])
        for run in inputs.runs
        if math.isfinite(stated.get(run.name, math.nan)) and run.params > 0
    ]


def seed_spread(inputs: Inputs) -> float:
    """Return the spread of the loss over seeds as a share of it, 0 where it is not known."""
    noise = mapping(inputs.study.get("seeds_noise"))
    spread, mean = to_number(noise.get("std")), to_number(noise.get("mean"))
    if not (spread > 0 and mean > 0):
        spread, mean = to_number(inputs.law.get("noise_floor")), 1.0
    return spread / mean if spread > 0 else 0.0


def isoflop_points(inputs: Inputs) -> list[Json]:
    """Return the law's isoFLOP minima, refused ones too."""
    return [p for p in records(inputs.law.get("isoflop")) if to_number(p.get("budget")) > 0]


def frontier(inputs: Inputs) -> list[Json]:
    """Return the law's frontier points in rising compute."""
    points = records(inputs.law.get("frontier"))
    return sorted(
        (p for p in points if to_number(p.get("flops")) > 0), key=lambda p: to_number(p["flops"])
    )
