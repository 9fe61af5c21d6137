"""A form fitted to the first rows of a table, and then to more and more of them.

A record of forecasts is honest where no fit knows of rows beyond its origin. A log-Huber objective
has many local minima, and a descent that starts from the optimum of all rows ends in the one that
suits later rows best.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.fit.forms.base import Form
from sweeps.fit.optimum.solve import (
    Fit,
    completed,
    fit_form,
    own_starts,
    polish_from_afar,
    refit,
)
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.check import check_columns
from sweeps.fit.rows.runs import Run, columns_of

STARTS = 4  # of each fit that is one of many
STEPS = 40  # of a later origin's own start: a better valley shows by then
BETTER = 1e-6  # of the objective: less is the same optimum


@dataclass
class Origins:
    """Fit `form` to one origin after another, fewest rows first.

    The first fit has the form's own `STARTS`; each later one begins at the optimum of the origin
    before it, `last`, and at one start of its own rows, and takes the better end.
    """

    form: Form
    options: FitOptions
    last: Fit | None = None

    def fit(self, runs: Sequence[Run]) -> Fit | None:
        """Return the fit to the next origin's `runs`; None where they are too few for the form."""
        columns, loss = columns_of(runs)
        try:
            check_columns(self.form, columns, loss, len(self.options.fixed))
        except ValueError:
            return None
        with np.errstate(all="ignore"):  # a form that does not suit may overflow on its way
            if self.last is None:
                self.last = fit_form(self.form, columns, loss, self.options, max_starts=STARTS)
            else:
                moved = refit(self.last, columns, loss, self.last.objective_of.delta)
                self.last = _or_afresh(moved)
        return self.last


def _or_afresh(fit: Fit) -> Fit:
    """Return the fit, or the end of one start on its own rows where that is better."""
    low, high = fit.low, fit.high
    start = own_starts(fit.form, fit.columns, fit.target, (low, high), 1)
    ends, values, _ = polish_from_afar(fit.objective_of, start, low, high, STEPS)
    best = int(np.argmin(values))
    if values[best] >= fit.objective * (1 - BETTER) or not np.isfinite(values[best]):
        return fit
    return completed(fit, ends[best])
