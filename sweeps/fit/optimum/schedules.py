"""Which law of loss curves predicts a schedule that it has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.fit.forms.base import Array, Columns, Form
from sweeps.fit.optimum.solve import fit_form
from sweeps.fit.options import DEFAULTS, FitOptions

STARTS = 4  # of each fit without a curve: the choice needs no last digit


@dataclass(frozen=True)
class Choice:
    """Hold the form of least error on left-out curves, and that error of each form.

    errors: the mean over left-out curves of each curve's mean absolute error, in the target's unit;
    None of a form of which a coefficient ended on a wall without one of the curves.
    """

    form: Form
    errors: Mapping[str, float | None]
    curves: int

    @property
    def note(self) -> str:
        """Return which form was chosen and why, in a sentence."""
        if not self.errors:
            return (
                f"form={self.form.name} is taken: {self.curves} curve leaves none to choose a form "
                "by. Give at least 2."
            )
        listed = ", ".join(
            f"{name} {error:.5f}" if error is not None else f"{name} not determined"
            for name, error in self.errors.items()
        )
        return (
            f"form={self.form.name} is chosen: each of the {self.curves} curves was left out in "
            f"turn and predicted, and the mean absolute errors are {listed}."
        )


def chosen_by_schedule(
    forms: Sequence[Form], columns: Columns, target: Array, options: FitOptions = DEFAULTS
) -> Choice:
    """Leave out each curve in turn and return the form that predicts it best.

    `forms` are of curves, the one to take where nothing can be left out first. A form of which a
    coefficient ends on a wall in one of these fits would predict by that wall: it is passed over,
    unless all are.
    """
    curves = np.unique(columns["curve"])
    if len(curves) < 2:
        return Choice(forms[0], {}, len(curves))
    errors: dict[str, float | None] = {}
    walled: dict[str, float] = {}
    for form in forms:
        misses, on_wall = [], False
        for curve in curves:
            inside = columns["curve"] != curve
            known = {c: v[inside] for c, v in columns.items()}
            fit = fit_form(form, known, target[inside], options, max_starts=STARTS)
            unseen = {c: v[~inside] for c, v in columns.items()}
            misses.append(float(np.mean(np.abs(fit.predict(unseen) - target[~inside]))))
            on_wall = on_wall or bool(fit.at_bound)
        walled[form.name] = float(np.mean(misses))
        errors[form.name] = None if on_wall else walled[form.name]
    known_errors = {name: e for name, e in errors.items() if e is not None} or walled
    best = min(known_errors, key=known_errors.__getitem__)
    return Choice(next(f for f in forms if f.name == best), errors, len(curves))


def error_of_curves(curves: Sequence[str], error: Array) -> dict[str, float]:
    """Return each curve's mean absolute error by its name."""
    names = np.array(curves)
    return {str(n): float(np.mean(np.abs(error[names == n]))) for n in dict.fromkeys(curves)}
