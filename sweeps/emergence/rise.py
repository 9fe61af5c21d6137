"""How wide a rise is: a logistic curve in log compute (or in loss), its width profiled.

    y = low + (high - low) / (1 + exp(-(x - middle) / width))

For a middle and a width the rest is linear and is solved exactly, so that both are profiled over a
grid. A width of zero is a step; one far beyond the data is a straight line, a middle beyond it a
power law. The interval of the width holds all widths whose chi^2 is within 3.84 of the least, with
errors raised where even the best curve does not fit (Lampton, Margon and Bowyer 1976).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import chi2

from sweeps.emergence.finding import LEVEL, Array

TEN_TO_NINETY = 2 * np.log(9)  # widths of a logistic curve between a tenth and nine tenths
_WIDTHS, _MIDDLES = 60, 121
_WIDEST, _STEEPEST = 2.0, 1e-3  # of the range of x
_BEYOND = 0.5  # of the range, by which a middle may lie outside of it


@dataclass(frozen=True)
class Rise:
    """A rise of y over x.

    middle: of the best curve, in x. extent: of x, from a tenth to nine tenths; low, high: its 95 %
    interval. chi_square: of the best curve with ``freedom`` degrees of freedom. step: least chi^2
    of a step. further: coefficients of further columns, with their standard errors.
    """

    middle: float
    extent: float
    low: float
    high: float
    chi_square: float
    freedom: int
    step: float
    further: Array
    further_errors: Array

    @property
    def inflation(self) -> float:
        """By how much chi^2 exceeds what errors alone would give; at least 1."""
        return max(1.0, self.chi_square / self.freedom) if self.freedom else 1.0


def fit_rise(x: Array, y: Array, errors: Array, further: Array | None = None) -> Rise:
    """Fit a rise to y (K,) with standard errors, beside further columns (K, C) that add to it."""
    columns = np.ones((len(x), 1))
    if further is not None:
        columns = np.column_stack([columns, further])
    span = float(np.ptp(x))
    widths = np.geomspace(_STEEPEST * span, _WIDEST * span, _WIDTHS)
    middles = np.linspace(x.min() - _BEYOND * span, x.max() + _BEYOND * span, _MIDDLES)
    # A step may lie anywhere between two neighbours: their middle stands for all places there.
    middles = np.union1d(middles, (np.sort(x)[1:] + np.sort(x)[:-1]) / 2)
    shapes = expit((x - middles[:, None]) / widths[:, None, None])  # (W, M, K)
    squares = _squares(shapes, y, errors, columns)
    profile = squares.min(1)
    number = int(profile.argmin())
    place = int(squares[number].argmin())
    shape = shapes[number, place]
    design = np.column_stack([columns, shape])
    found = np.linalg.lstsq(design / errors[:, None], y / errors, rcond=1e-10)[0]
    freedom = max(len(x) - 3 - columns.shape[1], 0)
    scale = max(1.0, float(profile[number]) / freedom) if freedom else 1.0
    within = profile <= profile[number] + scale * chi2.ppf(LEVEL, 1)
    weighted = design / errors[:, None]
    spread = np.sqrt(np.diag(np.linalg.pinv(weighted.T @ weighted)) * scale)
    return Rise(
        middle=float(middles[place]),
        extent=float(widths[number] * TEN_TO_NINETY),
        low=0.0 if within[0] else float(widths[within].min() * TEN_TO_NINETY),
        high=float(widths[within].max() * TEN_TO_NINETY),
        chi_square=float(profile[number]),
        freedom=freedom,
        step=float(profile[0]),
        further=np.asarray(found[1:-1], dtype=np.float64),
        further_errors=spread[1:-1],
    )


def _squares(shapes: Array, y: Array, errors: Array, columns: Array) -> Array:
    """Return the chi^2 of each shape (..., K) once its height and the columns' are solved for.

    Only the part of a shape that the columns do not have counts (Frisch, Waugh and Lovell).
    """
    basis = np.linalg.qr(columns / errors[:, None])[0]  # (K, C)
    seen, target = shapes / errors, y / errors
    seen = seen - (seen @ basis) @ basis.T
    target = target - basis @ (basis.T @ target)
    norms = (seen**2).sum(-1)
    usable = norms > 1e-12 * (1 / errors**2).sum()
    found: Array = target @ target - np.where(usable, (seen @ target) ** 2, 0) / np.where(
        usable, norms, 1
    )
    return np.maximum(found, 0)
