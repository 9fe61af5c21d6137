"""How a law is fitted: every choice with its default, once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Hold the choices of a fit; None leaves a choice to the paper that published the form.

    flops: compute at which the frontier is wanted; empty takes the runs' budgets and one beyond.
    sizes: parameter counts that can be built, of which the frontier recommends the best.
    fixed: coefficients that keep the value given here.
    level: share of the draws that every interval holds.
    resamples: bootstrap refits, or redraws within the noise, that intervals rest on.
    seed: of those draws; the same seed gives the same intervals to the last bit.
    delta: width of the quadratic part of Huber's loss; inf is least squares.
    residual: log (of the target's logarithm) or linear (of the target itself).
    mean: minimise the mean over rows and not the sum, which has the same optimum.
    one_sided: give rows whose loss is above the law a ninth of the weight of those below it: where
        runs are undertuned their losses are upper bounds, and the law is of the best of them.
    noise: of a repeat in the loss's unit, for the minima; None takes the table's loss_noise.
    held_out: how many of the largest budgets the held-out test leaves out and predicts.
    within: only runs whose loss is at most this share above their budget's best are fitted.

    Raises ValueError for a value out of range.
    """

    flops: Sequence[float] = ()
    sizes: Sequence[float] = ()
    fixed: Mapping[str, float] = field(default_factory=dict)
    level: float = 0.9
    resamples: int = 1000
    seed: int = 0
    delta: float | None = None
    residual: str | None = None
    mean: bool = False
    one_sided: bool = False
    noise: float | None = None
    within: float | None = None
    held_out: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level={self.level}: must be between 0 and 1. Use 0.9 or 0.95.")
        if self.resamples < 1:
            raise ValueError(f"resamples={self.resamples}: must be at least 1. Use 1000.")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must not be negative. Use 0.")
        if self.delta is not None and not self.delta > 0:
            raise ValueError(
                f"delta={self.delta}: must be above 0. Use 1e-3, or inf for least squares."
            )
        if self.residual not in (None, "log", "linear"):
            raise ValueError(f"residual={self.residual}: is not known. Use log or linear.")
        if self.noise is not None and not (math.isfinite(self.noise) and self.noise >= 0):
            raise ValueError(f"noise={self.noise}: must be finite and not negative. Use 0.002.")
        if self.held_out < 1:
            raise ValueError(f"held_out={self.held_out}: must be at least 1. Use 1 or 2.")
        if self.within is not None and not 0 < self.within < math.inf:
            raise ValueError(f"within={self.within}: must be above 0. Use 0.02 for 2 %.")
        for key, values, example in (
            ("flops", self.flops, "[1e13,4e13]"),
            ("sizes", self.sizes, "[1e6,4e6]"),
        ):
            if wrong := [value for value in values if not (math.isfinite(value) and value > 0)]:
                raise ValueError(f"{key}={wrong}: must be finite and above 0. Use e.g. {example}.")
        if wrong_names := [name for name, value in self.fixed.items() if not math.isfinite(value)]:
            raise ValueError(f"fixed.{wrong_names[0]}=: must be finite. Use e.g. 0.35.")


DEFAULTS = FitOptions()
