"""Many runs in, one law out: the fit, its frontier, its minima, its held-out test, its warnings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.fit import diagnose
from sweeps.fit.bootstrap import (
    Bootstrap,
    FrontierPoint,
    Interval,
    IsoflopMinimum,
    bootstrap_fit,
    frontier_point,
    isoflop_minima,
    percentile_interval,
)
from sweeps.fit.forms import Array, FlopsPerToken, Points, Rows, predict
from sweeps.fit.held_out import HeldOut, hold_out
from sweeps.fit.runs import (
    Run,
    clusters_of,
    group_budgets,
    interpolated_flops_per_token,
    noise_floor,
    points_of,
)
from sweeps.fit.solve import Fit, fit_points


@dataclass(frozen=True)
class Law:
    """Hold a fitted law and everything said about it; `to_dict()` is its JSON."""

    runs: list[Run]
    points: Points
    budgets: list[tuple[float, Rows]]
    fit: Fit
    bootstrap: Bootstrap
    intervals: dict[str, Interval]
    exponents: dict[str, dict[str, Any]]
    identified: dict[str, dict[str, bool | str | None]]
    frontier: list[FrontierPoint]
    isoflop: list[IsoflopMinimum]
    held_out: HeldOut | None
    held_out_reason: str | None
    scatter: float
    noise_floor: float | None
    excluded: list[dict[str, str]]
    delta: float
    seed: int
    flops_per_token: FlopsPerToken
    warnings: list[str]

    def at(self, flops: float) -> FrontierPoint:
        """Return N*, D* and the loss at `flops`, with intervals."""
        largest = max(r.flops for r in self.runs)
        return frontier_point(self.fit, self.bootstrap, flops, self.flops_per_token, largest)

    def predict(self, params: Array, tokens: Array) -> Array:
        """Return the fitted loss at each (params, tokens)."""
        return predict(self.fit.form, self.fit.theta, np.asarray(params), np.asarray(tokens))[0]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: no NaN or infinity, they become None."""
        fit, boot = self.fit, self.bootstrap
        residuals = [
            {"name": r.name, "params": r.params, "tokens": r.tokens, "loss": r.loss,
             "predicted": r.loss * float(np.exp(e)), "log_residual": float(e)}
            for r, e in zip(self.runs, fit.residuals, strict=True)
        ]  # fmt: skip
        return plain(
            {
                "form": fit.form.name,
                "coefficients": fit.coefficients,
                "objective": fit.objective,
                "delta": self.delta,
                "intervals": self.intervals,
                "level": boot.level,
                "resamples": boot.resamples,
                "resamples_failed": boot.failed,
                "seed": self.seed,
                "starts": {"tried": fit.starts_tried, "agreeing": fit.starts_agreeing},
                "gradient_norm": fit.gradient_norm,
                "condition": fit.condition,
                "converged": fit.converged,
                "identified": self.identified,
                "exponents": self.exponents,
                "frontier": [asdict(p) for p in self.frontier],
                "isoflop": [asdict(m) for m in self.isoflop],
                "held_out": asdict(self.held_out) if self.held_out else None,
                "held_out_reason": self.held_out_reason,
                "scatter": self.scatter,
                "noise_floor": self.noise_floor,
                "residuals": residuals,
                "warnings": self.warnings,
                "excluded": self.excluded,
            }
        )


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
    left = max(len(fit.residuals) - len(fit.theta), 1)
    return float(np.sqrt(np.sum(fit.residuals**2) / left))


def fit_law(
    runs: Sequence[Run],
    flops_of: FlopsPerToken | None = None,
    *,
    flops: Sequence[float] = (),
    level: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    delta: float = 1e-3,
) -> Law:
    """Fit L(N, D) = E + A / N^alpha + B / D^beta to `runs` and say how far it can be trusted.

    Args:
        runs: finished runs; those with a non-finite or diverged loss are excluded and listed.
        flops_of: training FLOPs per token of a model with these parameters, element by element
            and defined for any positive number; interpolated between the runs when None.
        flops: the frontier's targets; the budgets and one step beyond them when empty.
        level: of all intervals; resamples: bootstrap refits; delta: of the Huber loss.

    Raises:
        ValueError: the table cannot make a law, or an option is out of range.
    """
    _check_options(level, resamples, delta, flops)
    columns = points_of(runs)
    reasons = diagnose.excluded_reasons(columns.params, columns.tokens, columns.loss)
    excluded = [
        {"name": r.name, "reason": why} for r, why in zip(runs, reasons, strict=True) if why
    ]
    runs = [r for r, why in zip(runs, reasons, strict=True) if not why]
    points = points_of(runs)
    diagnose.check_points(points)
    cost = flops_of or interpolated_flops_per_token(runs)
    budgets = group_budgets(runs)
    fit = fit_points(points, delta)
    boot = bootstrap_fit(fit, points, clusters_of(runs), resamples, level, seed, delta)
    targets = list(flops) or default_targets(runs, budgets)
    floor = noise_floor(runs)
    tables = [(c, points.params[g], points.loss[g]) for c, g in budgets]
    minima, draws = isoflop_minima(tables, floor or 0.0, cost, level, resamples, seed)
    held, why = hold_out(runs, budgets, cost, level, resamples, seed, delta)
    draws_of = fit.form.coefficients(boot.theta)
    law = Law(
        runs=list(runs),
        points=points,
        budgets=budgets,
        fit=fit,
        bootstrap=boot,
        intervals={k: percentile_interval(v, level) for k, v in draws_of.items()},
        exponents=_exponents(fit, boot, minima, draws),
        identified=diagnose.identified(fit, boot, points),
        frontier=[],
        isoflop=minima,
        held_out=held,
        held_out_reason=why,
        scatter=residual_scatter(fit),
        noise_floor=floor,
        excluded=excluded,
        delta=delta,
        seed=seed,
        flops_per_token=cost,
        warnings=[],
    )
    law = replace(law, frontier=[law.at(c) for c in targets])
    return replace(law, warnings=diagnose.warn(law))


def _check_options(level: float, resamples: int, delta: float, flops: Sequence[float]) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level={level}: must be between 0 and 1. Use .9 or .95.")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: must be at least 1. Use 1000.")
    if not (np.isfinite(delta) and delta > 0):
        raise ValueError(f"delta={delta}: must be finite and above 0. Use 1e-3.")
    if wrong := [c for c in flops if not (np.isfinite(c) and c > 0)]:
        raise ValueError(f"flops={wrong}: must be finite and above 0. Use e.g. [1e13,4e13].")


def default_targets(runs: Sequence[Run], budgets: Sequence[tuple[float, Rows]]) -> list[float]:
    """Return the budgets and the next one of their ladder; without budgets five between ends."""
    if len(budgets) > 1:
        known = [c for c, _ in budgets]
        return [*known, known[-1] ** 2 / known[-2]]
    flops = [r.flops for r in runs]
    return [float(c) for c in np.geomspace(min(flops), max(flops), 5)]


def _exponents(
    fit: Fit, boot: Bootstrap, minima: Sequence[IsoflopMinimum], draws: Array
) -> dict[str, dict[str, Any]]:
    """Return N*'s exponent of compute by approach 3, beta / (alpha + beta), and by approach 2."""

    def parametric(theta: Array) -> Array:
        found = fit.form.coefficients(theta)
        total = found["alpha"] + found["beta"]
        return np.divide(found["beta"], total, out=np.full_like(total, np.nan), where=total > 0)

    three = {"params": float(parametric(fit.theta[None])[0]), "interval": boot.of(parametric)}
    kept = [i for i, m in enumerate(minima) if m.interior]
    if len(kept) < 2:
        reason = f"{len(kept)} interior minima, at least 2 are needed"
        return {"approach_3": three, "approach_2": {"params": None, "reason": reason}}
    x = np.log([minima[i].budget for i in kept])
    slope = float(np.polyfit(x, np.log([minima[i].params or 1.0 for i in kept]), 1)[0])
    whole = draws[kept][:, np.isfinite(draws[kept]).all(axis=0)]
    slopes = np.polyfit(x - x.mean(), whole, 1)[0]
    two = {"params": slope, "interval": percentile_interval(slopes, boot.level)}
    return {"approach_3": three, "approach_2": two}


def fit_table(
    path: str | Path,
    *,
    form: str = "chinchilla",
    params: str = "params",
    tokens: str = "tokens",
    loss: str = "loss",
    flops: Sequence[float] = (),
    level: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    delta: float = 1e-3,
    flops_of: FlopsPerToken | None = None,
) -> dict[str, Any]:
    """Fit a csv of runs and return the law's JSON as a dict; see `fit_law` for the options.

    `params`, `tokens` and `loss` name the columns. Optional columns: `name`, `flops` (6 N D when
    absent), `budget`, `loss_noise`, `cluster`, `excluded` (with `reason`).

    Raises:
        ValueError: naming the column, the line, the rule and the remedy.
    """
    if form != "chinchilla":
        raise ValueError(f"form={form}: is not known. Use chinchilla.")
    rows = diagnose.read_rows(Path(path), {"params": params, "tokens": tokens, "loss": loss})
    runs, excluded = [], []
    for line, row in enumerate(rows, start=2):
        name = row.get("name", "").strip() or f"line {line}"
        if diagnose.truth(row, "excluded", line):
            why = row.get("reason", "").strip() or "marked excluded in the table"
            excluded.append({"name": name, "reason": why})
        else:
            runs.append(_run(row, name, line))
    law = fit_law(
        runs, flops_of, flops=flops, level=level, resamples=resamples, seed=seed, delta=delta
    )
    return replace(law, excluded=excluded + law.excluded).to_dict()


def _run(row: dict[str, str], name: str, line: int) -> Run:
    """Return one csv row as a run."""
    params, tokens, loss = (diagnose.number(row, c, line) for c in ("params", "tokens", "loss"))

    def optional(column: str) -> float | None:
        return diagnose.number(row, column, line) if row.get(column, "").strip() else None

    return Run(
        name=name,
        params=params,
        tokens=tokens,
        flops=optional("flops") or 6 * params * tokens,
        loss=loss,
        loss_noise=optional("loss_noise"),
        cluster=row.get("cluster", "").strip() or None,
        budget=optional("budget"),
    )
