"""Laws of whole loss curves: they predict the loss under another learning-rate schedule.

A table holds (curve, step, lr, loss) rows, the records of each curve in order. Both laws see the
schedule as the area under it and its changes:

    S_1(t) = sum of lr up to t,  and for each change k:  its drop lr_(k-1) - lr_k, the area S_k(t)
    since then and the steps since then.

Between two records lr is taken to change at their middle; a change by more than a tenth of the peak
is a jump, which happened at the record that first shows it. Before the first record lies a linear
warm-up from zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sweeps.fit.forms.base import Array, Columns, Parameter, Rows
from sweeps.fit.forms.separable import Separable

JUMP = 0.1  # of the peak learning rate
WARMUP_CHANGES = 16  # steps that stand for the linear warm-up


@dataclass(frozen=True)
class Schedule:
    """Hold each row's area under the schedule, and every (row, earlier change) pair, row by row."""

    area: Array  # (R,) S_1, warm-up included
    drop: Array  # (Q,) lr before minus lr after the change
    log_lr: Array  # (Q,) log lr after the change
    since: Array  # (Q,) area since the change
    steps: Array  # (Q,) steps since the change
    row: Rows  # (Q,) ascending

    def sum_rows(self, values: Array) -> Array:
        """Return the sums of pair values `(K, Q)` by row, `(K, R)`."""
        total = np.zeros((len(values), len(self.area)))
        if len(self.row):
            rows, first = np.unique(self.row, return_index=True)
            total[:, rows] = np.add.reduceat(values, first, axis=1)
        return total


def schedule_of(columns: Columns) -> Schedule:
    """Return the schedule of every row.

    Raises:
        ValueError: the rows of a curve are not in order of their steps.
    """
    area = np.zeros(len(columns["step"]))
    pairs: list[tuple[Array, ...]] = []
    for curve in np.unique(columns["curve"]):
        rows = np.flatnonzero(columns["curve"] == curve)
        step, lr = columns["step"][rows], columns["lr"][rows]
        if np.any(np.diff(step) <= 0):
            raise ValueError(
                "step=: must rise within each curve. Sort the table by curve and step, and drop "
                "repeated records."
            )
        before = np.concatenate([lr[:1], lr[:-1]])
        jumped = np.abs(lr - before) > JUMP * lr.max()
        previous = np.concatenate([step[:1], step[:-1]])
        when = np.where(jumped, step, (step + previous) / 2)
        grown = before * (when - previous) + lr * (step - when)
        area[rows] = 0.5 * step[0] * lr[0] + np.cumsum(grown)
        at_change = area[rows] - lr * (step - when)
        changes = np.flatnonzero(lr != before)
        rise = (np.arange(WARMUP_CHANGES) + 0.5) / WARMUP_CHANGES
        drop = np.concatenate([np.full(len(rise), -lr[0] / len(rise)), (before - lr)[changes]])
        after = np.concatenate([lr[0] * (rise + 0.5 / len(rise)), lr[changes]])
        when = np.concatenate([step[0] * rise, when[changes]])
        at_change = np.concatenate([0.5 * step[0] * lr[0] * rise**2, at_change[changes]])
        first = np.concatenate([np.zeros(len(rise), dtype=int), changes])
        later, k = np.nonzero(first[None, :] <= np.arange(len(rows))[:, None])
        pairs.append(
            (
                drop[k], np.log(after[k]), area[rows][later] - at_change[k],
                step[later] - when[k], rows[later].astype(float),
            )
        )  # fmt: skip
    drop, log_lr, since, steps, row = (np.concatenate(p) for p in zip(*pairs, strict=True))
    order = np.argsort(row, kind="stable")
    return Schedule(
        area, drop[order], log_lr[order], since[order], steps[order], row[order].astype(np.intp)
    )


def _shape_terms(schedule: Schedule, alpha: Array, gain: Array, num_shapes: int) -> tuple:
    """Return the terms (1, S_1^-alpha, gain) and room for their slopes, that in alpha filled."""
    log_area = np.log(schedule.area)
    power = np.exp(-alpha * log_area)
    slopes = np.zeros((len(alpha), 3, num_shapes, len(log_area)))
    slopes[:, 1, 0] = -log_area * power
    return np.stack([np.ones_like(power), power, gain], axis=1), slopes


@dataclass(frozen=True)
class Tissue(Separable):
    """L = L0 + A S_1^-alpha - C S_2 (Tissue et al. 2024).

        S_2(t) = sum_i sum_(k <= i) (lr_(k-1) - lr_k) lambda^(i-k)
               = sum_k drop_k (1 - lambda^n) / (1 - lambda),  n the steps since k.

    In `theta` lambda is log of the memory 1 / (1 - lambda), in steps.
    """

    length: float = 1e4  # steps of the longest curve
    name = "tissue"
    equation = "L = L0 + A S_1^-alpha - C S_2(lambda) (Tissue et al. 2024)"
    columns = ("curve", "step", "lr")
    signs = (1.0, 1.0, -1.0)
    parameters = (
        Parameter("L0", "floor"),
        Parameter("A", "amplitude"),
        Parameter("alpha", "exponent", 1e-3, 3.0),
        Parameter("C", "amplitude"),
        Parameter("lambda", "scale", np.log(2.0), np.log(1e7)),
    )

    def placed(
        self, columns: Columns, target: Array, fixed: Mapping[str, float] | None = None
    ) -> "Tissue":
        """Note the length of the curves, which sets the scale of the starts."""
        return replace(self, length=float(columns["step"].max()))

    def prepare(self, columns: Columns) -> Schedule:
        """Return the rows' schedules."""
        return schedule_of(columns)

    def terms(self, shape: Array, rows: Schedule) -> tuple[Array, Array]:
        """Return 1, S_1^-alpha and S_2, with slopes in (alpha, log memory)."""
        alpha, log_memory = shape[:, :1], shape[:, 1:]
        memory = np.exp(log_memory)
        rate = np.log1p(-1 / memory)
        left = np.exp(rate * rows.steps)
        gain = rows.sum_rows(rows.drop * memory * (1 - left))
        values, slopes = _shape_terms(rows, alpha, gain, 2)
        faded = memory * (1 - left) - rows.steps * left / (1 - 1 / memory)
        slopes[:, 2, 1] = rows.sum_rows(rows.drop * faded)
        return values, slopes

    def shape_grid(self, num_each: int) -> Array:
        """Return exponents, and memories from 1/300 of the longest curve to all of it."""
        memory = np.log(self.length * np.geomspace(1 / 300, 1, num_each + 1))
        return np.array([(a, m) for a in (0.1, 0.3, 0.6, 1.0) for m in memory])

    def coefficients(self, theta: Array) -> dict[str, Array]:
        """Return L0, A, alpha, C and lambda."""
        found = super().coefficients(theta)
        return found | {"lambda": 1 - 1 / found["lambda"]}

    def theta(self, **coefficients: float) -> Array:
        """Return `theta` `(P,)` for published coefficients."""
        return super().theta(**(coefficients | {"lambda": 1 / (1 - coefficients["lambda"])}))


@dataclass(frozen=True)
class MultiPower(Separable):
    """L = L0 + A S_1^-alpha - B sum_k drop_k G(lr_k^-gamma S_k) (Luo et al. 2025).

    G(x) = 1 - (1 + C x)^-beta is the share of a drop's gain that has arrived.
    """

    reach: float = 1.0  # area under the longest curve
    peak: float = 1.0  # largest learning rate
    name = "multi_power"
    reduced: str | None = "multi_power_tied"
    max_starts = 6
    equation = "L = L0 + A S_1^-alpha - B sum drop G(lr^-gamma S), G(x) = 1 - (1 + C x)^-beta"
    columns = ("curve", "step", "lr")
    signs = (1.0, 1.0, -1.0)
    parameters = (
        Parameter("L0", "floor"),
        Parameter("A", "amplitude"),
        Parameter("alpha", "exponent", 1e-3, 3.0),
        Parameter("B", "amplitude"),
        Parameter("C", "scale", np.log(1e-8), np.log(1e8)),
        Parameter("beta", "exponent", 1e-3, 5.0),
        Parameter("gamma", "exponent", 0.0, 1.0),
    )

    def placed(
        self, columns: Columns, target: Array, fixed: Mapping[str, float] | None = None
    ) -> "MultiPower":
        """Note the area and the peak, which set the scale of the starts."""
        reach = float(schedule_of(columns).area.max())
        return replace(self, reach=reach, peak=float(columns["lr"].max()))

    def prepare(self, columns: Columns) -> Schedule:
        """Return the rows' schedules."""
        return schedule_of(columns)

    def terms(self, shape: Array, rows: Schedule) -> tuple[Array, Array]:
        """Return 1, S_1^-alpha and the gain, with slopes in (alpha, log C, beta, gamma)."""
        alpha, log_c, beta, gamma = (column[:, None] for column in shape.T)
        u = np.exp(log_c - gamma * rows.log_lr) * rows.since
        log_w = np.log1p(u)
        left = np.exp(-beta * log_w)
        values, slopes = _shape_terms(rows, alpha, rows.sum_rows(rows.drop * (1 - left)), 4)
        steep = rows.drop * beta * left * u / (1 + u)
        slopes[:, 2, 1] = rows.sum_rows(steep)
        slopes[:, 2, 2] = rows.sum_rows(rows.drop * left * log_w)
        slopes[:, 2, 3] = rows.sum_rows(-steep * rows.log_lr)
        return values, slopes

    def shape_grid(self, num_each: int) -> Array:
        """Return exponents, and C at which C lr^-gamma S is 1 to 100 for the whole curve."""
        found = []
        for alpha in (0.2, 0.5, 0.9):
            for gamma in (0.2, 0.5, 0.9):
                unit = self.peak**-gamma * self.reach
                for size in (1.0, 10.0, 100.0):
                    found += [(alpha, np.log(size / unit), b, gamma) for b in (0.3, 0.6, 1.2)]
        return np.array(found)


@dataclass(frozen=True)
class MultiPowerTied(MultiPower):
    """The multi-power law with beta = gamma, for curves that do not tell them apart."""

    name = "multi_power_tied"
    reduced: str | None = None
    equation = MultiPower.equation + " with beta = gamma"
    parameters = MultiPower.parameters[:5] + MultiPower.parameters[6:]  # type: ignore[assignment]

    def terms(self, shape: Array, rows: Schedule) -> tuple[Array, Array]:
        """Return the terms of `MultiPower`, with slopes in (alpha, log C, gamma)."""
        values, slopes = super().terms(shape[:, [0, 1, 2, 2]], rows)
        slopes[:, :, 2] += slopes[:, :, 3]
        return values, slopes[:, :, :3]

    def shape_grid(self, num_each: int) -> Array:
        """Return the grid of `MultiPower` without beta."""
        return np.unique(super().shape_grid(num_each)[:, [0, 1, 3]], axis=0)


@dataclass(frozen=True)
class AnyCurve(MultiPowerTied):
    """Whichever law of curves best predicts training schedules that it has not seen."""

    name = "curves"
    choices = ("multi_power_tied", "tissue", "multi_power")
    equation = (
        "multi_power_tied, tissue or multi_power: that of least error on curves left out in turn"
    )
