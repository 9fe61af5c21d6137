"""What a target loss costs by a fitted law, today and in later years; torch-free.

With L = E + A / N^alpha + B / D^beta and C = k N D, the cheapest way to L has, with r = L - E,

    A / N^alpha = r beta / (alpha + beta),    B / D^beta = r alpha / (alpha + beta)

which follows from dC = 0 along the curve of constant L (Hoffmann et al. 2022, section 3.3).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from statistics import median

from launch.planner.machine import MachineConfig
from models.config import ModelConfig
from models.dit.count import count_params


@dataclass
class PriceConfig:
    """What is assumed of today and of later years; every value can be set.

    law: the ``law.json`` of a study, of the form chinchilla. losses: targets; empty takes those
        that the law gives at 1, 10 and 100 times the largest budget it was fitted to.
    machines: names of ``launch/conf/machine``.
    flops_per_param_token: k; 0 takes the law's own ratio on its frontier.
    width_per_block: shape of a model, which decides how fast a device is on it.
    pack_tokens: rows of a micro-batch; clip_tokens: of a clip in it.
    parallel_share: what communication and bubbles leave.
    mfu: share of the peak in place of these four; 0 estimates it.
    years: how far to look. price_per_year: change of the price of a device-hour.
    efficiency_per_year: change of the FLOP/s that a device-hour gives, hardware and software.
    algorithm_per_year: change of the loss-equivalent worth of a FLOP by better methods.
    out: an HTML page to write; empty for none.
    """

    law: str = ""
    losses: list[float] = field(default_factory=list)
    machines: list[str] = field(default_factory=lambda: ["h100", "h200", "b200", "a100"])
    flops_per_param_token: float = 0.0
    width_per_block: float = 32.0
    pack_tokens: int = 16384
    clip_tokens: int = 1024
    parallel_share: float = 0.85
    mfu: float = 0.0
    years: int = 5
    price_per_year: float = -0.15
    efficiency_per_year: float = 0.25
    algorithm_per_year: float = 0.30
    out: str = ""

    def check(self) -> None:
        """Raise ValueError on values that cannot be."""
        if not self.law:
            raise ValueError("law=: is required. Use law=docs/studies/demo/law.json.")
        if not self.machines:
            raise ValueError("machines=[]: must name one. Use machines=[h100].")
        for key in ("price_per_year", "efficiency_per_year", "algorithm_per_year"):
            if getattr(self, key) <= -1:
                raise ValueError(f"{key}={getattr(self, key):g}: must be above -1. Use 0.2.")
        for key in ("width_per_block", "pack_tokens", "clip_tokens", "parallel_share"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key}={getattr(self, key):g}: must be positive. Use 1.")
        if not 0 <= self.mfu <= 1 or self.flops_per_param_token < 0:
            raise ValueError(
                f"mfu={self.mfu:g}: must be a share in [0, 1], and the FLOPs positive."
            )
        if not 0 <= self.years <= 30:
            raise ValueError(f"years={self.years}: must lie in 0..30. Use 5.")


@dataclass(frozen=True)
class Law:
    """A fitted law, the budgets of its frontier, and what it warns of."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    flops_per_param_token: float
    largest_flops: float
    loss_interval: tuple[float, float]
    warnings: tuple[str, ...]

    def optimum(self, loss: float) -> tuple[float, float, float]:
        """Return (params, tokens, flops) that reach a loss with the least compute."""
        rest = loss - self.E
        if rest <= 0:
            raise ValueError(
                f"losses={loss:g}: must be above the law's floor E={self.E:g}. Use a larger one."
            )
        both = self.alpha + self.beta
        params = (self.A * both / (rest * self.beta)) ** (1 / self.alpha)
        tokens = (self.B * both / (rest * self.alpha)) ** (1 / self.beta)
        return params, tokens, self.flops_per_param_token * params * tokens

    def loss_at(self, flops: float) -> float:
        """Return the least loss of a budget, by bisection of :meth:`optimum`."""
        low, high = 1e-9, 1e3 * (self.A + self.B)
        for _ in range(200):
            middle = sqrt(low * high)
            if self.optimum(self.E + middle)[2] > flops:
                low = middle
            else:
                high = middle
        return self.E + high


def read_law(path: Path, flops_per_param_token: float = 0.0) -> Law:
    """Read ``law.json``. Raises ValueError naming what is wrong."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"law={path}: cannot be read ({error}). Give a study's law.json."
        ) from None
    if found.get("form") != "chinchilla":
        raise ValueError(
            f"law={path}: has form={found.get('form')}. Use one of form=chinchilla "
            "(python -m sweeps.fit table=... form=chinchilla out=law.json)."
        )
    frontier = found["frontier"]
    if not frontier:
        raise ValueError(f"law={path}: has no frontier. Fit it to runs with FLOPs.")
    ratios = [row["flops"] / (row["params"] * row["tokens"]) for row in frontier]
    fitted = [row["budget"] for row in found.get("isoflop", [])] or [frontier[-1]["flops"]]
    last = frontier[-1]
    low, high = last.get("intervals", {}).get("loss", (last["loss"], last["loss"]))
    coefficients = {key: found["coefficients"][key] for key in ("E", "A", "alpha", "B", "beta")}
    return Law(
        **coefficients,
        flops_per_param_token=flops_per_param_token or median(ratios),
        largest_flops=max(fitted),
        loss_interval=(low / last["loss"], high / last["loss"]),
        warnings=tuple(found.get("warnings", ())),
    )


@dataclass(frozen=True)
class Cost:
    """What a target costs on one machine today. flops_per_second: of a device, communication and
    bubbles taken off. interval: money where the law's loss is at the ends of its interval."""

    loss: float
    machine: str
    params: float
    tokens: float
    flops: float
    flops_per_second: float
    device_hours: float
    kilowatt_hours: float
    money: float
    interval: tuple[float, float]
    currency: str
    beyond: float


def costs(law: Law, machines: Sequence[MachineConfig], settings: PriceConfig) -> list[Cost]:
    """Return the cost of every target on every machine."""
    steps = (1.0, 10.0, 100.0)
    targets = settings.losses or [law.loss_at(step * law.largest_flops) for step in steps]
    return [_cost(law, loss, machine, settings) for loss in targets for machine in machines]


def _cost(law: Law, loss: float, machine: MachineConfig, settings: PriceConfig) -> Cost:
    params, tokens, flops = law.optimum(loss)
    rate = _rate(machine, params, settings)

    def money(target: float) -> float:
        if target <= law.E:
            return float("inf")
        return machine.money(law.optimum(target)[2] / rate / 3600)

    # Where the law is too low by a factor, the true cost is that of a lower target on its curve.
    low, high = (money(loss / factor) for factor in law.loss_interval)
    hours = flops / rate / 3600
    return Cost(
        loss=loss,
        machine=machine.name,
        params=params,
        tokens=tokens,
        flops=flops,
        flops_per_second=rate,
        device_hours=hours,
        kilowatt_hours=machine.kilowatt_hours(hours),
        money=machine.money(hours),
        interval=(low, high),
        currency=machine.price.currency,
        beyond=flops / law.largest_flops,
    )


def _rate(machine: MachineConfig, params: float, settings: PriceConfig) -> float:
    """Return FLOP/s of a device on a model of so many parameters."""
    precision = "bf16" if machine.accelerator else "fp32"
    if settings.mfu:
        return settings.mfu * machine.peak(precision)
    model = shape_of(params, settings.width_per_block)
    rate = machine.flops_per_second(
        model, settings.pack_tokens, precision, segment_tokens=settings.clip_tokens
    )
    return settings.parallel_share * rate


def shape_of(params: float, width_per_block: float) -> ModelConfig:
    """Return a model of about so many parameters, as wide as ``width_per_block`` for each block."""
    best, head = ModelConfig(width=16, depth=1, head_dim=16), 16
    for step in range(1, 2049):
        width = head * step
        depth = max(1, round(width / width_per_block))
        model = ModelConfig(width=width, depth=depth, head_dim=head)
        if count_params(model).total > params:
            break
        best = model
    return best


def factor_of_year(settings: PriceConfig, year: int) -> float:
    """Return the cost of a target in a later year over today's."""
    yearly = (1 + settings.price_per_year) / (1 + settings.efficiency_per_year)
    return (yearly / (1 + settings.algorithm_per_year)) ** year
