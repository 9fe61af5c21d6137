"""A law read back from law.json: what its formula says anywhere, and what was said of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.fit.forms.base import Array, Columns, FlopsPerToken, Form, Interval
from sweeps.fit.forms.catalogue import loss_form_of
from sweeps.fit.minima.frontier import compute_optimal

SPAN = 1e8  # sizes searched: this factor either side, for budgets far from the runs


@dataclass(frozen=True)
class SavedPoint:
    """Hold one row of law.json's frontier: N*, D* and the loss at `flops`.

    loss_interval: the interval of the loss; extrapolation_factor: `flops` over the largest run's.
    """

    flops: float
    params: float
    tokens: float
    loss: float
    loss_interval: Interval
    extrapolation_factor: float


@dataclass(frozen=True)
class SavedLaw:
    """Hold a law of loss in parameters and tokens as law.json tells it.

    It has no resamples and no FLOPs of single runs: intervals are known where the file gives them.
    `columns` are the fitted rows' params and tokens, `theta` `(P,)` the coefficients as `form`
    takes them, `budgets` the compute that runs shared (empty where they shared none).
    """

    form: Form
    columns: Columns
    theta: Array
    coefficients: dict[str, float]
    level: float
    frontier: list[SavedPoint]
    budgets: list[float]
    warnings: list[str]

    @property
    def floor(self) -> float:
        """Return the loss that no run goes below by this law: E, or 0 of a form without."""
        kinds = {p.name: p.kind for p in self.form.parameters}
        return sum((v for k, v in self.coefficients.items() if kinds[k] == "floor"), 0.0)

    @property
    def largest_flops(self) -> float:
        """Return the compute of the largest run that was fitted."""
        last = self.frontier[-1]
        return last.flops / last.extrapolation_factor

    def predict(self, params: Array, tokens: Array) -> Array:
        """Return the loss at each (params, tokens)."""
        columns = {"params": np.asarray(params), "tokens": np.asarray(tokens)}
        with np.errstate(over="ignore"):
            return np.exp(self.form.bind(columns).log_prediction(self.theta[None])[0])

    def optimum(self, flops: float, flops_of: FlopsPerToken) -> tuple[float, float, float]:
        """Return N*, D* and the loss at `flops`, a token costing `flops_of(params)`.

        Raises:
            ValueError: the loss falls to the end of the sizes searched.
        """
        params, tokens, loss, interior = compute_optimal(self, self.theta, flops, flops_of, SPAN)
        if not interior[0]:
            raise ValueError(
                f"flops={flops:.3g}: the law has no best size there. Ask within the reach of its "
                "runs."
            )
        return float(params[0]), float(tokens[0]), float(loss[0])


def read_law(path: Path) -> SavedLaw:
    """Read a law.json that `Law.to_dict` gave.

    Raises:
        ValueError: it cannot be read, holds no law, or one that is not of params and tokens.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"law={path}: cannot be read ({error}). Give a study's law.json."
        ) from None
    if not isinstance(found, dict) or "form" not in found:
        raise ValueError(f"law={path}: names no form. Give what python -m sweeps.fit out= wrote.")
    try:
        form = loss_form_of(str(found["form"]))
        if not found.get("coefficients"):
            raise ValueError("; ".join([*found.get("warnings", []), "it has no coefficients."]))
        return saved_law(form, found)
    except ValueError as error:
        raise ValueError(f"law={path}: {error}") from None
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(
            f"law={path}: is not whole ({type(error).__name__}: {error}). Fit it again with "
            "python -m sweeps.fit."
        ) from None


def saved_law(form: Form, found: Mapping[str, Any]) -> SavedLaw:
    """Return the law that a JSON object of `Law.to_dict` tells.

    Raises:
        KeyError, TypeError, ValueError: an entry is missing, or is none.
    """
    rows = found["residuals"]
    if rows == []:
        raise ValueError("names no run that it was fitted to. Fit it again with sweeps.fit.")
    columns = {c: np.array([row[c] for row in rows], dtype=float) for c in form.columns}
    target = np.array([row[form.target] for row in rows], dtype=float)
    coefficients = {n: float(found["coefficients"][n]) for n in form.coefficient_names}
    placed = form.placed(columns, target)
    with np.errstate(invalid="ignore", divide="ignore"):
        theta = placed.theta(**coefficients)
    if not np.isfinite(theta).all():
        raise ValueError(f"coefficients={coefficients}: must be above 0. Fit it again.")
    frontier = [_point(row) for row in found["frontier"]]
    if not frontier:
        raise ValueError("has no frontier. Fit it to runs with FLOPs.")
    return SavedLaw(
        form=placed,
        columns=columns,
        theta=theta,
        coefficients=coefficients,
        level=float(found["level"]),
        frontier=frontier,
        budgets=[float(row["budget"]) for row in found.get("isoflop") or []],
        warnings=[str(warning) for warning in found.get("warnings") or []],
    )


def _point(row: Mapping[str, Any]) -> SavedPoint:
    """Return one row of the frontier; its interval is the loss itself where none is known."""
    low, high = (row.get("intervals") or {}).get("loss") or (None, None)
    loss = float(row["loss"])
    return SavedPoint(
        flops=float(row["flops"]),
        params=float(row["params"]),
        tokens=float(row["tokens"]),
        loss=loss,
        loss_interval=(loss if low is None else float(low), loss if high is None else float(high)),
        extrapolation_factor=float(row["extrapolation_factor"]),
    )
