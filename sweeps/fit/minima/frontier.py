"""The compute-optimal split of a budget into parameters and tokens, with intervals."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sweeps.fit.forms.base import Array, Columns, FlopsPerToken, Form, Interval
from sweeps.fit.optimum.solve import Fit
from sweeps.fit.trust.bootstrap import Bootstrap, percentile_interval

Draws = tuple[Array, Array, Array]  # N*, D*, L* of each resample, `(K,)` each
SPAN = 1e4  # the sizes searched: this factor either side of the rows' middle


@dataclass(frozen=True)
class FrontierPoint:
    """Hold the best split of `flops` into N* and D*, and its loss, each with its interval.

    `textbook` is the same law's optimum were every token to cost 6 N FLOPs; `feasible` the best of
    the sizes that can be built, where sizes were given. Where the nearest budgets tell the loss,
    `loss_of_form` is what the form would say, and `members` what each of them says.
    """

    flops: float
    params: float
    tokens: float
    loss: float
    intervals: dict[str, Interval]
    interior: bool
    extrapolation_factor: float
    textbook: dict[str, float]
    feasible: dict[str, float] | None = None
    loss_of_form: float | None = None
    members: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the point for JSON, without what nobody asked of it."""
        optional = ("loss_of_form", "members")
        return {k: v for k, v in asdict(self).items() if v is not None or k not in optional}


class Placed(Protocol):
    """What knows a law's form, and the rows around whose middle sizes are searched."""

    @property
    def form(self) -> Form:
        """Return the form of the law."""

    @property
    def columns(self) -> Columns:
        """Return the rows' params and tokens."""


def six_n(params: Array) -> Array:
    """Return the textbook 6 N FLOPs per token (Kaplan et al. 2020)."""
    return 6.0 * np.asarray(params, dtype=float)


def compute_optimal(
    law: Placed, theta: Array, flops: float, flops_per_token: FlopsPerToken, span: float = SPAN
) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Minimise L_hat(N, D) along the exact line D flops_per_token(N) = flops, for each theta.

    Returns N*, D*, L* and whether the minimum is interior, each `(K,)`. Sizes are searched over a
    factor `span` either side of the rows' middle, moved along with sqrt(flops): a grid of log N,
    then four zooms of eight and a parabola (N* to about 1e-6). Textbook check: with 6 N FLOPs per
    token N* = (alpha A / beta B)^(1/(alpha+beta)) (flops/6)^(beta/(alpha+beta)).
    """
    theta = np.atleast_2d(theta)
    params_ref, tokens_ref = (np.exp(np.mean(np.log(law.columns[c]))) for c in ("params", "tokens"))
    flops_ref = tokens_ref * flops_per_token(np.array([params_ref]))[0]
    middle = np.log(params_ref) + 0.5 * np.log(flops / flops_ref)
    grid = np.linspace(middle - np.log(span), middle + np.log(span), 257)

    def along(log_n: Array) -> Array:
        size = np.exp(log_n)
        tokens = flops / flops_per_token(size)
        columns = {"params": size, "tokens": tokens, "unique_tokens": tokens}
        return np.asarray(law.form.log_loss_each(theta, columns))

    step = np.full(len(theta), grid[1] - grid[0])
    index = np.argmin(along(grid[None]), axis=1)  # the columns are worked out once for all theta
    interior = (index > 0) & (index < grid.size - 1)
    centre = grid[np.clip(index, 1, grid.size - 2)]
    for _ in range(4):
        log_n = centre[:, None] + step[:, None] * np.linspace(-1, 1, 17)
        step = step / 8
        index = np.argmin(along(log_n), axis=1)
        centre = log_n[np.arange(len(theta)), index]
    three = along(centre[:, None] + step[:, None] * np.array([-1, 0, 1]))
    bend = three[:, 0] - 2 * three[:, 1] + three[:, 2]
    lean = 0.5 * (three[:, 0] - three[:, 2])
    move = np.divide(lean, bend, out=np.zeros_like(lean), where=bend > 0)
    log_best = centre + step * np.clip(move, -1, 1)
    best = np.exp(log_best)
    loss = np.exp(along(log_best[:, None])[:, 0])
    return best, flops / flops_per_token(best), loss, interior


def frontier_draws(
    fit: Fit, boot: Bootstrap, flops: float, flops_per_token: FlopsPerToken
) -> Draws:
    """Return N*, D*, L* at `flops` for each resample; NaN where no minimum is interior."""
    params, tokens, loss, interior = compute_optimal(fit, boot.theta, flops, flops_per_token)
    return np.where(interior, params, np.nan), np.where(interior, tokens, np.nan), loss


def frontier_point(
    fit: Fit,
    boot: Bootstrap,
    flops: float,
    cost: FlopsPerToken,
    largest: float,
    sizes: Sequence[float] = (),
    draws: Draws | None = None,
) -> FrontierPoint:
    """Return N*, D*, L* at `flops` along the exact iso-FLOP line, with bootstrap intervals.

    `sizes` are the parameter counts that can be built (divisible heads, tensor-parallel layouts):
    the recommendation is the one of least predicted loss. `draws` are those of `frontier_draws`,
    where they are known.
    """
    params, tokens, loss, interior = compute_optimal(fit, fit.theta, flops, cost)
    draws = frontier_draws(fit, boot, flops, cost) if draws is None else draws
    names = ("params", "tokens", "loss")
    book = compute_optimal(fit, fit.theta, flops, six_n)
    return FrontierPoint(
        flops=flops,
        params=float(params[0]),
        tokens=float(tokens[0]),
        loss=float(loss[0]),
        intervals={
            n: percentile_interval(d, boot.level) for n, d in zip(names, draws, strict=True)
        },
        interior=bool(interior[0]),
        extrapolation_factor=flops / largest,
        textbook={n: float(v[0]) for n, v in zip(names, book[:3], strict=True)},
        feasible=_feasible(fit, flops, cost, sizes, float(loss[0])) if len(sizes) else None,
    )


def _feasible(
    fit: Fit, flops: float, cost: FlopsPerToken, sizes: Sequence[float], least: float
) -> dict[str, float]:
    """Return the buildable size of least predicted loss, and what the rounding costs."""
    params = np.array(sizes, dtype=float)
    tokens = flops / cost(params)
    loss = fit.predict({"params": params, "tokens": tokens, "unique_tokens": tokens})
    best = int(np.argmin(loss))
    return {
        "params": float(params[best]), "tokens": float(tokens[best]), "loss": float(loss[best]),
        "loss_cost": float(loss[best] / least - 1),
    }  # fmt: skip


def loss_points(
    fit: Fit, boot: Bootstrap, targets: Sequence[float], largest: float
) -> list[dict[str, Any]]:
    """Return the predicted target of a form of compute alone at each of `targets` FLOPs."""
    columns: Columns = {"flops": np.array(targets, dtype=float)}
    with np.errstate(over="ignore"):
        draws = np.exp(fit.form.bind(columns).log_prediction(boot.theta))
    values = fit.predict(columns)
    return [
        {
            "flops": float(c), "params": None, "tokens": None, "loss": float(v),
            "intervals": {"loss": percentile_interval(draws[:, i], boot.level)},
            "interior": None, "extrapolation_factor": float(c) / largest,
        }
        for i, (c, v) in enumerate(zip(targets, values, strict=True))
    ]  # fmt: skip
