"""How far the answer moves when the choices nobody can justify are made otherwise."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sweeps.fit.optimum.solve import Fit, refit
from sweeps.fit.words import counted

DELTAS = (0.1, 10.0)  # times delta
SHARE = 0.1  # of the rows left out at either end


def sensitivity(fit: Fit, quantity: Callable[[Fit], float | None]) -> list[dict[str, Any]]:
    """Refit with other deltas and without the least, largest and worst rows.

    `quantity` is the number that is decided on (the loss at a target compute); each entry holds the
    change, the coefficients and that quantity.
    """
    found = [{"change": "none", "coefficients": fit.coefficients, "quantity": quantity(fit)}]
    for name, other in _changes(fit):
        found.append(
            {"change": name, "coefficients": other.coefficients, "quantity": quantity(other)}
        )
    return found


def _changes(fit: Fit) -> Iterator[tuple[str, Fit]]:
    problem = fit.objective_of
    if np.isfinite(problem.delta):
        for factor in DELTAS:
            delta = factor * problem.delta
            yield f"delta={delta:g}", refit(fit, fit.columns, fit.target, delta)
    num = max(1, round(SHARE * len(fit.target)))
    if len(fit.target) - num <= fit.num_free or "curve" in fit.form.columns:
        return
    size = sum(np.log(fit.columns[c]) for c in fit.form.columns)
    worst = np.argsort(np.abs(fit.residuals), kind="stable")
    order = np.argsort(size, kind="stable")
    for name, kept in (
        (f"without the {counted(num, 'smallest run')}", order[num:]),
        (f"without the {counted(num, 'largest run')}", order[:-num]),
        (f"without the {counted(num, 'largest residual')}", worst[:-num]),
    ):
        rows = np.sort(kept)
        columns = {c: v[rows] for c, v in fit.columns.items()}
        yield name, refit(fit, columns, fit.target[rows], problem.delta)
