"""Find the optimum of a form on a table, and certify that it is one.

Each start (`starts.py`) is polished by a damped Newton method on the analytic Hessian, all starts
at once, with delta falling to its value: a small delta makes a nearly piecewise linear objective,
on which Newton steps from afar are short. The certificate: gradient norm, the share of starts that
end at the same objective, the condition number of the design, and (`profile.py`) the likelihood's
profile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sweeps.fit.forms.base import Array, Columns, Form
from sweeps.fit.optimum.objective import Objective
from sweeps.fit.optimum.starts import variable_projection
from sweeps.fit.options import DEFAULTS, FitOptions
from sweeps.fit.rows.check import check_columns
from sweeps.fit.rows.runs import Run, columns_of

GRADIENT_TOLERANCE = 1e-11  # relative to delta and the number of rows
GRADIENT_CONVERGED = 1e-7  # so scaled, call it converged: the objective is then right to 1e-14
ANNEAL = (100.0, 30.0, 10.0, 3.0)  # multiples of delta
ANNEAL_TOLERANCE, ANNEAL_STEPS = 1e-5, 12
LAST_STEPS = 2000  # of the best start alone: a narrow valley between two coefficients is long
AGREEMENT = 1e-6  # relative difference of objectives at which two starts agree


@dataclass(frozen=True)
class Fit:
    """Hold one optimum and its certificate.

    `starts_tried` counts polished starts, `starts_agreeing` those whose objective is the best one
    to 1e-6 relative; `gradient_norm` is that of the free parameters (those not on a wall);
    `condition` that of the column-normalised Jacobian's Gram matrix; `alternatives` the starts'
    ends, best first.
    """

    form: Form
    columns: Columns
    target: Array
    objective_of: Objective
    theta: Array  # (P,)
    objective: float
    gradient_norm: float
    starts_tried: int
    starts_agreeing: int
    condition: float
    converged: bool
    at_bound: tuple[str, ...]
    fixed: tuple[str, ...]
    residuals: Array  # (R,), log L_hat - log L
    alternatives: Array  # (S, P)
    start_objectives: Array  # (S,)
    low: Array
    high: Array

    @property
    def coefficients(self) -> dict[str, float]:
        """Return the coefficients by name."""
        return {k: float(v) for k, v in self.form.coefficients(self.theta).items()}

    @property
    def num_free(self) -> int:
        """Return how many coefficients were fitted."""
        return len(self.theta) - len(self.fixed)

    def predict(self, columns: Columns) -> Array:
        """Return L_hat on other rows, `(R,)`."""
        with np.errstate(over="ignore"):
            return np.exp(self.form.bind(columns).log_prediction(self.theta[None])[0])


def fit_form(
    form: Form,
    columns: Columns,
    target: Array,
    options: FitOptions = DEFAULTS,
    *,
    max_starts: int | None = None,
    near: Mapping[str, float] | None = None,
) -> Fit:
    """Fit `form` to the rows by its published objective; see `Objective`.

    Of `options` count `delta`, `residual`, `mean` and `fixed`. Of the starts on a grid of the
    form's shapes the `max_starts` best are polished, half of them also at the final delta at once.
    The coefficients `near` are one start more.
    """
    fixed = dict(options.fixed)
    form = form.placed(columns, target, fixed | _coefficients_of_base(form, columns, target, fixed))
    problem = Objective.of(form, columns, target, options)
    low, high = walls(form, fixed)
    if fixed:
        problem = replace(problem, free=low < high)
    starts = own_starts(form, columns, target, (low, high), max_starts or form.max_starts)
    if form.nested is not None:
        starts = np.concatenate([_from_nested(form, columns, target, options), starts])
    if near is not None:
        starts = np.concatenate([form.theta(**near)[None], starts])
    ends, values, _ = polish_from_afar(problem, starts, low, high)
    order = np.argsort(values, kind="stable")
    fit = Fit(
        form=form,
        columns=columns,
        target=target,
        objective_of=problem,
        theta=ends[order[0]],
        objective=float(values[order[0]]),
        gradient_norm=float("inf"),
        starts_tried=len(ends),
        starts_agreeing=0,
        condition=float("inf"),
        converged=False,
        at_bound=(),
        fixed=tuple(n for n in form.coefficient_names if n in fixed),
        residuals=np.zeros(0),
        alternatives=ends[order],
        start_objectives=values[order],
        low=low,
        high=high,
    )
    return completed(fit, ends[order[0]])


def fit_runs(
    form: Form,
    runs: Sequence[Run],
    options: FitOptions = DEFAULTS,
    *,
    max_starts: int | None = None,
) -> Fit:
    """Fit `form` to the parameters, tokens and losses of runs.

    Raises:
        ValueError: they are too few, or their columns look swapped.
    """
    columns, loss = columns_of(runs)
    check_columns(form, columns, loss, len(options.fixed))
    return fit_form(form, columns, loss, options, max_starts=max_starts)


def _coefficients_of_base(
    form: Form, columns: Columns, target: Array, fixed: Mapping[str, float]
) -> dict[str, float]:
    """Return the coefficients that place `form`: none where it has no base or all are fixed."""
    if form.base is None or set(fixed) >= set(form.base.coefficient_names):
        return {}
    rows = form.base_rows(columns)
    kept = {c: columns[c][rows] for c in form.base.columns}
    return fit_form(form.base, kept, target[rows]).coefficients


def own_starts(
    form: Form, columns: Columns, target: Array, box: tuple[Array, Array], keep: int
) -> Array:
    """Return the `keep` best starts of the grid of shapes inside the box, `(keep, P)`."""
    index = form.shape_index
    shapes = form.shape_grid(_grid_size(len(index)))
    shapes = np.unique(np.clip(shapes, box[0][index], box[1][index]), axis=0)
    weights = np.ones((1, len(target)))
    return variable_projection(form, columns, target, weights, shapes, keep)[0]


def _from_nested(form: Form, columns: Columns, target: Array, options: FitOptions) -> Array:
    """Return the optimum of the form inside `form` as a start, `(1, P)`.

    With it no form is ever fitted worse than the one that it holds.
    """
    assert form.nested is not None
    shared = {k: v for k, v in options.fixed.items() if k in form.nested.coefficient_names}
    inside = {c: columns[c] for c in form.nested.columns}
    less = fit_form(form.nested, inside, target, replace(options, fixed=shared), max_starts=8)
    return form.theta(**form.from_nested(less.coefficients))[None]


def completed(fit: Fit, theta: Array) -> Fit:
    """Return the fit at the optimum nearest to `theta`, with its certificate."""
    problem, low, high = fit.objective_of, fit.low, fit.high
    theta = polish(problem, problem.unit, theta[None], low, high, problem.delta, LAST_STEPS)[0][0]
    theta = _refined(problem, theta, low, high)
    value, gradient, _ = problem.derivatives(theta[None], problem.unit)
    free = ~_pinned(theta[None], gradient, low, high)
    norm = float(np.linalg.norm(gradient * free))
    names = np.array(fit.form.coefficient_names)
    walled = ((theta <= low) | (theta >= high)) & (low < high)
    agree = fit.start_objectives <= float(value[0]) * (1 + AGREEMENT) + tiny(problem)
    return replace(
        fit,
        theta=theta,
        objective=float(value[0]),
        gradient_norm=norm,
        starts_agreeing=max(1, int(np.sum(agree))),
        condition=condition_number(problem.jacobian(theta)[:, low < high]),
        converged=bool(norm <= GRADIENT_CONVERGED * scale_of(problem)),
        at_bound=tuple(str(n) for n in names[walled]),
        residuals=problem.bound.log_prediction(theta[None])[0] - np.log(fit.target),
    )


def refit(fit: Fit, columns: Columns, target: Array, delta: float) -> Fit:
    """Return the optimum nearest to the fit's on other rows or at another delta."""
    old = fit.objective_of
    problem = replace(old, bound=fit.form.bind(columns), target=target, delta=delta)
    moved = replace(fit, columns=columns, target=target, objective_of=problem)
    return completed(moved, fit.theta)


def _grid_size(num_shapes: int) -> int:
    """Return the grid points an axis: 32 in one dimension, 5 in two or three, 4 and 3 beyond."""
    return {0: 1, 1: 32, 2: 5, 3: 5, 4: 4}.get(num_shapes, 3)


def walls(form: Form, fixed: Mapping[str, float]) -> tuple[Array, Array]:
    """Return the box of `theta`, with no room around fixed coefficients."""
    low, high = form.bounds()
    if not fixed:
        return low, high
    if unknown := sorted(set(fixed) - set(form.coefficient_names)):
        names = ", ".join(form.coefficient_names)
        raise ValueError(f"fixed.{unknown[0]}=: not a coefficient of {form.name}. Use {names}.")
    if wrong := sorted(set(fixed) & set(form.unheld)):
        names = ", ".join(n for n in form.coefficient_names if n not in form.unheld)
        raise ValueError(f"fixed.{wrong[0]}=: cannot be held in {form.name}. Hold one of {names}.")
    logs = {p.name for p in form.parameters if p.kind != "exponent"}
    if wrong := sorted(name for name in set(fixed) & logs if fixed[name] <= 0):
        raise ValueError(
            f"fixed.{wrong[0]}={fixed[wrong[0]]:g}: must be above 0, since it enters by its "
            "logarithm. Use 1e-12 for nearly none of it."
        )
    middle = form.coefficients((np.maximum(low, -50) + np.minimum(high, 50)) / 2)
    values = {n: float(fixed.get(n, middle[n])) for n in form.coefficient_names}
    pinned = form.theta(**values)
    is_fixed = np.array([n in fixed for n in form.coefficient_names])
    return np.where(is_fixed, pinned, low), np.where(is_fixed, pinned, high)


def scale_of(problem: Objective) -> float:
    """Return the largest gradient the rows could make together: the unit of tolerances."""
    spread = min(problem.delta, 1e-3 if problem.residual == "log" else 1.0)
    return spread * float(problem.unit.sum())


def tiny(problem: Objective) -> float:
    """Return the objective of residuals at the rounding of the target: agreement for exact data."""
    return 1e-18 * float(problem.unit.sum())


def condition_number(design: Array) -> float:
    """Return the condition number of J^T J with columns of unit length (inf when singular).

    Without a column, where every coefficient is held, it is 1.
    """
    if not design.shape[1]:
        return 1.0
    lengths = np.linalg.norm(design, axis=0)
    if np.any(lengths < 1e-12):
        return float("inf")
    singular = np.linalg.svd(design / lengths, compute_uv=False)
    ratio = singular[0] / max(singular[-1], 1e-150)
    return float(min(ratio**2, 1e300))


def polish_from_afar(
    problem: Objective, starts: Array, low: Array, high: Array, max_iterations: int = 300
) -> tuple[Array, Array, Array]:
    """Polish with delta falling to its value, the better half also at once; returns as `polish`.

    Falling delta finds the broad valley, the other the minima on its floor.
    """
    if np.isfinite(problem.delta):
        direct = starts[: (len(starts) + 1) // 2]
        weights = np.repeat(problem.unit, len(starts), axis=0)
        for widening in ANNEAL:
            starts = polish(
                problem, weights, starts, low, high, widening * problem.delta, ANNEAL_STEPS,
                ANNEAL_TOLERANCE,
            )[0]  # fmt: skip
        starts = np.concatenate([starts, direct])
    weights = np.repeat(problem.unit, len(starts), axis=0)
    return polish(problem, weights, starts, low, high, problem.delta, max_iterations)


def polish(
    problem: Objective,
    weights: Array,
    theta: Array,
    low: Array,
    high: Array,
    delta: float,
    max_iterations: int = 300,
    tolerance: float = GRADIENT_TOLERANCE,
) -> tuple[Array, Array, Array]:
    """Descend from each `theta` `(K, P)` with its `weights` `(K, R)` inside the box.

    Damped Newton: the step is -V (|w| + lambda max|w|)^-1 V^T g in the eigenbasis of the Hessian
    of the free parameters (absolute eigenvalues: saddles repel), kept only when it descends. `low`
    and `high` are `(P,)` or, one box a start, `(K, P)`. Returns the ends `(K, P)`, objectives
    `(K,)` and gradient norms of the free parameters `(K,)`.
    """
    low, high = np.broadcast_to(low, theta.shape), np.broadcast_to(high, theta.shape)
    theta = np.clip(theta, low, high)
    value, gradient, hessian = problem.derivatives(theta, weights, delta)
    damping = np.full(len(theta), 1e-3)
    enough = tolerance * scale_of(problem)
    live = np.arange(len(theta))
    for _ in range(max_iterations):
        free = ~_pinned(theta[live], gradient[live], low[live], high[live])
        norms = np.abs(gradient[live] * free).max(axis=1)
        keep = (norms > enough) & (damping[live] < 1e12)
        live, free = live[keep], free[keep]
        if not len(live):
            break
        step = _newton_step(gradient[live], hessian[live], free, damping[live])
        trial = np.clip(theta[live] + step, low[live], high[live])
        with np.errstate(over="ignore", invalid="ignore"):
            new = problem.derivatives(trial, weights[live], delta)
        curved = np.isfinite(new[2]).all(axis=(1, 2))  # not where the form's slopes overflow
        down = (new[0] < value[live]) & curved
        moved = live[down]
        theta[moved], value[moved] = trial[down], new[0][down]
        gradient[moved], hessian[moved] = new[1][down], new[2][down]
        damping[live] = np.where(down, np.maximum(damping[live] / 8, 1e-15), damping[live] * 6)
    free = ~_pinned(theta, gradient, low, high)
    return theta, value, np.linalg.norm(gradient * free, axis=1)


def _refined(problem: Objective, theta: Array, low: Array, high: Array) -> Array:
    """Take a few undamped Newton steps for as long as they shrink the gradient.

    Near the optimum the objective's own rounding hides further descent; the gradient still sees it.
    """
    _, gradient, hessian = problem.derivatives(theta[None], problem.unit)
    for _ in range(5):
        free = ~_pinned(theta[None], gradient, low, high)
        step = _newton_step(gradient, hessian, free, np.zeros(1))
        trial = np.clip(theta + step[0], low, high)
        _, new, new_hessian = problem.derivatives(trial[None], problem.unit)
        still = ~_pinned(trial[None], new, low, high)
        if not np.linalg.norm(new * still) < np.linalg.norm(gradient * free):
            break
        theta, gradient, hessian = trial, new, new_hessian
    return theta


def _pinned(theta: Array, gradient: Array, low: Array, high: Array) -> NDArray[np.bool_]:
    """Say which parameters sit on a wall with the descent direction pointing through it."""
    stuck = ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))
    return np.asarray(stuck | (low >= high))


def _newton_step(gradient: Array, hessian: Array, free: NDArray[np.bool_], damping: Array) -> Array:
    """Return the damped, saddle-free Newton step of the free parameters, `(K, P)`."""
    both = free[:, :, None] & free[:, None, :]
    blocked = np.where(both, hessian, 0.0)
    eigenvalues, basis = np.linalg.eigh(blocked)
    size = np.abs(eigenvalues)
    top = size.max(axis=1, keepdims=True)
    size = np.maximum(size, 1e-15 * top) + damping[:, None] * top + 1e-300
    along = (basis.mT @ (gradient * free)[:, :, None])[:, :, 0]
    step = -(basis @ (along / size)[:, :, None])[:, :, 0]
    return np.clip(step, -2.0, 2.0) * free
