"""The form `minima`: N* = N_1 C^a through the isoFLOP minima, by splines (Porian et al. 2024)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sweeps.fit.forms.base import Relation
from sweeps.fit.minima.splines import SplineLaw, SplineMinimum, spline_law
from sweeps.fit.rows.runs import Run, group_budgets
from sweeps.fit.rows.table import Table
from sweeps.fit.trust.identified import warn_identified

MAX_SPREAD = 2.0  # of the exponent's interval, as for any exponent
MIN_BUDGETS = 3  # two minima make a line that nothing can contradict


class Minima(Relation):
    """The columns that the minima need; there is no function of (params, tokens) to fit."""

    name = "minima"
    equation = "N* = N_1 flops^a through each budget's least loss over params (approach 2, splines)"
    columns = ("params", "flops")


def fit_minima(
    table: Table,
    noise: float | None,
    flops: Sequence[float] = (),
    level: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit the line through the minima and return the result's JSON as a dict, not yet plain.

    `noise` is the standard deviation of a repeat in the loss's unit: where None, the median of the
    table's `loss_noise`, else none.

    Raises:
        ValueError: the runs form no budgets, or fewer than two have an interior minimum.
    """
    params, spent, loss = table.columns["params"], table.columns["flops"], table.target
    runs = [Run("", n, c / (6 * n), c, y) for n, c, y in zip(params, spent, loss, strict=True)]
    budgets = group_budgets(runs)
    if not budgets:
        raise ValueError("flops=: the runs do not group by compute. Give runs at equal FLOPs.")
    stated = [float(text) for text in table.optional.get("loss_noise", []) if text]
    known = noise if noise is not None else float(np.median(stated)) if stated else 0.0
    tables = [(c, params[g], loss[g]) for c, g in budgets]
    law = spline_law(tables, known, level, resamples, seed)
    kept = [m for m in law.minima if m.log_params is not None]
    verdict = _verdict(law, len(kept))
    predicted = [float(np.log(law.coefficient) + law.exponent * np.log(m.budget)) for m in kept]
    residuals = [p - float(m.log_params or 0) for p, m in zip(predicted, kept, strict=True)]
    verdicts = {"a": verdict, "N_1": verdict}
    largest = max(m.budget for m in kept)
    targets = list(flops) or [m.budget for m in kept]
    warnings = [*table.notes, *warn_identified(verdicts), *_warn(law.minima, known)]
    draws = law.draws
    return {
        "form": Minima.name,
        "equation": Minima.equation,
        "coefficients": {"a": law.exponent, "N_1": law.coefficient},
        "objective": float(np.sum((np.array(residuals) / [m.spread for m in kept]) ** 2)),
        "delta": None,
        "intervals": {
            "a": law.interval,
            "N_1": tuple(np.exp(np.percentile(draws[:, 1], [50 - 50 * level, 50 + 50 * level]))),
        },
        "level": level,
        "resamples": resamples,
        "resamples_failed": 1 - len(draws) / resamples,
        "seed": seed,
        "starts": {"tried": 1, "agreeing": 1},
        "gradient_norm": 0.0,
        "condition": None,
        "converged": True,
        "identified": verdicts,
        "frontier": [_frontier(law, float(c), level, largest) for c in targets],
        "held_out": None,
        "held_out_reason": "the minima of one budget cannot be left out of a spline",
        "r2": law.r2,
        "noise": known,
        "minima": [
            {"budget": m.budget, "params": None if m.log_params is None else np.exp(m.log_params),
             "loss": m.loss, "spread": m.spread, "interior": m.reason is None, "reason": m.reason}
            for m in law.minima
        ],
        "residuals": [
            {"name": f"{m.budget:.4g} FLOPs", "flops": m.budget,
             "params": np.exp(m.log_params or 0), "predicted": np.exp(p), "log_residual": r}
            for m, p, r in zip(kept, predicted, residuals, strict=True)
        ],
        "warnings": warnings,
        "excluded": table.excluded,
    }  # fmt: skip


def _verdict(law: SplineLaw, num_minima: int) -> dict[str, bool | str | None]:
    low, high = law.interval
    if num_minima < MIN_BUDGETS:
        reason = f"{num_minima} interior minima: {MIN_BUDGETS} are needed"
    elif low <= 0 or high / low > MAX_SPREAD:
        reason = f"the exponent's interval [{low:.3g}, {high:.3g}] is too wide"
    else:
        reason = None
    return {"ok": reason is None, "reason": reason}


def _frontier(law: SplineLaw, flops: float, level: float, largest: float) -> dict[str, Any]:
    """Return N* at `flops`, and tokens at 6 N FLOPs each."""
    params, (low, high) = law.params(flops, level)
    return {
        "flops": flops, "params": params, "tokens": flops / (6 * params), "loss": None,
        "intervals": {
            "params": (low, high), "tokens": (flops / (6 * high), flops / (6 * low)), "loss": None,
        },
        "interior": True, "extrapolation_factor": flops / largest,
    }  # fmt: skip


def _warn(minima: Sequence[SplineMinimum], noise: float) -> list[str]:
    found = [
        f"The isoFLOP minimum at {m.budget:.3g} FLOPs is refused: {m.reason}."
        for m in minima
        if m.reason
    ]
    if noise <= 0:
        found.append(
            "The noise of a repeated run is unknown: the intervals hold only the grid's own width. "
            "Give noise=VALUE or a loss_noise column."
        )
    return found
