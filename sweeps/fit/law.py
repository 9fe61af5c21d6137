"""Many runs in, one law out: the fit, its frontier, its minima, its held-out test, its warnings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sweeps.fit.against import against
from sweeps.fit.entries import plain, predictions_of, residual_scatter
from sweeps.fit.forecast.agreement import exponent_spread
from sweeps.fit.forecast.choice import AUTO, Choice, choose
from sweeps.fit.forms.base import FlopsPerToken, Rows
from sweeps.fit.forms.catalogue import CHINCHILLA, LOSS_FORMS, form_of, loss_form_of
from sweeps.fit.general import fit_columns, without_diverged
from sweeps.fit.held_out import hold_out
from sweeps.fit.law_warnings import warn
from sweeps.fit.minima.envelope import approach_1
from sweeps.fit.minima.form import Minima, fit_minima
from sweeps.fit.minima.frontier import compute_optimal
from sweeps.fit.minima.isoflop import IsoflopMinimum, exponents_of, isoflop_minima, parabola_bias
from sweeps.fit.optimum.nested import NestedTest, nested_tests
from sweeps.fit.optimum.profile import certify
from sweeps.fit.optimum.solve import Fit, fit_runs
from sweeps.fit.options import DEFAULTS, FitOptions
from sweeps.fit.result import Law
from sweeps.fit.rows.check import excluded_reasons, near_best
from sweeps.fit.rows.read import Source
from sweeps.fit.rows.runs import (
    Run,
    clusters_of,
    columns_of,
    group_budgets,
    interpolated_flops_per_token,
    noise_floor,
)
from sweeps.fit.rows.table import Table, number, read_table
from sweeps.fit.rows.y_axis import YAxis
from sweeps.fit.trust.bootstrap import Bootstrap, bootstrap_fit
from sweeps.fit.trust.identified import identified
from sweeps.fit.trust.sensitivity import sensitivity


def fit_law(
    runs: Sequence[Run],
    form: str = AUTO,
    options: FitOptions = DEFAULTS,
    *,
    flops_of: FlopsPerToken | None = None,
) -> Law:
    """Fit a form of (params, tokens) to `runs` and say how far it can be trusted.

    Args:
        runs: finished runs; those with a non-finite or diverged loss are excluded and listed.
        form: its name in the catalogue: one of `LOSS_FORMS`; `auto` chooses (`forecast/choice.py`).
        flops_of: training FLOPs per token of a model with these parameters, element by element
            and defined for any positive number; interpolated between the runs when None.

    Raises:
        ValueError: the runs cannot make a law, or the form is none of params and tokens.
    """
    if form != AUTO:
        return _law(runs, form, options, flops_of)
    with np.errstate(all="ignore"):  # a form that does not suit may overflow on its way
        return _law(runs, form, options, flops_of)


def _law(
    runs: Sequence[Run], form: str, options: FitOptions, flops_of: FlopsPerToken | None
) -> Law:
    """Return what `fit_law` does."""
    runs, excluded = _usable(runs, options)
    if not runs:
        raise ValueError("table=: no row is left to fit. Exclude fewer.")
    cost = flops_of or interpolated_flops_per_token(runs)
    budgets = group_budgets(runs)
    choice = choose(runs, budgets, cost, options) if form == AUTO else None
    shape = loss_form_of(choice.form if choice else form)
    fit, profiles = certify(fit_runs(shape, runs, options), options.level)
    boot = bootstrap_fit(fit, clusters_of(runs), options.resamples, options.level, options.seed)
    targets = list(options.flops) or default_targets(runs, budgets)
    minima, exponents = _approaches(fit, boot, runs, budgets, cost, options)
    held, why = hold_out(runs, budgets, None if choice else shape, cost, options)
    law = Law(
        runs=runs,
        budgets=budgets,
        fit=fit,
        bootstrap=boot,
        profiles=profiles,
        exponents=exponents | _spread(exponents, choice, cost),
        identified=identified(fit, boot, profiles),
        frontier=[],
        isoflop=minima,
        held_out=held,
        held_out_reason=why,
        sensitivity=sensitivity(fit, _loss_at(targets[-1], cost)),
        scatter=residual_scatter(fit),
        noise_floor=noise_floor(runs),
        excluded=excluded,
        seed=options.seed,
        flops_per_token=cost,
        sizes=tuple(options.sizes),
        warnings=[],
        choice=choice,
        nested=_nested(fit, choice, runs, options),
    )
    law = replace(law, frontier=[law.at(c) for c in targets])
    return replace(law, warnings=warn(law))


def _nested(
    fit: Fit, choice: Choice | None, runs: Sequence[Run], options: FitOptions
) -> list[NestedTest]:
    """Return whether the rows ask for a form that holds another one, where both are at hand."""
    if choice:
        return nested_tests({name: c.fit for name, c in choice.candidates.items()})
    inner = fit.form.nested
    if inner is None:
        return []
    shared = {k: v for k, v in options.fixed.items() if k in inner.coefficient_names}
    return nested_tests(
        {fit.form.name: fit, inner.name: fit_runs(inner, runs, replace(options, fixed=shared))}
    )


def _loss_at(flops: float, cost: FlopsPerToken) -> Callable[[Fit], float]:
    """Return what tells the least loss of a budget by any fit."""
    return lambda fit: float(compute_optimal(fit, fit.theta, flops, cost)[2][0])


def _spread(
    exponents: dict[str, Any], choice: Choice | None, cost: FlopsPerToken
) -> dict[str, Any]:
    """Return the exponent with the spread of forms; nothing where a form was named."""
    return {"spread": exponent_spread(exponents, choice, cost)} if choice else {}


def _usable(runs: Sequence[Run], options: FitOptions) -> tuple[list[Run], list[dict[str, str]]]:
    """Return the runs that can be fitted, and the others with the reason."""
    columns, losses = columns_of(runs)
    reasons = excluded_reasons({c: columns[c] for c in ("params", "tokens")}, losses)
    pairs = list(zip(runs, reasons, strict=True))
    excluded = [{"name": run.name, "reason": why} for run, why in pairs if why]
    kept = [run for run, why in pairs if not why]
    if options.within is None:
        return kept, excluded
    budgets = group_budgets(kept)
    if not budgets:
        raise ValueError(
            f"within={options.within}: needs runs that share compute, and these form no budgets. "
            "Leave it out, or give a budget column."
        )
    near, far = near_best(kept, budgets, options.within)
    return near, excluded + far


def _approaches(
    fit: Fit,
    boot: Bootstrap,
    runs: Sequence[Run],
    budgets: Sequence[tuple[float, Rows]],
    cost: FlopsPerToken,
    options: FitOptions,
) -> tuple[list[IsoflopMinimum], dict[str, Any]]:
    """Return the budgets' minima, and the exponent of N* by each approach."""
    level, resamples, seed = options.level, options.resamples, options.seed
    params, flops = fit.columns["params"], fit.columns["flops"]
    tables = [(c, params[g], fit.target[g]) for c, g in budgets]
    floor = noise_floor(runs) or 0.0
    minima, draws = isoflop_minima(tables, floor, cost, level, resamples, seed)
    clusters = clusters_of(runs)
    return minima, exponents_of(fit, boot, minima, draws) | {
        "approach_1": approach_1(params, flops, fit.target, clusters, level, resamples, seed),
        "approach_2_bias": parabola_bias(fit, tables, cost),
    }


def default_targets(runs: Sequence[Run], budgets: Sequence[tuple[float, Rows]]) -> list[float]:
    """Return the budgets and the next one of their ladder; without budgets five between ends."""
    if len(budgets) > 1:
        known = [c for c, _ in budgets]
        return [*known, known[-1] ** 2 / known[-2]]
    flops = [r.flops for r in runs]
    return [float(c) for c in np.geomspace(min(flops), max(flops), 5)]


def fit_table(
    source: Source,
    form: str = AUTO,
    options: FitOptions = DEFAULTS,
    *,
    columns: Mapping[str, str] | None = None,
    drop_highest: int = 0,
    predict: Source | None = None,
    published: Mapping[str, float] | None = None,
    y_axis: YAxis | None = None,
) -> dict[str, Any]:
    """Fit a table of runs and return the law's JSON as a dict.

    `source` is a path (csv, jsonl, json, parquet), a DataFrame (pandas or polars), a list of dicts
    or `wandb:entity/project`. `columns` names the table's columns where they are not called as here
    (ours -> theirs). Besides the form's own it may hold: `name`, `flops` (6 N D when absent),
    `budget`, `loss_noise`, `cluster`, `excluded` (with `reason`). `drop_highest` excludes that many
    rows of highest loss. `predict` is a second table, whose rows are predicted; `published` are
    coefficients of the same form, which the rows are asked to contradict. `y_axis` weighs the
    table's losses by stratum of time (`rows/y_axis.py`); None takes `loss` as it stands.

    Raises:
        ValueError: naming the column, the line, the rule and the remedy.
    """
    return fit_both(
        source, form, options, columns=columns, drop_highest=drop_highest, predict=predict,
        published=published, y_axis=y_axis,
    )[0]  # fmt: skip


def fit_both(
    source: Source,
    form: str = AUTO,
    options: FitOptions = DEFAULTS,
    *,
    columns: Mapping[str, str] | None = None,
    drop_highest: int = 0,
    predict: Source | None = None,
    published: Mapping[str, float] | None = None,
    y_axis: YAxis | None = None,
) -> tuple[dict[str, Any], Law | None]:
    """Return what `fit_table` does, and the law itself where it is one of (params, tokens)."""
    names = dict(columns or {})
    asked = _asked(options, names, drop_highest, y_axis)
    if published and form not in (AUTO, *LOSS_FORMS):
        raise ValueError(
            f"against=: form={form} is no law of params and tokens. Use one of "
            f"{', '.join(LOSS_FORMS)}."
        )
    if form == Minima.name:
        table = read_table(source, Minima(), names, drop_highest, y_axis=y_axis)
        return plain(fit_minima(without_diverged(table), options)) | asked, None
    shape = CHINCHILLA if form == AUTO else form_of(form)
    unseen = None if predict is None else read_table(predict, shape, names, target=False)
    if form not in (AUTO, *LOSS_FORMS):
        table = read_table(source, shape, names, drop_highest, y_axis=y_axis)
        return fit_columns(shape, table, unseen, options) | asked, None
    law = law_of_table(
        source, form, options, columns=names, drop_highest=drop_highest, y_axis=y_axis
    )
    found = law.to_dict() | asked
    if unseen is not None:
        found["predictions"] = plain(predictions_of(law.fit, law.bootstrap, unseen))
    if published:
        found["against"] = plain(against(law.fit, published))
    return found, law


def law_of_table(
    source: Source,
    form: str = AUTO,
    options: FitOptions = DEFAULTS,
    *,
    columns: Mapping[str, str] | None = None,
    drop_highest: int = 0,
    y_axis: YAxis | None = None,
) -> Law:
    """Fit a form of (params, tokens) to a table of runs; arguments as of `fit_table`.

    Raises:
        ValueError: as `fit_table`, and for a form that is none of params and tokens.
    """
    shape = CHINCHILLA if form == AUTO else loss_form_of(form)  # all have its columns
    table = read_table(source, shape, dict(columns or {}), drop_highest, y_axis=y_axis)
    law = fit_law(runs_of(table), form, options)
    warnings = [*table.notes, *_of_recipes(table), *law.warnings]
    return replace(law, excluded=table.excluded + law.excluded, warnings=warnings)


def _of_recipes(table: Table) -> list[str]:
    """Say that a table holds runs of several recipes, which one law does not tell apart."""
    names = list(dict.fromkeys(word for word in table.optional.get("recipe", []) if word))
    if len(names) < 2:
        return []
    shown = ", ".join(names[:4]) + " ..." * (len(names) > 4)
    return [
        f"The rows are of {len(names)} recipes ({shown}): one law of all is a mixture. kinescale "
        "compare TABLE says what each is worth."
    ]


def _asked(
    options: FitOptions, columns: Mapping[str, str], drop_highest: int, y_axis: YAxis | None
) -> dict[str, Any]:
    """Return the entry of law.json with the unusual that was asked for; none where nothing was."""
    every = {
        "columns": dict(columns), "fixed": dict(options.fixed), "flops": list(options.flops),
        "sizes": list(options.sizes), "drop_highest": drop_highest, "mean": options.mean,
        "noise": options.noise, "one_sided": options.one_sided, "within": options.within,
        "y_axis": y_axis and y_axis.values,
        "held_out": None if options.held_out == 1 else options.held_out,
    }  # fmt: skip
    unusual = {key: value for key, value in every.items() if value not in ({}, [], 0, None)}
    return {"asked": unusual} if unusual else {}


def runs_of(table: Table) -> list[Run]:
    """Return the rows of a table as runs."""
    runs = []
    for i, name in enumerate(table.names):
        row = {k: v[i] for k, v in table.optional.items()}

        def optional(
            column: str, row: dict[str, str] = row, line: str = table.lines[i]
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
