"""The form `minima`: N* = N_1 C^a through the isoFLOP minima, by splines (Porian et al. 2024)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sweeps.fit.forms.base import Array, Relation
from sweeps.fit.minima.splines import SplineLaw, SplineMinimum, spline_law
from sweeps.fit.options import DEFAULTS, FitOptions
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


def fit_minima(table: Table, options: FitOptions = DEFAULTS) -> dict[str, Any]:
    """Fit the line through the minima and return the result's JSON as a dict, not yet plain.

    Of `options` count `noise`, `flops`, `level`, `resamples` and `seed`.

    Raises:
        ValueError: the runs form no budgets, or fewer than two have an interior minimum.
    """
    noise = _noise(table, options)
    tables = _losses_by_budget(table)
    law = spline_law(tables, noise, options.level, options.resamples, options.seed)
    kept = [m for m in law.minima if m.log_params is not None]
    targets = options.flops or [m.budget for m in kept]
    largest = max(m.budget for m in kept)
    verdict = _verdict(law, len(kept))
    verdicts = {"a": verdict, "N_1": verdict}
    tails = [50 - 50 * options.level, 50 + 50 * options.level]
    residuals = _residuals(law, kept)
    return {
        "form": Minima.name,
        "equation": Minima.equation,
        "coefficients": {"a": law.exponent, "N_1": law.coefficient},
        "objective": _objective(residuals, kept),
        "delta": None,
        "intervals": {
            "a": law.interval,
            "N_1": tuple(np.exp(np.percentile(law.draws[:, 1], tails))),
        },
        "level": options.level,
        "resamples": options.resamples,
        "resamples_failed": 1 - len(law.draws) / options.resamples,
        "seed": options.seed,
        "starts": {"tried": 1, "agreeing": 1},
        "gradient_norm": 0.0,
        "condition": None,
        "converged": True,
        "identified": verdicts,
        "frontier": [_frontier(law, float(c), options.level, largest) for c in targets],
        "held_out": None,
        "held_out_reason": "the minima of one budget cannot be left out of a spline",
        "r2": law.r2,
        "noise": noise,
        "minima": [_minimum(m) for m in law.minima],
        "residuals": residuals,
        "warnings": [*table.notes, *warn_identified(verdicts), *_warn(law.minima, noise)],
        "excluded": table.excluded,
    }


def _noise(table: Table, options: FitOptions) -> float:
    """Return the noise that is given, else the median of the table's, else none."""
    if options.noise is not None:
        return options.noise
    stated = [float(text) for text in table.optional.get("loss_noise", []) if text]
    return float(np.median(stated)) if stated else 0.0


def _losses_by_budget(table: Table) -> list[tuple[float, Array, Array]]:
    """Return (FLOPs, params, losses) of each budget."""
    params, spent, loss = table.columns["params"], table.columns["flops"], table.target
    runs = [Run("", n, c / (6 * n), c, y) for n, c, y in zip(params, spent, loss, strict=True)]
    budgets = group_budgets(runs)
    if not budgets:
        raise ValueError("flops=: the runs do not group by compute. Give runs at equal FLOPs.")
    return [(c, params[g], loss[g]) for c, g in budgets]


def _residuals(law: SplineLaw, kept: Sequence[SplineMinimum]) -> list[dict[str, Any]]:
    """Return each minimum with what the line through them predicts."""
    found = []
    for m in kept:
        at, predicted = m.log_params or 0, law.exponent * np.log(m.budget)
        predicted = float(np.log(law.coefficient) + predicted)
        found.append(
            {
                "name": f"{m.budget:.4g} FLOPs",
                "flops": m.budget,
                "params": np.exp(at),
                "predicted": np.exp(predicted),
                "log_residual": predicted - float(at),
            }
        )
    return found


def _objective(residuals: Sequence[dict[str, Any]], kept: Sequence[SplineMinimum]) -> float:
    """Return the sum of squares of the residuals over their spread."""
    off = np.array([row["log_residual"] for row in residuals])
    return float(np.sum((off / [m.spread for m in kept]) ** 2))


def _minimum(m: SplineMinimum) -> dict[str, Any]:
    """Return one budget's minimum for JSON."""
    return {
        "budget": m.budget,
        "params": None if m.log_params is None else np.exp(m.log_params),
        "loss": m.loss,
        "spread": m.spread,
        "interior": m.reason is None,
        "reason": m.reason,
    }


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
