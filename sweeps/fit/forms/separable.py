"""What the forms that are not sums of powers share: first derivatives by the chain rule."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from sweeps.fit.forms.base import (
    TERM_FOLDS,
    Array,
    Bound,
    Columns,
    Expansion,
    Flags,
    Form,
    Parameter,
)

STEP = 1e-6  # of the differences of first derivatives that give the Hessian


class Separable(Form):
    """A form given by its terms `v_t` at any shape, with their derivatives.

    A subclass names its `parameters` and returns from `terms` the values and slopes; scales and
    amplitudes are logs in `theta`. `prepare` may work out once what rows need at every shape.
    """

    signs: tuple[float, ...]
    coupled: bool = False

    def prepare(self, columns: Columns) -> Any:
        """Return what `terms` needs of these rows."""
        return columns

    @abstractmethod
    def terms(self, shape: Array, rows: Any) -> tuple[Array, Array]:
        """Return `v` `(K, T, R)` and its slopes in the shape `(K, T, S, R)` at `(K, S)`."""

    def rows_at(self, theta: Array, rows: Any) -> Any:
        """Return the rows as `theta` sees them, for a form whose terms know amplitudes."""
        return rows

    def coupling(self, theta: Array, rows: Any) -> Array | None:
        """Return d(sum of terms) / d theta through `rows_at`, `(K, P, R)`, or None."""
        return None

    def outer(self, shape: Array) -> tuple[Array, Array]:
        """Return the outer power p `(K,)` and its slopes `(K, S)`."""
        return np.ones(len(shape)), np.zeros(shape.shape)

    def placed(
        self, columns: Columns, target: Array, fixed: Mapping[str, float] | None = None
    ) -> "Separable":
        """Return the form as it is: it has no reference point."""
        return self

    def bind(self, columns: Columns) -> Bound:
        """Return the form on the rows of one table."""
        return BoundSeparable(self, self.prepare(columns))

    def basis(self, shape: Array, columns: Columns) -> tuple[Array, Array]:
        """Return the signed `v` `(G, T, R)` and the outer power `(G,)` at shapes `(G, S)`."""
        values = self.terms(shape, self.prepare(columns))[0]
        return values * np.array(self.signs)[:, None], self.outer(shape)[0]

    def bounds(self) -> tuple[Array, Array]:
        """Return the lower and upper walls of `theta`, each `(P,)`."""
        wide = 10 * TERM_FOLDS

        def walls(p: Parameter) -> tuple[float, float]:
            return (p.low, p.high) if p.kind in ("exponent", "scale") else (-wide, wide)

        low, high = zip(*(walls(p) for p in self.parameters), strict=True)
        return np.array(low), np.array(high)

    def coefficients(self, theta: Array) -> dict[str, Array]:
        """Return the published coefficients: exponents as they are, exponentials of the logs."""
        with np.errstate(over="ignore"):
            return {
                p.name: theta[..., i] if p.kind == "exponent" else np.exp(theta[..., i])
                for i, p in enumerate(self.parameters)
            }

    def theta(self, **coefficients: float) -> Array:
        """Return `theta` `(P,)` for published coefficients."""
        return np.array(
            [
                coefficients[p.name] if p.kind == "exponent" else np.log(coefficients[p.name])
                for p in self.parameters
            ]
        )

    def log_loss_each(self, theta: Array, columns: Columns) -> Array:
        """Return log L_hat `(K, M)` where each theta `(K, P)` has its own rows `(K, M)`."""
        return self.bind(columns).log_prediction(theta)


class BoundSeparable(Bound):
    """A separable form on the rows of one table."""

    def __init__(self, form: Separable, rows: Any) -> None:
        self.form = form
        self.rows = rows
        self._shape, self._amplitudes = form.shape_index, form.amplitude_index
        self._signs = np.array(form.signs)
        self._unsigned = bool((self._signs == 1.0).all())

    def _terms(self, theta: Array) -> tuple[Array, Array]:
        rows = self.form.rows_at(theta, self.rows)
        values, slopes = self.form.terms(theta[:, self._shape], rows)
        if self._unsigned:
            return values, slopes
        return values * self._signs[:, None], slopes * self._signs[:, None, None]

    def _first(self, theta: Array, values: Array, slopes: Array) -> tuple[Array, Array]:
        """Return log L_hat `(K, R)` and its gradient `(K, P, R)` from the terms at the shape."""
        amplitudes = np.exp(theta[:, self._amplitudes])
        parts = amplitudes[:, :, None] * values  # (K, T, R)
        total = parts.sum(axis=1)
        # A sum that is not positive has no logarithm: a value this far off is never accepted.
        safe = np.where(total > 0, total, 1e-300)
        log_safe = np.log(safe)
        power, power_slopes = self.form.outer(theta[:, self._shape])
        gradient = np.zeros((*theta.shape, total.shape[1]))
        gradient[:, self._amplitudes] = power[:, None, None] * parts / safe[:, None]
        inner = np.einsum("kt,ktsr->ksr", amplitudes, slopes) / safe[:, None]
        outside = power_slopes[:, :, None] * log_safe[:, None]
        gradient[:, self._shape] = power[:, None, None] * inner + outside
        coupled = self.form.coupling(theta, self.rows)
        if coupled is not None:
            gradient += power[:, None, None] * coupled / safe[:, None]
        return power[:, None] * log_safe, gradient

    def log_prediction(self, theta: Array) -> Array:
        """Return log L_hat, `(K, R)`."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._first(theta, *self._terms(theta))[0]

    def expand(self, theta: Array) -> Expansion:
        """Return log L_hat with analytic first derivatives; second ones are their differences."""
        values, slopes = self._terms(theta)
        log_prediction, jacobian = self._first(theta, values, slopes)

        def curvature(psi: Array, free: Flags | None) -> Array:
            here = (jacobian @ psi[:, :, None])[:, :, 0]
            hessian = np.zeros((*theta.shape, theta.shape[1]))
            for p in range(theta.shape[1]) if free is None else np.flatnonzero(free):
                moved = theta.copy()
                moved[:, p] += STEP
                same = p in self._amplitudes and not self.form.coupled
                terms = (values, slopes) if same else self._terms(moved)
                there = (self._first(moved, *terms)[1] @ psi[:, :, None])[:, :, 0]
                hessian[:, p] = (there - here) / STEP
            return 0.5 * (hessian + hessian.mT)

        return Expansion(log_prediction, jacobian, curvature)
