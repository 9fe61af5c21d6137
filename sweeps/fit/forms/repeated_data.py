"""Laws of data that is seen more than once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sweeps.fit.forms.base import Array, Columns, Flags, Parameter
from sweeps.fit.forms.exponent_grid import BASE, exponent_grid
from sweeps.fit.forms.separable import Separable


@dataclass(frozen=True)
class DataConstrained(Separable):
    """L = E + A / N'^alpha + B / D'^beta with decaying worth of repeats (Muennighoff et al. 2023).

        D' = U_D + U_D R_D* (1 - exp(-R_D / R_D*)),  R_D = D / U_D - 1,
        N' = U_N + U_N R_N* (1 - exp(-R_N / R_N*)),  R_N = N / U_N - 1,

    where U_D are the unique tokens and U_N, at most N, the parameters that are compute-optimal for
    U_D: U_N = G (G U_D)^(beta/alpha), G = (alpha A / beta B)^(1/(alpha+beta)): it moves with the
    base coefficients unless they are fixed, as in the paper.
    """

    split: tuple[float, float] = (0.0, 1.0)  # log G and beta / alpha of the starts
    coupled = True
    base = BASE
    name = "data_constrained"
    equation = (
        "L = E + A / N'^alpha + B / D'^beta, with N' and D' saturating in repeats "
        "(Muennighoff et al. 2023)"
    )
    columns = ("params", "tokens", "unique_tokens")
    signs = (1.0, 1.0, 1.0)
    parameters = (
        Parameter("E", "floor"),
        Parameter("A", "amplitude"),
        Parameter("alpha", "exponent"),
        Parameter("B", "amplitude"),
        Parameter("beta", "exponent"),
        Parameter("R_D_star", "scale", np.log(1e-2), np.log(1e4)),
        Parameter("R_N_star", "scale", np.log(1e-2), np.log(1e4)),
    )

    def placed(
        self, columns: Columns, target: Array, fixed: Mapping[str, float] | None = None
    ) -> "DataConstrained":
        """Work out for the starts which parameters are optimal for unique tokens."""
        given = fixed or {}
        if not set(given) >= set(BASE.coefficient_names):
            return self
        floors = {"A": 1e-300, "B": 1e-300, "alpha": 1e-3, "beta": 1e-3}
        a, b, alpha, beta = (max(given[n], floors[n]) for n in ("A", "B", "alpha", "beta"))
        log_gain = np.log(alpha * a / (beta * b)) / (alpha + beta)
        return replace(self, split=(float(log_gain), beta / alpha))

    def base_rows(self, columns: Columns) -> Flags:
        """Return the rows that saw their data once, or all where those are too few."""
        once = columns["tokens"] <= columns["unique_tokens"] * (1 + 1e-9)
        enough = once.sum() > len(BASE.coefficient_names)
        return np.asarray(once if enough else np.ones_like(once))

    def prepare(self, columns: Columns) -> dict[str, Array]:
        """Return params, unique tokens, repeats of tokens and the starts' unique params."""
        unique = np.minimum(columns["unique_tokens"], columns["tokens"])
        rows = {
            "params": columns["params"], "U_D": unique, "R_D": columns["tokens"] / unique - 1,
        }  # fmt: skip
        return rows | {"U_N": self._unique_params(rows, *self.split)}

    def _unique_params(self, rows: Columns, log_gain: Array | float, power: Array | float) -> Array:
        log_best = np.clip(log_gain + power * (log_gain + np.log(rows["U_D"])), -500, 500)
        return np.minimum(np.exp(log_best), rows["params"])

    def rows_at(self, theta: Array, rows: Columns) -> dict[str, Array]:
        """Return the rows with the unique parameters of each theta, `(K, R)`."""
        log_gain, power = self._split(theta)
        return dict(rows) | {"U_N": self._unique_params(rows, log_gain, power)}

    def _split(self, theta: Array) -> tuple[Array, Array]:
        """Return log G and beta / alpha, each `(K, 1)`."""
        _, a, alpha, b, beta = (column[:, None] for column in theta[:, :5].T)
        alpha, beta = np.maximum(alpha, 1e-6), np.maximum(beta, 1e-6)
        return (np.log(alpha / beta) + a - b) / (alpha + beta), beta / alpha

    def coupling(self, theta: Array, rows: Columns) -> Array:
        """Return the gradient of A / N'^alpha through U_N in (A, alpha, B, beta)."""
        log_gain, power = self._split(theta)
        alpha, beta = np.maximum(theta[:, 2:3], 1e-6), np.maximum(theta[:, 4:5], 1e-6)
        decay = np.exp(theta[:, 6:7])
        best = self._unique_params(rows, log_gain, power)
        ratio = rows["params"] / best
        log_n, _ = _worth(best, ratio - 1, theta[:, 6:7])
        left = np.exp(-(ratio - 1) / decay)
        gained = decay * (1 - left)
        term = np.exp(theta[:, 1:2] - alpha * log_n)
        through = -alpha * term * (1 - left * ratio / (1 + gained))  # d term / d log U_N
        through = np.where(best < rows["params"], through, 0.0)
        total = alpha + beta
        by_gain = 1 + power  # d log U_N / d log G
        log_tokens = log_gain + np.log(rows["U_D"])
        gradient = np.zeros((*theta.shape, through.shape[1]))
        gradient[:, 1] = through * by_gain / total
        gradient[:, 3] = -through * by_gain / total
        in_alpha = by_gain * (1 / alpha - log_gain) / total - power / alpha * log_tokens
        in_beta = by_gain * (-1 / beta - log_gain) / total + log_tokens / alpha
        gradient[:, 2] = through * in_alpha
        gradient[:, 4] = through * in_beta
        return gradient

    def terms(self, shape: Array, rows: Columns) -> tuple[Array, Array]:
        """Return 1, N'^-alpha and D'^-beta with slopes in (alpha, beta, log R_D*, log R_N*)."""
        alpha, beta, log_rd, log_rn = (column[:, None] for column in shape.T)
        n, n_slope = _worth(rows["U_N"], rows["params"] / rows["U_N"] - 1, log_rn)
        d, d_slope = _worth(rows["U_D"], rows["R_D"], log_rd)
        first, second = np.exp(-alpha * n), np.exp(-beta * d)
        slopes = np.zeros((len(shape), 3, 4, first.shape[1]))
        slopes[:, 1, 0] = -n * first
        slopes[:, 1, 3] = -alpha * n_slope * first
        slopes[:, 2, 1] = -d * second
        slopes[:, 2, 2] = -beta * d_slope * second
        return np.stack([np.ones_like(first), first, second], axis=1), slopes

    def shape_grid(self, num_each: int) -> Array:
        """Return exponents and repeats' decay over the published range and beyond."""
        one, decay = (0.1, 0.3, 0.6), np.log([1.0, 5.0, 25.0, 125.0])
        return exponent_grid(one, one, decay, decay)


def _worth(unique: Array, repeats: Array, log_decay: Array) -> tuple[Array, Array]:
    """Return log(U + U R* (1 - exp(-R / R*))) and its slope in log R*, `(K, R)`."""
    decay = np.exp(log_decay)
    ratio = repeats / decay
    gained = -decay * np.expm1(-ratio)
    slope = decay * (-np.expm1(-ratio) - ratio * np.exp(-ratio)) / (1 + gained)
    return np.log(unique) + np.log1p(gained), slope
