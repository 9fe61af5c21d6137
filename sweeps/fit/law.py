"""Many runs in, one law out: the fit, its frontier, its minima, its held-out test, its warnings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.fit import warnings as diagnose
from sweeps.fit.forms.base import FlopsPerToken, Form, Relation, Rows
from sweeps.fit.forms.catalogue import LOSS_FORMS, form_of
from sweeps.fit.general import fit_columns, without_diverged
from sweeps.fit.held_out import hold_out
from sweeps.fit.minima.by_splines import Minima, fit_minima
from sweeps.fit.minima.envelope import approach_1
from sweeps.fit.minima.frontier import compute_optimal
from sweeps.fit.minima.isoflop import exponents_of, isoflop_minima, parabola_bias
from sweeps.fit.optimum.profile import certify
from sweeps.fit.optimum.solve import Fit, fit_form
from sweeps.fit.result import Law
from sweeps.fit.rows.check import check_columns, excluded_reasons
from sweeps.fit.rows.runs import (
    Run,
    clusters_of,
    columns_of,
    group_budgets,
    interpolated_flops_per_token,
    noise_floor,
)
from sweeps.fit.rows.table import Table, number, read_table
from sweeps.fit.shared import plain, predictions_of, residual_scatter
from sweeps.fit.trust.bootstrap import bootstrap_fit
from sweeps.fit.trust.identified import identified
from sweeps.fit.trust.sensitivity import sensitivity


def fit_law(
    runs: Sequence[Run],
    flops_of: FlopsPerToken | None = None,
    *,
    form: str = "chinchilla",
    flops: Sequence[float] = (),
    level: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    delta: float | None = None,
    residual: str | None = None,
    mean: bool = False,
    fixed: Mapping[str, float] | None = None,
    sizes: Sequence[float] = (),
) -> Law:
    """Fit a form of (params, tokens) to `runs` and say how far it can be trusted.

    Args:
        runs: finished runs; those with a non-finite or diverged loss are excluded and listed.
        flops_of: training FLOPs per token of a model with these parameters, element by element
            and defined for any positive number; interpolated between the runs when None.
        form: its name in the catalogue: one of `LOSS_FORMS`.
        flops: the frontier's targets; the budgets and one step beyond them when empty.
        level: of all intervals; resamples: bootstrap refits; delta, residual and mean: of the
            objective, as published for the form when None; fixed: coefficients that keep a value.
        sizes: parameter counts that can be built: the frontier recommends the best of them.

    Raises:
        ValueError: the table cannot make a law, or an option is out of range.
    """
    check_options(level, resamples, delta, flops)
    shape = form_of(form)
    columns, losses = columns_of(runs)
    reasons = excluded_reasons({c: columns[c] for c in shape.columns}, losses)
    excluded = [
        {"name": r.name, "reason": why} for r, why in zip(runs, reasons, strict=True) if why
    ]
    runs = [r for r, why in zip(runs, reasons, strict=True) if not why]

    def fitting(some: Sequence[Run], shape: Form = shape) -> Fit:
        columns, loss = columns_of(some)
        check_columns(shape, columns, loss, len(fixed or {}))
        options: dict[str, Any] = {"delta": delta, "residual": residual, "mean": mean}
        return fit_form(shape, columns, loss, fixed=fixed, **options)

    # Where coefficients are fixed, those of other forms are not.
    others = {n: partial(fitting, shape=form_of(n)) for n in LOSS_FORMS if n != form and not fixed}
    fit, profiles = certify(fitting(runs), level)
    cost = flops_of or interpolated_flops_per_token(runs)
    budgets = group_budgets(runs)
    boot = bootstrap_fit(fit, clusters_of(runs), resamples, level, seed)
    targets = list(flops) or default_targets(runs, budgets)
    floor = noise_floor(runs)
    tables = [(c, fit.columns["params"][g], fit.target[g]) for c, g in budgets]
    minima, draws = isoflop_minima(tables, floor or 0.0, cost, level, resamples, seed)
    held, why = hold_out(runs, budgets, fitting, cost, level, resamples, seed, others)
    exponents = exponents_of(fit, boot, minima, draws) | {
        "approach_1": approach_1(
            fit.columns["params"], fit.columns["flops"], fit.target, clusters_of(runs), level,
            resamples, seed,
        ),
        "approach_2_bias": parabola_bias(fit, tables, cost),
    }  # fmt: skip

    def loss_at_target(other: Fit) -> float:
        return float(compute_optimal(other, other.theta, targets[-1], cost)[2][0])

    law = Law(
        runs=list(runs),
        budgets=budgets,
        fit=fit,
        bootstrap=boot,
        profiles=profiles,
        exponents=exponents,
        identified=identified(fit, boot, profiles),
        frontier=[],
        isoflop=minima,
        held_out=held,
        held_out_reason=why,
        sensitivity=sensitivity(fit, loss_at_target),
        scatter=residual_scatter(fit),
        noise_floor=floor,
        excluded=excluded,
        seed=seed,
        flops_per_token=cost,
        sizes=tuple(sizes),
        warnings=[],
    )
    law = replace(law, frontier=[law.at(c) for c in targets])
    return replace(law, warnings=diagnose.warn(law))


def check_options(
    level: float, resamples: int, delta: float | None, flops: Sequence[float]
) -> None:
    """Raise ValueError where an option is out of range."""
    if not 0 < level < 1:
        raise ValueError(f"level={level}: must be between 0 and 1. Use .9 or .95.")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: must be at least 1. Use 1000.")
    if delta is not None and not delta > 0:
        raise ValueError(f"delta={delta}: must be above 0. Use 1e-3, or inf for least squares.")
    if wrong := [c for c in flops if not (np.isfinite(c) and c > 0)]:
        raise ValueError(f"flops={wrong}: must be finite and above 0. Use e.g. [1e13,4e13].")


def default_targets(runs: Sequence[Run], budgets: Sequence[tuple[float, Rows]]) -> list[float]:
    """Return the budgets and the next one of their ladder; without budgets five between ends."""
    if len(budgets) > 1:
        known = [c for c, _ in budgets]
        return [*known, known[-1] ** 2 / known[-2]]
    flops = [r.flops for r in runs]
    return [float(c) for c in np.geomspace(min(flops), max(flops), 5)]


def fit_table(
    path: str | Path,
    *,
    form: str = "chinchilla",
    params: str = "params",
    tokens: str = "tokens",
    loss: str = "loss",
    columns: Mapping[str, str] | None = None,
    flops: Sequence[float] = (),
    level: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    delta: float | None = None,
    residual: str | None = None,
    mean: bool = False,
    fixed: Mapping[str, float] | None = None,
    sizes: Sequence[float] = (),
    drop_highest: int = 0,
    predict: str | Path | None = None,
    noise: float | None = None,
    flops_of: FlopsPerToken | None = None,
) -> dict[str, Any]:
    """Fit a table of runs and return the law's JSON as a dict; see `fit_law` for the options.

    `params`, `tokens` and `loss` name the columns, `columns` any others (ours -> theirs). Optional
    columns: `name`, `flops` (6 N D when absent), `budget`, `loss_noise`, `cluster`, `excluded`
    (with `reason`). `drop_highest` excludes that many rows of highest loss. `predict` is a second
    table, whose rows are predicted. `noise` is that of a repeat, for form=minima.

    Raises:
        ValueError: naming the column, the line, the rule and the remedy.
    """
    check_options(level, resamples, delta, flops)
    if residual not in (None, "log", "linear"):
        raise ValueError(f"residual={residual}: is not known. Use log or linear.")
    names = {"params": params, "tokens": tokens, "loss": loss} | dict(columns or {})
    if form == Minima.name:
        table = read_table(Path(path), Minima(), _used(names, Minima()), drop_highest)
        return plain(fit_minima(without_diverged(table), noise, flops, level, resamples, seed))
    shape = form_of(form)
    used = _used(names, shape)
    table = read_table(Path(path), shape, used, drop_highest)
    unseen = read_table(Path(predict), shape, used, target=False) if predict else None
    options: dict[str, Any] = {
        "flops": flops, "level": level, "resamples": resamples, "seed": seed, "delta": delta,
        "residual": residual, "mean": mean, "fixed": fixed,
    }  # fmt: skip
    if set(shape.columns) != {"params", "tokens"} or shape.target != "loss":
        return fit_columns(shape, table, unseen, **options)
    law = fit_law(runs_of(table), flops_of, form=form, sizes=sizes, **options)
    law = replace(law, excluded=table.excluded + law.excluded, warnings=table.notes + law.warnings)
    found = law.to_dict()
    if unseen is not None:
        found["predictions"] = plain(predictions_of(law.fit, law.bootstrap, unseen))
    return found


def _used(names: Mapping[str, str], form: Relation) -> dict[str, str]:
    """Return the column mapping without the defaults of columns that the form does not use."""
    wanted = {*form.columns, form.target}
    return {k: v for k, v in names.items() if k != v or k in wanted}


def runs_of(table: Table) -> list[Run]:
    """Return the rows of a table as runs."""
    runs = []
    for i, name in enumerate(table.names):
        row = {k: v[i] for k, v in table.optional.items()}

        def optional(
            column: str, row: dict[str, str] = row, line: int = table.lines[i]
        ) -> float | None:
            return number(row, column, line) if row.get(column, "") else None

        params, tokens = float(table.columns["params"][i]), float(table.columns["tokens"][i])
        runs.append(
            Run(
                name=name,
                params=params,
                tokens=tokens,
                flops=optional("flops") or 6 * params * tokens,
                loss=float(table.target[i]),
                loss_noise=optional("loss_noise"),
                cluster=row.get("cluster", "") or None,
                budget=optional("budget"),
            )
        )
    return runs
