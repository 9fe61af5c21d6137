"""Chinchilla's form for models of which a token sees only a part."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sweeps.fit.forms.base import EXPONENT_LIMIT, Array, Columns, Parameter
from sweeps.fit.forms.exponent_grid import exponent_grid
from sweeps.fit.forms.powers import SumOfPowers, Term

FALLING = ("alpha", "beta")  # the exponents that are not negative


@dataclass(frozen=True)
class Experts(SumOfPowers):
    """L = E + A s^-delta / N^(alpha + gamma ln s) + B s^-omega / D^(beta + zeta ln s).

    N are the active parameters and s = total / active, which is 1 of a dense model: there it is
    Chinchilla's form. (Ludziejewski et al. 2025, whose s is a transformed number of experts and
    whose exponents have the other sign.) A logarithm of each term is linear in the exponents, so
    it is a sum of powers of N, D, s, N^(ln s) and D^(ln s).
    """

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the columns of the table."""
        return ("params_active", "params_total", "tokens")

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Return the coefficients: only alpha and beta are never negative."""
        return tuple(
            replace(p, low=-EXPONENT_LIMIT) if p.kind == "exponent" and p.name not in FALLING else p
            for p in super().parameters
        )

    def placed(
        self, columns: Columns, target: Array, fixed: Mapping[str, float] | None = None
    ) -> "Experts":
        """Place the reference at the geometric mean of the rows; at 1 where some are fixed."""
        scale = float(np.min(target))
        if fixed:
            return replace(self, references=(), scale=scale)
        means = {c: float(np.exp(log.mean())) for c, log in _logs(columns).items()}
        return replace(self, references=tuple(means.items()), scale=scale)

    def log_columns(self, columns: Columns) -> dict[str, Array]:
        """Return the log of each power's base relative to the reference."""
        reference = dict(self.references)
        return {c: log - np.log(reference.get(c, 1.0)) for c, log in _logs(columns).items()}

    def shape_grid(self, num_each: int) -> Array:
        """Return the exponents of dense models, each term helped, hurt or untouched by s."""
        one, by_s, none = np.geomspace(0.05, 1.6, 4), (-0.3, 0.0, 0.3), (0.0,)
        return exponent_grid(one, by_s, none, one, by_s, none)


def _logs(columns: Columns) -> dict[str, Array]:
    """Return the logs of N, s, N^(ln s), D and D^(ln s)."""
    log_n, log_d = np.log(columns["params_active"]), np.log(columns["tokens"])
    log_s = np.log(columns["params_total"]) - log_n
    return {
        "params_active": log_n, "s": log_s, "params_by_s": log_s * log_n, "tokens": log_d,
        "tokens_by_s": log_s * log_d,
    }  # fmt: skip


EXPERTS = Experts(
    "experts",
    "L = E + A s^-delta / params_active^(alpha + gamma ln s) + B s^-omega / tokens^(beta + zeta "
    "ln s), s = params_total / params_active (after Ludziejewski et al. 2025)",
    (
        Term("E"),
        Term("A", (("params_active", "alpha"), ("s", "delta"), ("params_by_s", "gamma"))),
        Term("B", (("tokens", "beta"), ("s", "omega"), ("tokens_by_s", "zeta"))),
    ),
)
