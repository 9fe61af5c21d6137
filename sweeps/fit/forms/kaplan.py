"""Kaplan's joint form of parameters and compute."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sweeps.fit.forms.base import Array, Columns, Parameter
from sweeps.fit.forms.exponent_grid import exponent_grid
from sweeps.fit.forms.separable import Separable

FOLDS = 300.0  # e-folds of a term: its square is still a number


@dataclass(frozen=True)
class Kaplan(Separable):
    """L = [ (N_c / N)^(alpha_N / alpha_D) + D_c / D ]^alpha_D (Kaplan et al. 2020, equation 1.5).

    In `theta` the two terms are at the reference point, as in `SumOfPowers`.
    """

    params_ref: float = 1.0
    tokens_ref: float = 1.0
    name = "kaplan"
    equation = (
        "L = [(N_c / params)^(alpha_N / alpha_D) + D_c / tokens]^alpha_D (Kaplan et al. 2020)"
    )
    columns = ("params", "tokens")
    signs = (1.0, 1.0)
    parameters = (
        Parameter("N_c", "amplitude"),
        Parameter("alpha_N", "exponent", 1e-3, 3.0),
        Parameter("D_c", "amplitude"),
        Parameter("alpha_D", "exponent", 1e-3, 3.0),
    )

    def placed(
        self, columns: Columns, target: Array, fixed: Mapping[str, float] | None = None
    ) -> "Kaplan":
        """Place the reference at the geometric mean of the rows, or at the N_c that is held.

        The first entry of `theta` is log(N_c / reference) times a ratio of exponents: only at
        N_c itself does it hold N_c, at 0, whatever the exponents are.
        """
        means = [float(np.exp(np.mean(np.log(columns[c])))) for c in self.columns]
        held = float((fixed or {}).get("N_c", means[0]))
        return replace(self, params_ref=held, tokens_ref=means[1])

    def outer(self, shape: Array) -> tuple[Array, Array]:
        """Return alpha_D and its slopes in (alpha_N, alpha_D)."""
        return shape[:, 1], np.tile([0.0, 1.0], (len(shape), 1))

    def terms(self, shape: Array, rows: Columns) -> tuple[Array, Array]:
        """Return (N / N_ref)^(-alpha_N / alpha_D) and D_ref / D, with slopes."""
        alpha_n, alpha_d = shape[:, :1], shape[:, 1:]
        log_n = np.log(rows["params"] / self.params_ref)
        # Far from an N_c that is held, steep shapes would overflow; none of them fits anything.
        first = np.exp(np.clip(-alpha_n / alpha_d * log_n, -FOLDS, FOLDS))
        second = np.broadcast_to(self.tokens_ref / rows["tokens"], first.shape)
        slopes = np.zeros((len(shape), 2, 2, first.shape[1]))
        slopes[:, 0, 0] = -first * log_n / alpha_d
        slopes[:, 0, 1] = first * log_n * alpha_n / alpha_d**2
        return np.stack([first, second], axis=1), slopes

    def shape_grid(self, num_each: int) -> Array:
        """Return the grid of (alpha_N, alpha_D)."""
        one = np.geomspace(0.03, 1.0, num_each + 2)
        return exponent_grid(one, one)

    def coefficients(self, theta: Array) -> dict[str, Array]:
        """Return N_c, alpha_N, D_c and alpha_D."""
        a, alpha_n, b, alpha_d = np.moveaxis(theta, -1, 0)
        with np.errstate(over="ignore"):
            critical = np.exp(a * alpha_d / alpha_n) * self.params_ref
            return {
                "N_c": critical, "alpha_N": alpha_n, "D_c": np.exp(b) * self.tokens_ref,
                "alpha_D": alpha_d,
            }  # fmt: skip

    def theta(self, **coefficients: float) -> Array:
        """Return `theta` `(P,)` for published coefficients."""
        alpha_n, alpha_d = coefficients["alpha_N"], coefficients["alpha_D"]
        a = alpha_n / alpha_d * np.log(coefficients["N_c"] / self.params_ref)
        return np.array([a, alpha_n, np.log(coefficients["D_c"] / self.tokens_ref), alpha_d])
