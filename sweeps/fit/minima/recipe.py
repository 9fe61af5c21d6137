"""Learning rate and batch together: both laws of one table, and what following them costs."""

from typing import Any

import numpy as np

from sweeps.fit.forms.base import Array, Columns, Form
from sweeps.fit.optimum.solve import fit_form
from sweeps.fit.options import DEFAULTS, FitOptions
from sweeps.fit.rows.recipes import KNOBS, Optima, recipe_optima
from sweeps.fit.trust.bootstrap import bootstrap_fit, coefficient_intervals

STARTS = 2  # a power of its target has one optimum


def joint_recipe(
    forms: dict[str, Form], columns: Columns, options: FitOptions = DEFAULTS
) -> dict[str, Any] | None:
    """Return the laws of both knobs by `forms` (knob to form), with intervals and the regret.

    `columns` are runs over params, tokens, lr, batch and loss. The regret of a (params, tokens) is
    how much more than the least loss there the run has that lies nearest, in the logs of both, to
    what laws say that were fitted without that point. None where the table lacks a knob or has too
    few points for a law.
    """
    if any(knob not in columns for knob in KNOBS):
        return None
    optima = recipe_optima(columns, columns["loss"])
    where = {"params": optima.params, "tokens": optima.tokens}
    needed = max(len(form.parameters) for form in forms.values())
    if len(optima.params) <= needed + 1:
        return None
    found: dict[str, Any] = {}
    for knob, form in forms.items():
        fit = fit_form(form, where, optima.knobs[knob], max_starts=STARTS)
        boot = bootstrap_fit(
            fit, range(len(optima.params)), options.resamples, options.level, options.seed
        )
        found[knob] = {
            "form": form.name,
            "coefficients": fit.coefficients,
            "intervals": coefficient_intervals(fit, boot),
        }
    regrets = _regrets(forms, optima, columns)
    return found | {
        "points": len(regrets),
        "regret": {"mean": float(np.mean(regrets)), "worst": float(np.max(regrets))},
    }


def _regrets(forms: dict[str, Form], optima: Optima, columns: Columns) -> Array:
    """Return the relative regret of each point, left out of the laws that choose there, `(P,)`."""
    regrets = []
    where = {"params": optima.params, "tokens": optima.tokens}
    for i in range(len(optima.params)):
        rest = np.arange(len(optima.params)) != i
        known = {c: v[rest] for c, v in where.items()}
        point = {c: v[i : i + 1] for c, v in where.items()}
        here = (columns["params"] == point["params"]) & (columns["tokens"] == point["tokens"])
        away = np.zeros(int(here.sum()))
        for knob, form in forms.items():
            fit = fit_form(form, known, optima.knobs[knob][rest], max_starts=STARTS)
            away += np.log(columns[knob][here] / fit.predict(point)[0]) ** 2
        loss = columns["loss"][here]
        regrets.append(loss[np.argmin(away)] / loss.min() - 1)
    return np.array(regrets)
