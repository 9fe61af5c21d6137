"""The best denoiser that knows means and covariances alone: what pairwise statistics can tell.

For x_1 ~ N(m, C) and x_t = (1 - t) x_0 + t x_1 the best velocity is linear in x_t. Along an axis of
C with the variance c, and with y = x_t - t m,

    E[x_1 - x_0 | x_t] = m + y (t c - (1 - t)) / (t^2 c + (1 - t)^2)

It minimises E|v - v_hat|^2 among all linear denoisers whatever the clips' distribution is, so that
a network's margin above its margin shows more than a covariance.

Axes come from one half of the clips and the variances along them from the other (cross-validated
eigenvalues: Bartz 2016, arXiv 1611.00798), since those of the same clips are too large. What the
other half varies by outside of these axes is spread evenly over all directions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Variance of rounding to grey levels of 2 / 255, the least that is left in any direction.
ROUNDING = (2 / 255) ** 2 / 12
_NEGLIGIBLE = 1e-9  # of the largest variance, below which an axis is rounding


@dataclass(frozen=True)
class Gaussian:
    """Clips of D values as a normal distribution.

    mean: (D,). axes: (D, K), orthonormal. variances: (K,) along them. rest: in all others.
    """

    mean: Array
    axes: Array
    variances: Array
    rest: float

    def velocity(self, x_t: Array, t: Array, mean: Array | None = None) -> Array:
        """Return the best velocity at x_t (N, D) and t (N,); ``mean`` (N, D) replaces its own."""
        centre = self.mean if mean is None else mean
        time = t[:, None]
        away = x_t - time * centre
        others = gain(np.full((1, 1), self.rest), time)  # (N, 1)
        along = (away @ self.axes) * (gain(self.variances[None], time) - others)
        return centre + others * away + along @ self.axes.T

    def given(self, known: NDArray[np.bool_]) -> "Conditional":
        """Condition on some of the D places, whatever their values are."""
        load = self.axes * np.sqrt(np.maximum(self.variances - self.rest, 0))  # x = m + load z + e
        seen, unseen = load[known], load[~known]
        inside = np.linalg.inv(np.eye(load.shape[1]) + seen.T @ seen / self.rest)
        inside = (inside + inside.T) / 2  # the covariance of z
        axes, variances = principal((unseen @ np.linalg.cholesky(inside)).T)
        about = Gaussian(self.mean[~known], axes, variances + self.rest, self.rest)
        return Conditional(self.mean[known], seen @ inside / self.rest, unseen, about)


@dataclass(frozen=True)
class Conditional:
    """The unknown values of clips whose others are known.

    start: (A,) mean of the known. to_hidden: (A, K), from_hidden: (B, K); together they turn what
    the known are away from their mean into the mean of the unknown. about: their distribution.
    """

    start: Array
    to_hidden: Array
    from_hidden: Array
    about: Gaussian

    def means(self, values: Array) -> Array:
        """Return the unknown values' means (N, B) given the known (N, A)."""
        return self.about.mean + ((values - self.start) @ self.to_hidden) @ self.from_hidden.T


def gain(variance: Array, t: Array) -> Array:
    """Return by what a deviation of x_t is multiplied along an axis."""
    share: Array = (t * variance - (1 - t)) / (t**2 * variance + (1 - t) ** 2)
    return share


def principal(rows: Array) -> tuple[Array, Array]:
    """Return orthonormal axes (D, K) of rows (n, D), and their summed squares along each."""
    small = rows if len(rows) <= rows.shape[1] else rows.T
    values, vectors = np.linalg.eigh(small @ small.T)
    kept = values > _NEGLIGIBLE * max(float(values[-1]), 1e-300)
    values, vectors = values[kept], vectors[:, kept]
    if small is rows:
        vectors = rows.T @ vectors / np.sqrt(values)
    return vectors, values


def fit_gaussian(clips: Array) -> Gaussian:
    """Fit clips (n, D). Raises ValueError on fewer than 8."""
    if len(clips) < 8:
        raise ValueError(f"clips={len(clips)}: must be at least 8 for a covariance. Use 2048.")
    # Each half about its own mean: a common one would tie the second half to the first one's axes.
    first, second = (half - half.mean(0) for half in (clips[::2], clips[1::2]))
    axes, _ = principal(first)
    freedom = len(second) - 1
    variances = ((second @ axes) ** 2).sum(0) / freedom
    left = float((second**2).sum()) / freedom - float(variances.sum())
    rest = max(left / max(clips.shape[1] - axes.shape[1], 1), ROUNDING)
    return Gaussian(clips.mean(0), axes, variances, rest)
