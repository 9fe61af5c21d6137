"""The forms a law can take: sums of powers, differentiated once for all of them.

Every form here is a sum of positive terms, each the exponential of something linear in `theta`:

    log L_hat_i = log sum_t exp(phi_ti . theta)

so the value, gradient and Hessian need only the features `phi`, of shape `(T, R, P)`: `T` terms,
`R` runs, `P` parameters. `theta` is always a batch `(K, P)`: the many starts of one fit, or the
one start of many bootstrap resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
# Training FLOPs per token of a model with these many parameters, element by element.
FlopsPerToken = Callable[[Array], Array]

# An exponent outside is not a scaling law of any known system (published: .03 to .6); the box
# keeps the problem compact, and a fit that ends on its wall is reported as not identified.
EXPONENT_BOUNDS = (0.0, 3.0)
# A term this many e-folds below the loss is zero to a loss printed with eight digits.
TERM_FOLDS = 18.0


@dataclass(frozen=True)
class Points:
    """Hold the fitted columns: `params` in parameters, `tokens` in tokens, `loss` per token."""

    params: Array  # (R,)
    tokens: Array  # (R,)
    loss: Array  # (R,)

    def take(self, rows: NDArray[np.bool_]) -> "Points":
        """Return the rows where `rows` is true."""
        return Points(self.params[rows], self.tokens[rows], self.loss[rows])


@dataclass(frozen=True)
class Chinchilla:
    """The form L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, approach 3).

    `theta = (log E, log A_ref, alpha, log B_ref, beta)`, where `A_ref = A / params_ref^alpha` and
    `B_ref = B / tokens_ref^beta` are the terms at a reference point in the middle of the runs:
    in these coordinates a term and its exponent are nearly uncorrelated, which the published
    coordinates (terms at N = 1, D = 1) are not.
    """

    params_ref: float
    tokens_ref: float
    loss_ref: float

    name = "chinchilla"
    coefficient_names = ("E", "A", "alpha", "B", "beta")
    num_terms = 3
    exponent_columns = (2, 4)
    term_columns = (0, 1, 3)

    @classmethod
    def of(cls, points: Points) -> "Chinchilla":
        """Place the reference at the geometric mean of the runs."""
        means = [float(np.exp(np.mean(np.log(v)))) for v in (points.params, points.tokens)]
        return cls(means[0], means[1], float(np.min(points.loss)))

    def features(self, params: Array, tokens: Array) -> Array:
        """Return `phi`, of shape `(T, R, P)`."""
        phi = np.zeros((3, np.size(params), 5))
        phi[0, :, 0] = phi[1, :, 1] = phi[2, :, 3] = 1.0
        phi[1, :, 2] = -np.log(params / self.params_ref)
        phi[2, :, 4] = -np.log(tokens / self.tokens_ref)
        return phi

    def log_loss_each(self, theta: Array, params: Array, tokens: Array) -> Array:
        """Return log L_hat `(K, M)` where each theta `(K, P)` has its own points `(K, M)`."""
        e, a, alpha, b, beta = (column[:, None] for column in theta.T)
        x = np.log(params / self.params_ref)
        y = np.log(tokens / self.tokens_ref)
        return np.logaddexp(np.logaddexp(e + 0 * x, a - alpha * x), b - beta * y)

    def bounds(self) -> tuple[Array, Array]:
        """Return the lower and upper walls of `theta`, each `(P,)`."""
        low, high = EXPONENT_BOUNDS
        term = np.log(self.loss_ref) - TERM_FOLDS
        top = np.log(self.loss_ref) + TERM_FOLDS
        return np.array([term, term, low, term, low]), np.array([top, top, high, top, high])

    def exponent_grid(self, num_each: int) -> Array:
        """Return the grid of (alpha, beta) that the many starts begin from, `(G, 2)`."""
        one = np.geomspace(0.05, 1.6, num_each)
        return np.stack(np.meshgrid(one, one, indexing="ij"), -1).reshape(-1, 2)

    def coefficients(self, theta: Array) -> dict[str, Array]:
        """Return E, A, alpha, B, beta in the published coordinates, each shaped as the batch."""
        e, a, alpha, b, beta = np.moveaxis(theta, -1, 0)
        with np.errstate(over="ignore"):
            return {
                "E": np.exp(e),
                "A": np.exp(a + alpha * np.log(self.params_ref)),
                "alpha": alpha,
                "B": np.exp(b + beta * np.log(self.tokens_ref)),
                "beta": beta,
            }

    def theta(self, E: float, A: float, alpha: float, B: float, beta: float) -> Array:
        """Return `theta` `(P,)` for coefficients in the published coordinates."""
        a = np.log(A) - alpha * np.log(self.params_ref)
        b = np.log(B) - beta * np.log(self.tokens_ref)
        return np.array([np.log(E), a, alpha, b, beta])


def log_terms(theta: Array, phi: Array) -> Array:
    """Return phi . theta, of shape `(K, T, R)`."""
    num_terms, num_runs, num_parameters = phi.shape
    flat = theta @ phi.reshape(-1, num_parameters).T
    return flat.reshape(-1, num_terms, num_runs)


def log_loss(theta: Array, phi: Array) -> Array:
    """Return log L_hat, of shape `(K, R)`."""
    terms = log_terms(theta, phi)
    top = terms.max(axis=1)
    return top + np.log(np.exp(terms - top[:, None]).sum(axis=1))


def predict(form: Chinchilla, theta: Array, params: Array, tokens: Array) -> Array:
    """Return L_hat, of shape `(K, R)`, for a batch `theta` `(K, P)`; values may overflow to inf."""
    with np.errstate(over="ignore"):
        return np.exp(log_loss(np.atleast_2d(theta), form.features(params, tokens)))


def compute_optimal(
    form: Chinchilla, theta: Array, flops: float, flops_per_token: FlopsPerToken, span: float = 1e4
) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Minimise L_hat(N, D) along the exact line D flops_per_token(N) = flops, for each theta.

    Returns N*, D*, L* and whether the minimum is interior, each `(K,)`. Sizes are searched over a
    factor `span` either side of the reference, moved along with sqrt(flops): a grid of log N, then
    four zooms of eight and a parabola (N* to about 1e-6). Textbook check: with 6 N FLOPs per token
    N* = (alpha A / beta B)^(1/(alpha+beta)) (flops/6)^(beta/(alpha+beta)).
    """
    theta = np.atleast_2d(theta)
    flops_ref = form.tokens_ref * flops_per_token(np.array([form.params_ref]))[0]
    middle = np.log(form.params_ref) + 0.5 * np.log(flops / flops_ref)
    half = np.log(span)
    grid = np.linspace(middle - half, middle + half, 257)
    log_n = np.broadcast_to(grid, (len(theta), grid.size))
    step = np.full(len(theta), grid[1] - grid[0])
    index = np.argmin(_along(form, theta, log_n, flops, flops_per_token), axis=1)
    interior = (index > 0) & (index < grid.size - 1)
    centre = grid[np.clip(index, 1, grid.size - 2)]
    for _ in range(4):
        log_n = centre[:, None] + step[:, None] * np.linspace(-1, 1, 17)
        step = step / 8
        index = np.argmin(_along(form, theta, log_n, flops, flops_per_token), axis=1)
        centre = log_n[np.arange(len(theta)), index]
    three = _along(
        form, theta, centre[:, None] + step[:, None] * np.array([-1, 0, 1]), flops, flops_per_token
    )
    bend = three[:, 0] - 2 * three[:, 1] + three[:, 2]
    lean = 0.5 * (three[:, 0] - three[:, 2])
    move = np.divide(lean, bend, out=np.zeros_like(lean), where=bend > 0)
    best = np.exp(centre + step * np.clip(move, -1, 1))
    tokens = flops / flops_per_token(best)
    loss = np.exp(_along(form, theta, np.log(best)[:, None], flops, flops_per_token)[:, 0])
    return best, tokens, loss, interior


def _along(
    form: Chinchilla, theta: Array, log_n: Array, flops: float, flops_per_token: FlopsPerToken
) -> Array:
    """Return log L_hat `(K, M)` at sizes exp(log_n) `(K, M)` on one iso-FLOP line."""
    tokens = flops / flops_per_token(np.exp(log_n))
    return form.log_loss_each(theta, np.exp(log_n), tokens)


def six_n(params: Array) -> Array:
    """Return the textbook 6 N FLOPs per token (Kaplan et al. 2020)."""
    return 6.0 * np.asarray(params, dtype=float)


def huber(residual: Array, delta: float) -> Array:
    """Return r^2 / 2 where |r| <= delta, else delta (|r| - delta / 2)."""
    size = np.abs(residual)
    return np.where(size <= delta, 0.5 * residual**2, delta * (size - 0.5 * delta))


def objective(theta: Array, phi: Array, log_target: Array, weights: Array, delta: float) -> Array:
    """Return sum_i w_i Huber_delta(log L_hat_i - log L_i), of shape `(K,)`."""
    return (weights * huber(log_loss(theta, phi) - log_target, delta)).sum(axis=1)


def objective_derivatives(
    theta: Array, phi: Array, log_target: Array, weights: Array, delta: float
) -> tuple[Array, Array, Array]:
    """Return the objective `(K,)`, its gradient `(K, P)` and its Hessian `(K, P, P)`, analytic.

    With softmax weights s_t = exp(phi_t . theta) / L_hat and J = sum_t s_t phi_t = d log L_hat,
    and psi = Huber' = clip(r, -delta, delta):

        gradient = sum_i w_i psi_i J_i
        Hessian  = sum_i w_i [ psi'_i J_i J_i^T + psi_i (sum_t s_ti phi_ti phi_ti^T - J_i J_i^T) ]
    """
    num_terms, num_runs, num_parameters = phi.shape
    terms = log_terms(theta, phi)  # (K, T, R)
    top = terms.max(axis=1)  # (K, R)
    share = np.exp(terms - top[:, None])
    total = share.sum(axis=1)
    share /= total[:, None]
    residual = top + np.log(total) - log_target
    inside = np.abs(residual) <= delta
    psi = weights * np.clip(residual, -delta, delta)
    jacobian = np.zeros((len(theta), num_parameters, num_runs))  # (K, P, R)
    for t, p in zip(*np.nonzero(np.any(phi != 0, axis=1)), strict=True):
        jacobian[:, p] += share[:, t] * phi[t, :, p]
    gradient = (jacobian @ psi[:, :, None])[:, :, 0]
    outer = (phi[..., :, None] * phi[..., None, :]).reshape(-1, num_parameters**2)
    hessian = (share * psi[:, None]).reshape(-1, num_terms * num_runs) @ outer
    curved = jacobian * (weights * inside - psi)[:, None]
    hessian = hessian.reshape(-1, num_parameters, num_parameters) + curved @ jacobian.mT
    value = (weights * huber(residual, delta)).sum(axis=1)
    return value, gradient, hessian


def jacobian_of(theta: Array, phi: Array) -> Array:
    """Return d log L_hat / d theta at one `theta` `(P,)`, of shape `(R, P)`."""
    terms = log_terms(theta[None], phi)[0]
    share = np.exp(terms - terms.max(axis=0))
    share /= share.sum(axis=0)
    return np.einsum("tr,trp->rp", share, phi)
