"""Analyses that fit one of the laws of sweeps/fit to the study's table."""

from collections.abc import Callable, Sequence
from pathlib import Path

from sweeps.grids.config import Analysis
from sweeps.grids.finding import Finding, Row

ANALYSES: dict[Analysis, Callable[[Sequence[Row], Path, float, int], Finding]] = {}
