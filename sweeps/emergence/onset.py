"""At which budget an ability begins, and a forecast of it from smaller budgets.

The onset is the least budget at which the gap, law minus lawless twin, lies above zero with its
whole 95 % interval and is at least ``least``, there and at every larger budget measured. A gap that
is no more than certain is no ability: tiny runs exclude zero by hundredths of a percent. The
forecast takes the gap as a power of compute, a (C / C_max)^b, the foot of any logistic rise, and
meets it with the reach of the interval at the largest budget measured, or with ``least``:

    C* = C_max (max(z error, least) / a)^(1 / b)

Its interval is that of a parametric bootstrap: gaps are drawn again within their errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from sweeps.emergence.finding import LEVEL, Array, arrays, check_errors, check_rising

REACH = float(norm.ppf((1 + LEVEL) / 2))
_POWERS = np.linspace(0.2, 4.0, 77)
_FARTHEST = 1e3  # times the largest budget, beyond which a forecast says nothing


@dataclass(frozen=True)
class Onset:
    """Where an ability begins.

    budget: the onset in FLOPs, nan where there is none; low, high: its 95 % interval. seen: whether
    it was measured and not forecast. verdict: in words.
    """

    budget: float
    low: float
    high: float
    seen: bool
    verdict: str


def find_onset(
    budgets: Sequence[float] | Array, gaps: Sequence[float] | Array,
    errors: Sequence[float] | Array, least: float = 0.0,
) -> Onset:  # fmt: skip
    """Find the onset among measured budgets; its interval runs from the budget before it.

    least: the smallest gap that counts as an ability.
    """
    compute, gap, sigma = arrays(1, budgets=budgets, gaps=gaps, errors=errors)
    check_rising(compute)
    check_errors(sigma)
    above = (gap - REACH * sigma > 0) & (gap >= least)
    if not above[-1]:
        return Onset(np.nan, float(compute[-1]), np.inf, False, "not reached")
    first = len(above) - int(np.argmin(above[::-1])) if not above.all() else 0
    low = float(compute[first - 1]) if first else 0.0
    budget = float(compute[first])
    return Onset(budget, low, budget, True, f"begins at {budget:.3g} FLOPs or below")


def forecast_onset(
    budgets: Sequence[float] | Array, gaps: Sequence[float] | Array,
    errors: Sequence[float] | Array, least: float = 0.0, draws: int = 1000, seed: int = 0,
) -> Onset:  # fmt: skip
    """Forecast the onset from budgets that have not reached it; one that was reached is returned.

    least: the smallest gap that counts as an ability. Raises ValueError on fewer than four budgets.
    """
    compute, gap, sigma = arrays(4, budgets=budgets, gaps=gaps, errors=errors)
    found = find_onset(compute, gap, sigma, least)
    if found.seen:
        return found
    share = compute / compute[-1]
    rng = np.random.default_rng([0x0A5E, seed])
    own = _crossing(share, gap[None], sigma, least)[0]
    drawn = _crossing(share, gap + sigma * rng.standard_normal((draws, len(gap))), sigma, least)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="higher")
    largest = float(compute[-1])
    if own >= _FARTHEST or np.median(drawn) >= _FARTHEST:
        return Onset(np.nan, largest * float(low), np.inf, False, "no gap grows: no forecast")
    budget = largest * float(own)
    far = "" if high < _FARTHEST else ", or never"
    return Onset(
        budget, largest * float(low), largest * float(high) if high < _FARTHEST else np.inf, False,
        f"forecast at {budget:.3g} FLOPs, {own:.3g} times the largest budget{far}",
    )  # fmt: skip


def _crossing(share: Array, gaps: Array, sigma: Array, least: float) -> Array:
    """Return where powers fitted to gaps (R, K) begin, in largest budgets; at least 1."""
    weight = 1 / sigma**2
    shapes = share ** _POWERS[:, None]  # (P, K)
    norms = (weight * shapes**2).sum(1)
    heights = np.maximum((gaps * weight) @ shapes.T / norms, 0)  # (R, P)
    # Of all powers the one that fits best: least chi^2, less what all have alike.
    best = (heights**2 * norms).argmax(1)
    height = np.maximum(heights[np.arange(len(gaps)), best], 1e-300)
    reach = max(REACH * float(sigma[-1]), least) / height
    with np.errstate(over="ignore"):
        found: Array = np.clip(reach ** (1 / _POWERS[best]), 1, _FARTHEST)
    return found
