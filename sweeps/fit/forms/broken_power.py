"""Power laws that change their slope."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sweeps.fit.forms.base import Array, Columns, Parameter
from sweeps.fit.forms.exponent_grid import exponent_grid
from sweeps.fit.forms.separable import Separable


@dataclass(frozen=True)
class BrokenPower(Separable):
    """y = E + b x^-c0 (1 + (x / d)^(1/f))^(-c1 f): two slopes, c0 and c0 + c1, that meet at d.

    Caballero et al. 2023 (broken neural scaling law) with one break; `f` is its width in ln x.
    """

    middle: float = 1.0
    ends: tuple[float, float] = (0.1, 10.0)
    name = "broken_power"
    equation = "y = E + b x^-c0 (1 + (x / d)^(1 / f))^(-c1 f) (Caballero et al. 2023)"
    columns = ("x",)
    signs = (1.0, 1.0)
    parameters = (
        Parameter("E", "floor"),
        Parameter("b", "amplitude"),
        Parameter("c0", "exponent", -3.0, 8.0),
        Parameter("c1", "exponent", -8.0, 8.0),
        Parameter("d", "scale", -60.0, 60.0),
        Parameter("f", "scale", np.log(0.01), np.log(10.0)),
    )

    def placed(
        self, columns: Columns, target: Array, fixed: Mapping[str, float] | None = None
    ) -> "BrokenPower":
        """Place the reference at the geometric mean of the rows (at 1 where some are fixed)."""
        logs = np.log(columns["x"])
        middle = 0.0 if fixed else float(logs.mean())
        ends = float(np.exp(logs.min() - middle)), float(np.exp(logs.max() - middle))
        return replace(self, middle=float(np.exp(middle)), ends=ends)

    def terms(self, shape: Array, rows: Columns) -> tuple[Array, Array]:
        """Return 1 and the broken power of x / x_ref, with slopes in (c0, c1, log d, log f)."""
        c0, c1, log_d, log_f = (column[:, None] for column in shape.T)
        x = np.log(rows["x"] / self.middle)
        f = np.exp(log_f)
        z = (x - log_d) / f
        softplus = np.logaddexp(0, z)
        gate = np.exp(z - softplus)
        power = np.exp(-c0 * x - c1 * f * softplus)
        slopes = np.zeros((len(shape), 2, 4, len(x)))
        slopes[:, 1, 0] = -x * power
        slopes[:, 1, 1] = -f * softplus * power
        slopes[:, 1, 2] = c1 * gate * power
        slopes[:, 1, 3] = c1 * f * (gate * z - softplus) * power
        return np.stack([np.ones_like(power), power], axis=1), slopes

    def shape_grid(self, num_each: int) -> Array:
        """Return slopes of either sign, and breaks inside the rows."""
        low, high = np.log(self.ends)
        breaks = low + (high - low) * np.linspace(0.1, 0.9, num_each + 1)
        slope = (-0.8, -0.3, -0.1, 0.1, 0.3, 0.8)
        return exponent_grid((0.03, 0.1, 0.3, 1.0), slope, breaks, np.log([0.1, 0.5, 2.0]))

    def coefficients(self, theta: Array) -> dict[str, Array]:
        """Return E, b, c0, c1, d and f in the table's own x."""
        e, b, c0, c1, d, f = np.moveaxis(theta, -1, 0)
        with np.errstate(over="ignore"):
            return {
                "E": np.exp(e), "b": np.exp(b + c0 * np.log(self.middle)), "c0": c0, "c1": c1,
                "d": np.exp(d) * self.middle, "f": np.exp(f),
            }  # fmt: skip

    def theta(self, **coefficients: float) -> Array:
        """Return `theta` `(P,)` for published coefficients."""
        v = coefficients
        b = np.log(v["b"]) - v["c0"] * np.log(self.middle)
        d = np.log(v["d"] / self.middle)
        return np.array([np.log(v["E"]), b, v["c0"], v["c1"], d, np.log(v["f"])])
