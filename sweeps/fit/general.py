"""Laws of any columns: compute alone, width and depth, repeats, schedules, recipes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweeps.fit.entries import (
    correlation,
    plain,
    predictions_of,
    residual_rows,
    shared_keys,
)
from sweeps.fit.forms.base import Array, Form
from sweeps.fit.forms.catalogue import form_of
from sweeps.fit.minima.bests import at_bests
from sweeps.fit.minima.frontier import loss_points
from sweeps.fit.minima.recipe import joint_recipe
from sweeps.fit.optimum.profile import certify
from sweeps.fit.optimum.schedules import chosen_by_schedule
from sweeps.fit.optimum.solve import Fit, fit_form
from sweeps.fit.options import DEFAULTS, FitOptions
from sweeps.fit.rows.check import check_columns, excluded_reasons
from sweeps.fit.rows.recipes import KNOBS, at_optima, known, runs_over_knobs
from sweeps.fit.rows.table import Table
from sweeps.fit.trust.bootstrap import (
    Bootstrap,
    bootstrap_fit,
    percentile_interval,
    prediction_draws,
)
from sweeps.fit.trust.identified import identified, warn_fit, warn_identified
from sweeps.fit.trust.odd_rows import warn_rows
from sweeps.fit.trust.sensitivity import sensitivity

CURVE_BLOCKS = 10  # a loss curve is resampled in this many blocks: its points are correlated
CURVE_RESAMPLES = 100  # a refit to whole curves takes a second, and tails need no more
HELD_SHARE = 10  # one row in so many is left out as the largest


def fit_columns(
    form: Form, table: Table, unseen: Table | None = None, options: FitOptions = DEFAULTS
) -> dict[str, Any]:
    """Fit `form` to a table and return the result's JSON as a dict.

    Raises:
        ValueError: the table cannot make a law.
    """
    runs = runs_over_knobs(known(form, table)) if form.target in KNOBS else None
    table = at_optima(form, table) if form.target in KNOBS else without_diverged(table)
    table = at_bests(form, table)
    check_columns(form, table.columns, table.target, len(options.fixed))
    form, chosen = _chosen(form, table, options)
    first, notes = fit_or_reduce(form, table.columns, table.target, options)
    fit, profiles = certify(first, options.level)
    resamples = options.resamples
    if "curve" in fit.form.columns and resamples > CURVE_RESAMPLES:
        notes = [*notes, f"The intervals rest on {CURVE_RESAMPLES} resamples, not {resamples}."]
        resamples = CURVE_RESAMPLES
    clusters = _clusters(table, fit.form)
    boot = bootstrap_fit(fit, clusters, resamples, options.level, options.seed)
    verdicts = identified(fit, boot, profiles)
    found = shared_keys(fit, boot, profiles, verdicts, options.seed)
    found["frontier"], found["frontier_reason"] = _frontier(fit, boot, options.flops)
    found["held_out"], found["held_out_reason"] = _hold_out_largest(fit, table, options)
    largest = _largest(fit)
    found |= {
        "sensitivity": sensitivity(fit, lambda other: float(other.predict(largest)[-1])),
        "correlation": correlation(fit),
        "residuals": residual_rows(fit, table.names),
        "warnings": [
            *table.notes,
            *chosen,
            *notes,
            *warn_fit(fit, boot),
            *warn_identified(verdicts),
            *warn_rows(fit, table.excluded, table.names),
        ],
        "excluded": table.excluded,
    }
    if runs is not None and (both := joint_recipe(_of_knobs(form), runs, options)):
        found["recipe"] = both
    if unseen is not None:
        found["predictions"] = predictions_of(fit, boot, unseen)
    return plain(found)


def _of_knobs(form: Form) -> dict[str, Form]:
    """Return the form of each knob: the one asked for, and the usual one of the other."""
    return {"lr": form_of("lr"), "batch": form_of("batch")} | {form.target: form}


def fit_or_reduce(
    form: Form,
    columns: Mapping[str, Array],
    target: Array,
    options: FitOptions = DEFAULTS,
    *,
    max_starts: int | None = None,
) -> tuple[Fit, list[str]]:
    """Fit `form`, or its reduced form where a coefficient of the full one ends on a wall.

    Such a coefficient is not identified, and what it would extrapolate is arbitrary; the reduced
    form has one fewer. Returns the fit and what to say about it.
    """
    fit = fit_form(form, columns, target, options, max_starts=max_starts)
    if not fit.at_bound or form.reduced is None or options.fixed:
        return fit, []
    less = form_of(form.reduced)
    said = (
        f"{', '.join(fit.at_bound)} of {form.name} ends on the wall of its range: the rows do not "
        f"determine it, and {less.name} is fitted instead ({less.equation})."
    )
    return fit_form(less, columns, target, options, max_starts=max_starts), [said]


def _chosen(form: Form, table: Table, options: FitOptions) -> tuple[Form, list[str]]:
    """Return the form itself, or the best of its choices and why."""
    if not form.choices:
        return form, []
    forms = [form_of(name) for name in form.choices]
    choice = chosen_by_schedule(forms, table.columns, table.target, options)
    return choice.form, [choice.note]


def without_diverged(table: Table) -> Table:
    """Return the table without rows of non-finite or diverged target, which it then lists."""
    return table.without(excluded_reasons(table.columns, table.target))


def _clusters(table: Table, form: Form) -> list[Any]:
    """Return what is resampled together: given clusters, or blocks of consecutive curve points."""
    if "curve" not in form.columns:
        return table.clusters
    clusters: list[Any] = [None] * len(table.target)
    for curve in np.unique(table.columns["curve"]):
        rows = np.flatnonzero(table.columns["curve"] == curve)
        for block, part in enumerate(np.array_split(rows, CURVE_BLOCKS)):
            for i in part:
                clusters[i] = (float(curve), block)
    return clusters


def _frontier(
    fit: Fit, boot: Bootstrap, flops: Sequence[float]
) -> tuple[list[dict[str, Any]], str | None]:
    """Return what is known at target compute: the loss, or the best of the shapes that were run."""
    columns = fit.form.columns
    if columns == ("flops",):
        known = fit.columns["flops"]
        targets = list(flops) or [float(c) for c in np.geomspace(known.min(), known.max(), 5)]
        return loss_points(fit, boot, targets, float(known.max())), None
    if "width" in columns and "tokens" in columns and "params" in fit.columns and len(flops):
        return [_best_shape(fit, boot, float(c)) for c in flops], None
    return [], f"form={fit.form.name} does not split compute into params and tokens"


def _best_shape(fit: Fit, boot: Bootstrap, flops: float) -> dict[str, Any]:
    """Return the shape of least predicted loss among those in the table, at 6 N D FLOPs."""
    keys = [c for c in ("width", "depth", "params") if c in fit.columns]
    rows = np.unique(np.stack([fit.columns[c] for c in keys], axis=1), axis=0)
    shapes = dict(zip(keys, rows.T, strict=True))
    shapes["tokens"] = flops / (6 * shapes["params"])
    best = int(np.argmin(fit.predict(shapes)))
    one = {c: v[best : best + 1] for c, v in shapes.items()}
    draws = prediction_draws(fit, boot, one)[:, 0]
    largest = float(np.max(6 * fit.columns["params"] * fit.columns["tokens"]))
    return {
        "flops": flops,
        **{c: float(v[0]) for c, v in one.items()},
        "loss": float(fit.predict(one)[0]),
        "intervals": {"loss": percentile_interval(draws, boot.level)},
        "interior": bool(np.min(rows[:, -1]) < rows[best, -1] < np.max(rows[:, -1])),
        "extrapolation_factor": flops / largest,
    }


def _size(columns: Mapping[str, Array], form: Form) -> Array:
    """Return the sum of the logs of what grows: rows are larger where it is."""
    names = [c for c in form.columns if c != "unique_tokens"]
    return np.asarray(sum(np.log(columns[c]) for c in names))


def _largest(fit: Fit) -> dict[str, Array]:
    """Return the columns whose last row is the largest; of curves, the whole last curve."""
    if "curve" in fit.form.columns:
        rows = np.flatnonzero(fit.columns["curve"] == fit.columns["curve"][-1])
    else:
        rows = np.array([np.argmax(_size(fit.columns, fit.form))])
    return {c: v[rows] for c, v in fit.columns.items()}


def _hold_out_largest(
    fit: Fit, table: Table, options: FitOptions
) -> tuple[dict[str, Any] | None, str | None]:
    """Fit without the largest tenth of the rows and predict them."""
    if "curve" in fit.form.columns:
        return None, "give the curves to predict as predict=FILE.csv"
    order = np.argsort(_size(fit.columns, fit.form), kind="stable")
    num = max(1, len(order) // HELD_SHARE)
    train, test = np.sort(order[:-num]), np.sort(order[-num:])
    known = {c: v[train] for c, v in fit.columns.items()}
    try:
        check_columns(fit.form, known, fit.target[train], len(fit.fixed))
    except ValueError as error:
        return None, f"without the largest tenth {error}"
    less = fit_form(fit.form, known, fit.target[train], options, max_starts=8)
    predicted = less.predict({c: v[test] for c, v in fit.columns.items()})
    actual = fit.target[test]
    miss = predicted / actual - 1
    return {
        "rows": [
            {"name": table.names[i], "predicted": float(p), "actual": float(a)}
            for i, p, a in zip(test, predicted, actual, strict=True)
        ],
        "mean_absolute_relative_error": float(np.mean(np.abs(miss))),
        "relative_error": float(miss[np.argmax(_size(fit.columns, fit.form)[test])]),
        "coefficients": less.coefficients,
    }, None
