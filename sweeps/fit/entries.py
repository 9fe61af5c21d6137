"""The entries of law.json that laws of every form share: the fit, its rows, predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweeps.fit.optimum.profile import Profile
from sweeps.fit.optimum.schedules import error_of_curves
from sweeps.fit.optimum.solve import Fit
from sweeps.fit.rows.table import Table
from sweeps.fit.trust.bootstrap import (
    Bootstrap,
    coefficient_intervals,
    percentile_interval,
    prediction_draws,
)
from sweeps.fit.trust.identified import Verdicts


def plain(value: Any) -> Any:
    """Return `value` with numpy scalars and tuples made plain and non-finite numbers None."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    return value


def residual_scatter(fit: Fit) -> float:
    """Return the root mean square of log residuals, for the degrees of freedom left."""
    left = max(len(fit.residuals) - fit.num_free, 1)
    return float(np.sqrt(np.sum(fit.residuals**2) / left))


def shared_keys(
    fit: Fit, boot: Bootstrap, profiles: Mapping[str, Profile], verdicts: Verdicts, seed: int
) -> dict[str, Any]:
    """Return what every result holds: the fit, its certificate, its intervals and verdicts."""
    return {
        "form": fit.form.name,
        "equation": fit.form.equation,
        "coefficients": fit.coefficients,
        "objective": fit.objective,
        "delta": fit.objective_of.delta,
        "residual": fit.objective_of.residual,
        "intervals": coefficient_intervals(fit, boot),
        "level": boot.level,
        "resamples": boot.resamples,
        "resamples_failed": boot.failed,
        "seed": seed,
        "starts": {"tried": fit.starts_tried, "agreeing": fit.starts_agreeing},
        "gradient_norm": fit.gradient_norm,
        "condition": fit.condition,
        "converged": fit.converged,
        "profile": {k: p.interval for k, p in profiles.items()},
        "identified": verdicts,
        "scatter": residual_scatter(fit),
    }


def residual_rows(fit: Fit, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return each row with what was predicted and log predicted / measured."""
    return [
        {"name": name}
        | {c: float(fit.columns[c][i]) for c in fit.form.columns}
        | {
            fit.form.target: float(fit.target[i]),
            "predicted": float(fit.target[i] * np.exp(fit.residuals[i])),
            "log_residual": float(fit.residuals[i]),
        }
        for i, name in enumerate(names)
    ]


def predictions_of(fit: Fit, boot: Bootstrap, unseen: Table) -> dict[str, Any]:
    """Return the predictions of the rows of another table, and their errors where measured.

    `mae_of_curves` is the mean over curves of each curve's mean absolute error, as the laws of
    curves publish it (Luo et al. 2025); `mae` is over rows, of which long curves have more.
    """
    values = fit.predict(unseen.columns)
    draws = prediction_draws(fit, boot, unseen.columns)
    count = len(fit.residuals)
    widen = np.sqrt(count / max(count - fit.num_free, 1))
    misfit = widen * np.random.default_rng(0).choice(fit.residuals, size=draws.shape)
    runs = draws * np.exp(-misfit)
    known = np.isfinite(unseen.target)
    rows = [
        {
            "name": name, "predicted": float(v),
            "interval": percentile_interval(draws[:, i], boot.level),
            "run_interval": percentile_interval(runs[:, i], boot.level),
            fit.form.target: float(unseen.target[i]),
        }
        for i, (name, v) in enumerate(zip(unseen.names, values, strict=True))
    ]  # fmt: skip
    if not known.any():
        return {"rows": rows}
    miss = values[known] - unseen.target[known]
    curves = [c for c, there in zip(unseen.optional.get("curve", []), known, strict=False) if there]
    each = error_of_curves(curves, miss) if curves else {}
    of_curves: dict[str, Any] = {}
    if each:
        of_curves = {"mae_of_curves": float(np.mean(list(each.values()))), "mae_by_curve": each}
    spread = np.sum((unseen.target[known] - unseen.target[known].mean()) ** 2)
    return {
        "rows": rows,
        "mae": float(np.mean(np.abs(miss))),
        **of_curves,
        "rmse": float(np.sqrt(np.mean(miss**2))),
        "mean_absolute_relative_error": float(np.mean(np.abs(miss) / unseen.target[known])),
        "r2": float(1 - np.sum(miss**2) / spread) if spread > 0 else None,
    }


def correlation(fit: Fit) -> dict[str, float] | None:
    """Return the correlations of the target and its log with the log of the only column."""
    if len(fit.form.columns) != 1:
        return None
    x = np.log(fit.columns[fit.form.columns[0]])
    if np.std(x) == 0 or np.std(fit.target) == 0:
        return None
    found = {"log_log": np.log(fit.target), "log_linear": fit.target}
    return {name: float(np.corrcoef(x, y)[0, 1]) for name, y in found.items()}
