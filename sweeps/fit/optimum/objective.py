"""What is minimised: Huber of the residuals of a form on a table, with analytic derivatives."""

from dataclasses import dataclass

import numpy as np

from sweeps.fit.forms.base import Array, Bound, Columns, Flags, Form
from sweeps.fit.options import DEFAULTS, FitOptions

# The weight of a row above the law over that of one below it, by `one_sided`: that of the tenth
# quantile or expectile (Newey and Powell 1987), which is the law of all but the worst-tuned runs.
WEIGHT_ABOVE = 1 / 9


@dataclass(frozen=True)
class Objective:
    """The sum over rows of w_i Huber_delta(r_i), or its mean.

    `residual` is `log` (r = log L_hat - log L, as Hoffmann et al. 2022 publish it) or `linear`
    (r = L_hat - L). An infinite `delta` makes it half the sum of squares. A mean has the same
    optimum, but so small a value and gradient that optimisers with absolute tolerances stop early
    (Besiroglu et al. 2024). Rows whose target is above the prediction (r < 0) count `above` times.
    """

    bound: Bound
    target: Array  # (R,)
    delta: float
    residual: str = "log"
    mean: bool = False
    free: Flags | None = None  # the parameters that move, where not all do
    above: float = 1.0

    @classmethod
    def of(
        cls,
        form: Form,
        columns: Columns,
        target: Array,
        options: FitOptions = DEFAULTS,
    ) -> "Objective":
        """Return the objective of `form` on a table, as published where nothing else is given."""
        delta = form.delta if options.delta is None else options.delta
        residual = options.residual or form.residual
        above = WEIGHT_ABOVE if options.one_sided else 1.0
        return cls(form.bind(columns), target, delta, residual, options.mean, above=above)

    @property
    def unit(self) -> Array:
        """Return the weights of the rows as they are, `(1, R)`."""
        share = 1 / len(self.target) if self.mean else 1.0
        return np.full((1, len(self.target)), share)

    def residuals(self, theta: Array) -> Array:
        """Return the residuals, `(K, R)`."""
        log_prediction = self.bound.log_prediction(np.atleast_2d(theta))
        if self.residual == "log":
            return log_prediction - np.log(self.target)
        return np.exp(log_prediction) - self.target

    def value(self, theta: Array, weights: Array) -> Array:
        """Return the objective, `(K,)`."""
        residual = self.residuals(theta)
        return (self.leaned(weights, residual) * huber(residual, self.delta)).sum(axis=1)

    def leaned(self, weights: Array, residual: Array) -> Array:
        """Return the weights of the rows with those above the law at their part."""
        return weights if self.above == 1 else np.where(residual < 0, self.above * weights, weights)

    def derivatives(
        self, theta: Array, weights: Array, delta: float | None = None
    ) -> tuple[Array, Array, Array]:
        """Return the objective `(K,)`, its gradient `(K, P)` and its Hessian `(K, P, P)`.

        With J = d log L_hat, psi = Huber'(r) = clip(r, -delta, delta) and log residuals

            gradient = sum_i w_i psi_i J_i
            Hessian  = sum_i w_i [ psi'_i J_i J_i^T + psi_i d2 log L_hat_i ];

        linear residuals put L_hat_i J_i in place of J_i.
        """
        delta = self.delta if delta is None else delta
        at = self.bound.expand(theta)
        if self.residual == "log":
            residual = at.log_prediction - np.log(self.target)
            slope: Array | float = 1.0
        else:
            slope = np.exp(at.log_prediction)
            residual = slope - self.target
        weights = self.leaned(weights, residual)
        bent = np.clip(residual, -delta, delta)
        psi = weights * bent * slope
        inner = weights * (np.abs(residual) <= delta) * slope * slope
        if self.residual == "linear":
            inner = inner + psi
        gradient = (at.jacobian @ psi[:, :, None])[:, :, 0]
        hessian = (at.jacobian * inner[:, None]) @ at.jacobian.mT + at.curvature(psi, self.free)
        value = (weights * huber(residual, delta)).sum(axis=1)
        return value, gradient, hessian

    def jacobian(self, theta: Array) -> Array:
        """Return d residual / d theta at one `theta` `(P,)`, `(R, P)`."""
        at = self.bound.expand(theta[None])
        slope = np.exp(at.log_prediction[0]) if self.residual == "linear" else 1.0
        return (at.jacobian[0] * slope).T


def huber(residual: Array, delta: float) -> Array:
    """Return r^2 / 2 where |r| <= delta, else delta (|r| - delta / 2)."""
    inner = np.clip(residual, -delta, delta)
    return np.asarray(inner * (residual - 0.5 * inner))
