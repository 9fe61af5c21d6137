"""What two recipes share: one form fitted to the runs of both, four times, each time less tied.

    one      everything is shared: they are one recipe
    scaled   each its own amplitudes: a recipe counts parameters and tokens by fixed factors
    floors   each its own floor too: the same exponents towards another loss
    apart    nothing is shared: two fits

Each holds the ones above it, so `nested_test` says what the runs ask for. It is made at a delta of
the size of the noise: at a far smaller one the forty rows at hand tell too little of the unit that
it divides by, and a test at 5 % refused the smaller form for 13 % of tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sweeps.fit.forms.base import Array, Columns
from sweeps.fit.forms.powers import SumOfPowers
from sweeps.fit.forms.shared import Shared
from sweeps.fit.optimum.nested import NestedTest, nested_test
from sweeps.fit.optimum.solve import Fit, completed, fit_form, refit
from sweeps.fit.options import FitOptions

SCALED, FLOORS, APART = "scaled", "floors", "apart"
UNLIKELY = 0.05  # a p-value below refuses the smaller form
HUBER = 1.345  # standard deviations: 95 % as sure as least squares where noise is Gaussian
STARTS = 6  # of each fit's own grid, besides the optimum of the fit before it


@dataclass(frozen=True)
class SharedFits:
    """Hold the fits by what is shared, and the tests.

    alike: of `one` within `scaled`; constant: of `scaled` within `apart`; slopes: of `floors`
    within `apart`, the same as `constant` of a form without a floor.
    """

    fits: Mapping[str, Fit]
    alike: NestedTest
    constant: NestedTest
    slopes: NestedTest

    @property
    def chosen(self) -> str:
        """Return the most tied of scaled, floors and apart that the runs do not refuse."""
        if self.constant.p >= UNLIKELY:
            return SCALED
        return FLOORS if FLOORS in self.fits and self.slopes.p >= UNLIKELY else APART


def fit_shared(
    single: SumOfPowers,
    recipes: tuple[str, ...],
    columns: Columns,
    target: Array,
    options: FitOptions,
) -> SharedFits:
    """Fit `single` to the rows of all `recipes`, whose place stands in the column `recipe`.

    Every fit starts, besides its own grid, from the optimum of the one before it, so that none is
    ever worse.
    """
    kinds = {p.name: p.kind for p in single.parameters}
    scaled = tuple(name for name, kind in kinds.items() if kind == "amplitude")
    floored = tuple(name for name, kind in kinds.items() if kind in ("amplitude", "floor"))
    one = fit_form(single, {c: columns[c] for c in single.columns}, target, options)
    fits: dict[str, Fit] = {}
    before = one
    for name, own in ((SCALED, scaled), (FLOORS, floored), (APART, tuple(kinds))):
        if name == FLOORS and floored == scaled:
            continue
        form = Shared(single, recipes, own)
        near = form.from_nested(before.coefficients)
        before = fit_form(form, columns, target, options, max_starts=STARTS, near=near)
        fits[name] = before
    return SharedFits(
        fits=fits,
        alike=_tested(one, fits[SCALED]),
        constant=_tested(fits[SCALED], fits[APART]),
        slopes=_tested(fits.get(FLOORS, fits[SCALED]), fits[APART]),
    )


def _tested(small: Fit, large: Fit) -> NestedTest:
    """Test `small` within `large`, both refitted at `HUBER` times the noise where delta is less.

    The noise is 1.4826 median |residual| of the smaller fit, so that a stray run does not set it.
    """
    assert isinstance(large.form, Shared)
    rows = len(small.target)
    spread = float(np.sqrt(rows / max(rows - small.num_free, 1)))
    delta = HUBER * 1.4826 * float(np.median(np.abs(small.residuals))) * spread
    if small.objective_of.residual != "log" or delta <= small.objective_of.delta:
        return nested_test(small, large)
    small, large = (refit(fit, fit.columns, fit.target, delta) for fit in (small, large))
    near = large.form.theta(**large.form.from_nested(small.coefficients))
    return nested_test(small, min(large, completed(large, near), key=lambda fit: fit.objective))
