"""The profile of the objective: how much worse it gets when one coefficient is held elsewhere.

For log-Huber, 2 (objective_held - objective) / lambda is asymptotically chi-squared with one
degree of freedom, where lambda = mean psi^2 / mean psi' scales it to the residuals' own noise
(Schrader and Hettmansperger 1980). The profile also searches: where a held coefficient finds a
lower objective, the fit was not at its optimum, and moves there.
"""

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from sweeps.fit.forms.base import Array, Interval, Rows
from sweeps.fit.forms.powers import SumOfPowers
from sweeps.fit.optimum.solve import Fit, completed, polish, tiny

STEPS = np.array([-8.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 8.0])  # standard errors
FARTHEST = {"exponent": 1.0, "floor": 3.0, "amplitude": 12.0, "scale": 6.0}
ROUNDS = 3


@dataclass(frozen=True)
class Profile:
    """Hold one coefficient's profile interval; an end is NaN where the profile stays open."""

    interval: Interval
    closed: bool


def certify(fit: Fit, level: float) -> tuple[Fit, dict[str, Profile]]:
    """Profile every coefficient; return the fit, moved if something lower was found."""
    if not fit.num_free:
        return fit, {}
    if fit.objective <= tiny(fit.objective_of):  # exact data: every profile is a spike
        exact = {k: Profile((v, v), True) for k, v in fit.coefficients.items()}
        return fit, {k: v for k, v in exact.items() if k not in fit.fixed}
    for _ in range(ROUNDS):
        plain = _in_published_coordinates(fit)
        points, values, held = _profile_points(plain)
        best = int(np.argmin(values)) if len(values) else 0
        lower = len(values) and values[best] < fit.objective * (1 - 1e-7) - 1e-18 * len(fit.target)
        if not lower:
            break
        found = {k: float(v) for k, v in plain.form.coefficients(points[best]).items()}
        fit = completed(fit, fit.form.theta(**found))
    threshold = _threshold(fit, level)
    return fit, {
        p.name: _interval(plain, k, points[held == k], values[held == k], threshold)
        for k, p in enumerate(fit.form.parameters)
        if fit.low[k] < fit.high[k] and p.name not in fit.form.unheld
    }


def _in_published_coordinates(fit: Fit) -> Fit:
    """Return the fit of a sum of powers with its reference at 1: there A is one entry of theta."""
    if not isinstance(fit.form, SumOfPowers) or not fit.form.references:
        return fit
    form = replace(fit.form, references=())
    low, high = form.bounds()
    problem = replace(fit.objective_of, bound=form.bind(fit.columns))
    theta = form.theta(**fit.coefficients)
    return replace(fit, form=form, objective_of=problem, theta=theta, low=low, high=high)


def noise_scale(fit: Fit, smooth: bool = False) -> float:
    """Return lambda = mean psi^2 / mean psi', the unit of twice a rise of the objective.

    psi' is 1 within delta and 0 beyond. Where delta holds few residuals `smooth` reads their
    density from the nearer half of all.
    """
    problem = fit.objective_of
    residual = problem.residuals(fit.theta)[0]
    size = np.abs(residual)
    part = problem.leaned(np.ones(len(residual)), residual)
    psi = part * np.clip(residual, -problem.delta, problem.delta)
    left = max(len(residual) - fit.num_free, 1)
    inside = float(max(np.sum(part[size <= problem.delta]), 1))
    middle = float(np.median(size))
    if smooth and middle > problem.delta:
        inside = float(np.sum(part[size <= middle])) * problem.delta / middle
    return float((np.sum(psi**2) / left) / (inside / len(residual)))


def _threshold(fit: Fit, level: float) -> float:
    """Return the rise of the objective that bounds the interval."""
    quantile = NormalDist().inv_cdf(0.5 + 0.5 * level)  # its square is chi-squared's
    return float(0.5 * noise_scale(fit) * fit.objective_of.unit[0, 0] * quantile**2)


def _profile_points(fit: Fit) -> tuple[Array, Array, Rows]:
    """Return held optima `(Q, P)`, their objectives `(Q,)` and which coefficient each one holds."""
    problem = fit.objective_of
    free = np.flatnonzero(fit.low < fit.high)
    spread = _covariance(fit, free)
    starts, held = [], []
    for i, k in enumerate(free):
        error = float(np.sqrt(max(spread[i, i], 1e-16)))
        unit = min(error, FARTHEST[fit.form.parameters[k].kind] / STEPS.max())
        for step in STEPS * unit:
            start = fit.theta.copy()
            start[free] += spread[:, i] / max(spread[i, i], 1e-300) * step
            start = np.clip(start, fit.low, fit.high)
            start[k] = np.clip(fit.theta[k] + step, fit.low[k], fit.high[k])
            starts.append(start)
            held.append(k)
    theta, which = np.array(starts), np.array(held)
    low, high = np.tile(fit.low, (len(theta), 1)), np.tile(fit.high, (len(theta), 1))
    rows = np.arange(len(theta))
    low[rows, which] = high[rows, which] = theta[rows, which]
    weights = np.repeat(problem.unit, len(theta), axis=0)
    ends, values, _ = polish(problem, weights, theta, low, high, problem.delta, 40, 1e-6)
    return ends, values, which


def _covariance(fit: Fit, free: Rows) -> Array:
    """Return the free parameters' covariance by their Gauss-Newton matrix and residual scatter."""
    design = fit.objective_of.jacobian(fit.theta)[:, free]
    residual = fit.objective_of.residuals(fit.theta)[0]
    variance = np.sum(residual**2) / max(len(residual) - len(free), 1)
    gram = design.T @ design
    length = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    inverse = np.linalg.pinv(gram / np.outer(length, length), rcond=1e-13, hermitian=True)
    return np.asarray(inverse / np.outer(length, length) * variance)


def _interval(fit: Fit, k: int, points: Array, values: Array, threshold: float) -> Profile:
    """Return where the profile of parameter `k` crosses the threshold on either side."""
    at = points[:, k] - fit.theta[k]
    rise = np.sqrt(np.maximum(values - fit.objective, 0) / max(threshold, 1e-300))
    ends = []
    for side in (-1, 1):
        chosen = np.flatnonzero(np.sign(at) == side)
        order = chosen[np.argsort(np.abs(at[chosen]))]
        offset = np.concatenate([[0.0], np.abs(at[order])])
        height = np.concatenate([[0.0], rise[order]])
        over = np.flatnonzero(height >= 1)
        if not len(over):
            ends.append(float("nan"))
            continue
        j = int(over[0])
        part = (1 - height[j - 1]) / (height[j] - height[j - 1])
        ends.append(
            float(fit.theta[k] + side * (offset[j - 1] + part * (offset[j] - offset[j - 1])))
        )
    low, high = (_published(fit, k, end) for end in ends)
    return Profile((min(low, high), max(low, high)) if np.isfinite(low + high) else (low, high),
                   bool(np.isfinite(low + high)))  # fmt: skip


def _published(fit: Fit, k: int, value: float) -> float:
    """Return parameter `k` at `value`, the others at their optimum, in published coordinates."""
    if not np.isfinite(value):
        return float("nan")
    theta = fit.theta.copy()
    theta[k] = value
    return float(fit.form.coefficients(theta)[fit.form.parameters[k].name])
