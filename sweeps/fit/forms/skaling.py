"""Chinchilla's form under an outer power: a sum of the two terms that need not be additive."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sweeps.fit.forms.base import (
    EXPONENT_LIMIT,
    TERM_FOLDS,
    Array,
    Bound,
    Columns,
    Expansion,
    Flags,
    Form,
    Parameter,
)
from sweeps.fit.forms.exponent_grid import BASE, exponent_grid

E, S, ALPHA, RHO, BETA, KAPPA = range(6)  # where in `theta`


@dataclass(frozen=True)
class Skaling(Form):
    """L = E + (A / N^alpha + B / D^beta)^k (arXiv 2608.07222); at k = 1 it is Chinchilla's.

    In `theta`  L = E + S (r n^-alpha + (1 - r) d^-beta)^k  with n and d relative to the rows'
    geometric means, as (log E, log S, alpha, logit r, beta, log k): at a fixed (alpha, r, beta, k)
    it is linear in E and S. Near k = 0 it is the larger of its two terms. N* grows as
    C^(beta / (alpha + beta)) at any k.
    """

    params_ref: float = 1.0
    tokens_ref: float = 1.0
    name = "skaling"
    equation = "L = E + (A / params^alpha + B / tokens^beta)^k (arXiv 2608.07222)"
    columns = ("params", "tokens")
    nested = BASE
    unheld = ("A", "B")

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Return the coefficients in the order of `theta`."""
        return (
            Parameter("E", "floor"),
            Parameter("A", "amplitude"),
            Parameter("alpha", "exponent"),
            Parameter("B", "amplitude"),
            Parameter("beta", "exponent"),
            Parameter("k", "scale", np.log(0.05), np.log(5.0)),
        )

    @property
    def shape_index(self) -> list[int]:
        """Return where alpha, logit r, beta and log k are."""
        return [ALPHA, RHO, BETA, KAPPA]

    @property
    def amplitude_index(self) -> list[int]:
        """Return where log E and log S are."""
        return [E, S]

    def placed(
        self, columns: Columns, target: Array, fixed: Mapping[str, float] | None = None
    ) -> "Skaling":
        """Place the reference at the geometric mean of the rows."""
        means = [float(np.exp(np.mean(np.log(columns[c])))) for c in self.columns]
        return replace(self, params_ref=means[0], tokens_ref=means[1])

    def logs(self, columns: Columns) -> tuple[Array, Array]:
        """Return log n and log d."""
        n, d = columns["params"] / self.params_ref, columns["tokens"] / self.tokens_ref
        return np.log(n), np.log(d)

    def bind(self, columns: Columns) -> "BoundSkaling":
        """Return the form on the rows of one table."""
        return BoundSkaling(*self.logs(columns))

    def bounds(self) -> tuple[Array, Array]:
        """Return the lower and upper walls of `theta`, each `(P,)`."""
        wide, last = 10 * TERM_FOLDS, self.parameters[-1]
        low = [-wide, -wide, 0.0, -TERM_FOLDS, 0.0, last.low]
        high = [wide, wide, EXPONENT_LIMIT, TERM_FOLDS, EXPONENT_LIMIT, last.high]
        return np.array(low), np.array(high)

    def coefficients(self, theta: Array) -> dict[str, Array]:
        """Return E, A, alpha, B, beta and k."""
        e, s, alpha, rho, beta, kappa = np.moveaxis(theta, -1, 0)
        k = np.exp(kappa)
        log_r, log_rest = _log_shares(rho)
        with np.errstate(over="ignore"):
            return {
                "E": np.exp(e), "A": np.exp(s / k + log_r + alpha * np.log(self.params_ref)),
                "alpha": alpha, "B": np.exp(s / k + log_rest + beta * np.log(self.tokens_ref)),
                "beta": beta, "k": k,
            }  # fmt: skip

    def theta(self, **coefficients: float) -> Array:
        """Return `theta` `(P,)` for published coefficients."""
        v = coefficients
        with np.errstate(divide="ignore"):  # a term of 0 lies beyond every wall
            first = np.log(v["A"]) - v["alpha"] * np.log(self.params_ref)
            second = np.log(v["B"]) - v["beta"] * np.log(self.tokens_ref)
            floor = np.log(v["E"])
        size = v["k"] * np.logaddexp(first, second)
        return np.array([floor, size, v["alpha"], first - second, v["beta"], np.log(v["k"])])

    def from_nested(self, coefficients: Mapping[str, float]) -> dict[str, float]:
        """Return the coefficients at which this form is Chinchilla's."""
        return {**coefficients, "k": 1.0}

    def log_loss_each(self, theta: Array, columns: Columns) -> Array:
        """Return log L_hat `(K, M)` where each theta `(K, P)` has its own rows `(K, M)`."""
        return self.bind(columns).log_prediction(theta)

    def basis(self, shape: Array, columns: Columns) -> tuple[Array, Array]:
        """Return 1 and the powered sum `(G, 2, R)`, and the outer power, 1 `(G,)`."""
        theta = np.zeros((len(shape), 6))
        theta[:, self.shape_index] = shape
        value = np.exp(np.exp(theta[:, KAPPA, None]) * self.bind(columns).inner(theta)[0])
        return np.stack([np.ones_like(value), value], axis=1), np.ones(len(shape))

    def shape_grid(self, num_each: int) -> Array:
        """Return the starts' shapes: published k, either term larger, alpha k and beta k on a grid.

        Resamples take every n-th row of it: k and r, which have few values, come first.
        """
        powers = np.geomspace(0.05, 1.6, num_each)
        k, rho, alpha, beta = exponent_grid(
            (0.3, 0.6, 1.0, 1.7), (-1.5, 0.0, 1.5), powers, powers
        ).T
        return np.stack([alpha / k, rho, beta / k, np.log(k)], axis=1)


@dataclass(frozen=True)
class BoundSkaling(Bound):
    """The form on the rows of one table, by their log n and log d, `(R,)` or `(K, R)` each."""

    log_n: Array
    log_d: Array

    def inner(self, theta: Array) -> tuple[Array, Array]:
        """Return u = log(r n^-alpha + (1 - r) d^-beta) and the first term's share, `(K, R)`."""
        log_r, log_rest = _log_shares(theta[:, RHO, None])
        first = log_r - theta[:, ALPHA, None] * self.log_n
        second = log_rest - theta[:, BETA, None] * self.log_d
        u = np.logaddexp(first, second)
        return u, np.exp(first - u)

    def log_prediction(self, theta: Array) -> Array:
        """Return log L_hat, `(K, R)`."""
        v = theta[:, S, None] + np.exp(theta[:, KAPPA, None]) * self.inner(theta)[0]
        return np.logaddexp(theta[:, E, None], v)

    @cached_property
    def _bends(self) -> tuple[Array, Array]:
        """Return f `(R, 3)`, with which u bends as p (1 - p) f f^T, and f f^T `(R, 9)`."""
        f = np.stack([-self.log_n, np.ones_like(self.log_n), self.log_d], axis=1)
        return f, (f[:, :, None] * f[:, None, :]).reshape(len(f), 9)

    def expand(self, theta: Array) -> Expansion:
        """Return log L_hat with its derivatives, all analytic.

        With p the first term's share of the inner sum, v = log S + k u and g the floor's share of
        L_hat:  du = (-p log n, p - r, -(1 - p) log d) in (alpha, logit r, beta), whose second
        derivatives are p (1 - p) f f^T less r (1 - r) in logit r, and
        d2 log L_hat = g (1 - g) c c^T + (1 - g) d2 v  with c = dv - d log E.
        """
        u, p = self.inner(theta)
        k = np.exp(theta[:, KAPPA, None])
        r = np.exp(_log_shares(theta[:, RHO, None])[0])
        log_prediction = np.logaddexp(theta[:, E, None], theta[:, S, None] + k * u)
        g = np.exp(theta[:, E, None] - log_prediction)
        slopes = np.stack([-p * self.log_n, p - r, (p - 1) * self.log_d], axis=1)  # (K, 3, R)
        change = np.empty((len(theta), 6, u.shape[1]))
        change[:, E] = -1.0
        change[:, S] = 1.0
        change[:, ALPHA:KAPPA] = k[:, None] * slopes
        change[:, KAPPA] = k * u
        jacobian = (1 - g)[:, None] * change
        jacobian[:, E] = g

        def curvature(psi: Array, free: Flags | None) -> Array:
            hessian = (change * (psi * g * (1 - g))[:, None]) @ change.mT
            weight = psi * (1 - g) * k
            inner = ((weight * p * (1 - p)) @ self._bends[1]).reshape(-1, 3, 3)
            inner[:, 1, 1] -= (weight * r * (1 - r)).sum(axis=1)
            hessian[:, ALPHA:KAPPA, ALPHA:KAPPA] += inner
            in_k = (slopes @ weight[:, :, None])[:, :, 0]
            hessian[:, KAPPA, ALPHA:KAPPA] += in_k
            hessian[:, ALPHA:KAPPA, KAPPA] += in_k
            hessian[:, KAPPA, KAPPA] += (weight * u).sum(axis=1)
            return hessian

        return Expansion(log_prediction, jacobian, curvature)


def _log_shares(rho: Array) -> tuple[Array, Array]:
    """Return log r and log (1 - r) for logit r."""
    return -np.logaddexp(0, -rho), -np.logaddexp(0, rho)
