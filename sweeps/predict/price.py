"""What a target loss costs by a fitted law, today and in later years; torch-free.

With C = k N D the least loss of a budget, L*(C) = min over N of L_hat(N, C / (k N)), falls with C
under every form of parameters and tokens, so that a target's cost is found by bisection.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, inf, log
from statistics import median
from typing import Annotated

from annotated_types import Ge, Gt, Le, MinLen
from typing_extensions import Doc

from launch.planner.machine import MachineConfig
from models.config import ModelConfig
from models.count import count_params
from sweeps.fit.saved import SavedLaw

STEPS = (1.0, 10.0, 100.0)  # targets, in times the largest budget, where none is given
DECADE, REACH = log(10), log(1e30)  # of compute: where a loss is looked for, from the runs on

Positive = Annotated[float, Gt(0)]
Change = Annotated[float, Gt(-1), Le(10)]  # a year's, as a share of the year before


@dataclass
class PriceConfig:
    """What is assumed of today and of later years; every value can be set."""

    law: Annotated[str, Doc("The law.json of a study, of any form of parameters and tokens.")] = ""
    losses: Annotated[
        list[Positive],
        Doc(
            "Targets; empty takes those that the law gives at 1, 10 and 100 times the "
            "largest budget it was fitted to."
        ),
    ] = field(default_factory=list)
    machines: Annotated[list[str], MinLen(1), Doc("Names of launch/conf/machine.")] = field(
        default_factory=lambda: ["h100", "h200", "b200", "a100"]
    )
    flops_per_param_token: Annotated[
        float,
        Ge(0),
        Doc("FLOPs a parameter and token; 0 takes the law's own ratio on its frontier."),
    ] = 0.0
    width_per_block: Annotated[
        Positive,
        Doc("Width of a model for each of its blocks, which decides how fast a device is on it."),
    ] = 32.0
    pack_tokens: Annotated[int, Ge(1), Doc("Rows of a micro-batch.")] = 16384
    clip_tokens: Annotated[int, Ge(1), Doc("Tokens of a clip in it.")] = 1024
    parallel_share: Annotated[float, Gt(0), Le(1), Doc("What communication and bubbles leave.")] = (
        0.85
    )
    mfu: Annotated[
        float, Ge(0), Le(1), Doc("Share of the peak in place of these four; 0 estimates it.")
    ] = 0.0
    years: Annotated[int, Ge(0), Le(30), Doc("How far to look.")] = 5
    price_per_year: Annotated[Change, Doc("Change of the price of a device-hour.")] = -0.15
    efficiency_per_year: Annotated[
        Change, Doc("Change of the FLOP/s that a device-hour gives, hardware and software.")
    ] = 0.25
    algorithm_per_year: Annotated[
        Change, Doc("Change of the loss-equivalent worth of a FLOP by better methods.")
    ] = 0.30
    out: Annotated[str, Doc("An HTML page to write; empty for none.")] = ""

    def check(self) -> None:
        """Raise ValueError on values that cannot be."""
        if not self.law:
            raise ValueError("law=: is required. Use law=docs/studies/demo/law.json.")


@dataclass(frozen=True)
class Frontier:
    """The cheapest way to a loss by a law, where training costs k N D FLOPs.

    flops_per_param_token: k. largest_flops: the largest budget that the law was fitted to.
    loss_interval: ends of the interval of the loss furthest out, over the loss.
    """

    law: SavedLaw
    flops_per_param_token: float
    largest_flops: float
    loss_interval: tuple[float, float]

    def at(self, flops: float) -> tuple[float, float, float]:
        """Return (params, tokens, loss) of the least loss of a budget."""
        return self.law.optimum(flops, lambda params: self.flops_per_param_token * params)

    def optimum(self, loss: float) -> tuple[float, float, float]:
        """Return (params, tokens, flops) that reach a loss with the least compute.

        Raises:
            ValueError: by the law no compute does, or none within `REACH` of its runs.
        """
        if loss <= self.law.floor:
            raise ValueError(
                f"losses={loss:g}: must be above the law's floor E={self.law.floor:g}. Use a "
                "larger one."
            )
        flops = self.largest_flops * exp(self._log_factor(loss))
        params, tokens, _ = self.at(flops)
        return params, tokens, flops

    def _log_factor(self, loss: float) -> float:
        """Return log of the compute that reaches a loss, over the largest budget, by bisection."""

        def too_high(log_factor: float) -> bool:
            return self.at(self.largest_flops * exp(log_factor))[2] > loss

        step = DECADE if too_high(0.0) else -DECADE
        near, far = 0.0, step
        while too_high(far) == (step > 0):
            near, far = far, far + step
            if abs(far) > REACH:
                raise ValueError(
                    f"losses={loss:g}: the law reaches it at no compute within a factor "
                    f"{exp(REACH):.0e} of its runs. Use one closer to theirs."
                )
        while abs(far - near) > 1e-12:
            middle = (near + far) / 2
            near, far = (middle, far) if too_high(middle) == (step > 0) else (near, middle)
        return (near + far) / 2


def frontier_of(law: SavedLaw, flops_per_param_token: float = 0.0) -> Frontier:
    """Return the frontier of a law; without k it takes the law's own ratio on its frontier."""
    last = law.frontier[-1]
    low, high = last.loss_interval
    return Frontier(
        law=law,
        flops_per_param_token=flops_per_param_token
        or median(p.flops / (p.params * p.tokens) for p in law.frontier),
        largest_flops=max(law.budgets, default=law.largest_flops),
        loss_interval=(low / last.loss, high / last.loss),
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


def costs(
    frontier: Frontier, machines: Sequence[MachineConfig], settings: PriceConfig
) -> list[Cost]:
    """Return the cost of every target on every machine.

    Raises:
        ValueError: a target cannot be reached by the law.
    """
    targets = settings.losses or [frontier.at(k * frontier.largest_flops)[2] for k in STEPS]
    return [_cost(frontier, loss, machine, settings) for loss in targets for machine in machines]


def _cost(frontier: Frontier, loss: float, machine: MachineConfig, settings: PriceConfig) -> Cost:
    params, tokens, flops = frontier.optimum(loss)
    rate = _rate(machine, params, settings)

    def money(target: float) -> float:
        if target <= frontier.law.floor:
            return inf
        return machine.money(frontier.optimum(target)[2] / rate / 3600)

    # Where the law is too low by a factor, the true cost is that of a lower target on its curve.
    low, high = (money(loss / factor) for factor in frontier.loss_interval)
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
        beyond=flops / frontier.largest_flops,
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
