"""Sums of powers: Chinchilla's form and all that differ from it in columns or tied exponents.

With every log term linear in `theta`, log L_hat = log sum_t exp(phi_t . theta), the value, gradient
and Hessian need only the features `phi` `(T, R, P)`: T terms, R rows, P parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True)
class Term:
    """One term: `amplitude` times every `column ** -exponent` of `powers`."""

    amplitude: str
    powers: tuple[tuple[str, str], ...] = ()  # (column, exponent's name)


@dataclass(frozen=True)
class SumOfPowers(Form):
    """A sum of positive powers, as in L = E + A / N^alpha + B / D^beta.

    The same exponent's name in two terms ties them. Amplitudes in `theta` are the terms at the
    reference point: there a term and its exponent are nearly uncorrelated, which in the published
    coordinates (terms at N = 1, D = 1) they are not. `signed` exponents may be negative.
    """

    name: str
    equation: str
    terms: tuple[Term, ...]
    target: str = "loss"
    residual: str = "log"
    delta: float = 1e-3
    signed: bool = False
    references: tuple[tuple[str, float], ...] = ()
    scale: float = 1.0  # of the target: the walls of the amplitudes follow it
    _order: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for term in self.terms:
            for name in (term.amplitude, *(exponent for _, exponent in term.powers)):
                self._order.setdefault(name, len(self._order))

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the columns of the table that the terms use."""
        return tuple(dict.fromkeys(c for term in self.terms for c, _ in term.powers))

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Return the coefficients in the order of `theta`."""
        kinds = {t.amplitude: "amplitude" if t.powers else "floor" for t in self.terms}
        low = -EXPONENT_LIMIT if self.signed else 0.0
        return tuple(Parameter(n, kinds.get(n, "exponent"), low) for n in self._order)

    def placed(
        self, columns: Columns, target: Array, fixed: Mapping[str, float] | None = None
    ) -> "SumOfPowers":
        """Place the reference at the geometric mean of the rows; at 1 where some are fixed."""
        if fixed:
            return replace(self, references=(), scale=float(np.min(target)))
        middle = tuple((c, float(np.exp(np.mean(np.log(columns[c]))))) for c in self.columns)
        return replace(self, references=middle, scale=float(np.min(target)))

    def bounds(self) -> tuple[Array, Array]:
        """Return the lower and upper walls of `theta`, each `(P,)`."""
        middle = np.log(self.scale)
        reference = dict(self.references)
        low, high = [], []
        for p in self.parameters:
            # Away from the middle of the rows an amplitude takes up what its exponents leave.
            folds = TERM_FOLDS if reference else 40 * TERM_FOLDS
            exponent = p.kind == "exponent"
            low.append(p.low if exponent else middle - folds)
            high.append(p.high if exponent else middle + folds)
        return np.array(low), np.array(high)

    def coefficients(self, theta: Array) -> dict[str, Array]:
        """Return the published coefficients, each shaped as the batch."""
        found = {name: theta[..., i] for name, i in self._order.items()}
        with np.errstate(over="ignore"):
            for term in self.terms:
                found[term.amplitude] = np.exp(found[term.amplitude] + self._shift(term, found))
        return found

    def theta(self, **coefficients: float) -> Array:
        """Return `theta` `(P,)` for published coefficients."""
        theta = np.array([coefficients[name] for name in self._order], dtype=float)
        for term in self.terms:
            i = self._order[term.amplitude]
            theta[i] = np.log(coefficients[term.amplitude]) - self._shift(term, coefficients)
        return theta

    def _shift(self, term: Term, values: Mapping[str, Array | float]) -> Array | float:
        """Return log of how much larger the amplitude at 1 is than at the reference."""
        reference = dict(self.references)
        return sum((values[e] * np.log(reference.get(c, 1.0)) for c, e in term.powers), 0.0)

    def log_columns(self, columns: Columns) -> dict[str, Array]:
        """Return the log of each column relative to the reference."""
        reference = dict(self.references)
        return {c: np.log(columns[c] / reference.get(c, 1.0)) for c in self.columns}

    def features(self, columns: Columns) -> Array:
        """Return `phi` `(T, R, P)`, so that log L_hat = log sum_t exp(phi_t . theta)."""
        logs = self.log_columns(columns)
        num_rows = len(next(iter(columns.values())))
        phi = np.zeros((len(self.terms), num_rows, len(self._order)))
        for t, term in enumerate(self.terms):
            phi[t, :, self._order[term.amplitude]] = 1.0
            for column, exponent in term.powers:
                phi[t, :, self._order[exponent]] -= logs[column]
        return phi

    def bind(self, columns: Columns) -> "BoundPowers":
        """Return the form on the rows of one table."""
        return BoundPowers(self.features(columns))

    def log_loss_each(self, theta: Array, columns: Columns) -> Array:
        """Return log L_hat `(K, M)` where each theta `(K, P)` has its own rows `(K, M)`."""
        logs = self.log_columns(columns)
        total: Array | None = None
        for term in self.terms:
            part = theta[:, self._order[term.amplitude], None]
            for column, exponent in term.powers:
                part = part - theta[:, self._order[exponent], None] * logs[column]
            total = part if total is None else np.logaddexp(total, part)
        assert total is not None
        return total

    def basis(self, shape: Array, columns: Columns) -> tuple[Array, Array]:
        """Return `v` `(G, T, R)` and the outer power, 1 `(G,)`, at shapes `(G, S)`."""
        theta = np.zeros((len(shape), len(self._order)))
        theta[:, self.shape_index] = shape
        phi = self.features(columns)
        return np.exp(np.einsum("trp,gp->gtr", phi, theta)), np.ones(len(shape))

    def shape_grid(self, num_each: int) -> Array:
        """Return the grid of exponents that the many starts begin from, `(G, S)`."""
        one = np.geomspace(0.05, 1.6, num_each)
        if self.signed:
            one = np.concatenate([-one[::-1], one])
        axes = [one] * len(self.shape_index)
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


@dataclass(frozen=True)
class BoundPowers(Bound):
    """A sum of powers on the rows of one table, by its features `phi` `(T, R, P)`."""

    phi: Array

    @cached_property
    def _outer(self) -> Array:
        """phi phi^T of every term and row, `(T R, P^2)`."""
        num_parameters = self.phi.shape[-1]
        return (self.phi[..., :, None] * self.phi[..., None, :]).reshape(-1, num_parameters**2)

    @cached_property
    def _used(self) -> list[tuple[int, int]]:
        """The terms and parameters that have to do with one another."""
        return list(zip(*np.nonzero(np.any(self.phi != 0, axis=1)), strict=True))

    def _log_terms(self, theta: Array) -> Array:
        num_terms, num_rows, num_parameters = self.phi.shape
        return (theta @ self.phi.reshape(-1, num_parameters).T).reshape(-1, num_terms, num_rows)

    def log_prediction(self, theta: Array) -> Array:
        """Return log L_hat, `(K, R)`."""
        terms = self._log_terms(theta)
        top = terms.max(axis=1)
        return top + np.log(np.exp(terms - top[:, None]).sum(axis=1))

    def expand(self, theta: Array) -> Expansion:
        """Return log L_hat with its derivatives, all analytic.

        With softmax weights s_t = exp(phi_t . theta) / L_hat:  J = sum_t s_t phi_t  and
        d2 log L_hat = sum_t s_t phi_t phi_t^T - J J^T.
        """
        num_terms, num_rows, num_parameters = self.phi.shape
        terms = self._log_terms(theta)  # (K, T, R)
        top = terms.max(axis=1)  # (K, R)
        share = np.exp(terms - top[:, None])
        total = share.sum(axis=1)
        share /= total[:, None]
        jacobian = np.zeros((len(theta), num_parameters, num_rows))
        for t, p in self._used:
            jacobian[:, p] += share[:, t] * self.phi[t, :, p]

        def curvature(psi: Array, free: Flags | None) -> Array:
            first = (share * psi[:, None]).reshape(-1, num_terms * num_rows) @ self._outer
            second = (jacobian * psi[:, None]) @ jacobian.mT
            return first.reshape(-1, num_parameters, num_parameters) - second

        return Expansion(top + np.log(total), jacobian, curvature)
