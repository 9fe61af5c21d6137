"""Densities of times: how often training meets a noise level, and where a sampler looks.

Torch-free. A time t has the logit z = log(t / (1 - t)), and data of spread sigma have at t

    log-SNR = log(t^2 sigma^2 / (1 - t)^2) = 2 (z + log sigma)

so that a normal in one is a normal in the other. The same functions draw training times, space the
steps of the sampler and tell a report what was trained.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from statistics import NormalDist
from typing import Annotated, TypeVar, cast

from annotated_types import Gt
from typing_extensions import Doc

from models.config import Finite, Positive

STANDARD = NormalDist()
_FAR = 40.0  # logits beyond which a time is 0 or 1 in doubles
_HALVINGS = 50  # of [-_FAR, _FAR]: a logit to 1e-13
T = TypeVar("T")  # float or Tensor


class TimeKind(StrEnum):
    """Shape of one part of a density of times."""

    logit_normal = "logit_normal"
    uniform = "uniform"  # in t


class TimeScale(StrEnum):
    """What the mean and width of a logit-normal are of."""

    logit = "logit"  # of t, whatever the data
    log_snr = "log_snr"  # of the data, whose spread is objective.spread


@dataclass
class TimePart:
    """One part of a density of times; several are a mixture."""

    kind: Annotated[TimeKind, Doc("Logit-normal (Esser et al. 2024), or uniform in t.")] = (
        TimeKind.logit_normal
    )
    mean: Annotated[
        Finite, Doc("Mean of a logit-normal on its scale; larger is nearer to the data.")
    ] = 0.0
    width: Annotated[Positive, Doc("Standard deviation of a logit-normal on its scale.")] = 1.0
    scale: Annotated[
        TimeScale,
        Doc("Mean and width are of t's logit, or of the data's log-SNR, 2 (logit + log spread)."),
    ] = TimeScale.logit
    share: Annotated[
        float, Gt(0), Doc("Share of the draws, relative to the other parts' shares.")
    ] = 1.0


@dataclass(frozen=True)
class Normal:
    """A normal of the times' logits."""

    mean: float
    width: float


@dataclass(frozen=True)
class Density:
    """A density of times on [0, 1].

    parts: (share, normal of the logits), None for a part that is uniform in t; shares add up to 1.
    """

    parts: tuple[tuple[float, Normal | None], ...] = ((1.0, Normal(0.0, 1.0)),)

    @property
    def normal(self) -> Normal | None:
        """The normal that the logits follow, where one is all: then nothing is inverted."""
        return self.parts[0][1] if len(self.parts) == 1 else None

    def below(self, t: float) -> float:
        """Return the share of times below ``t``."""
        if t <= 0 or t >= 1:
            return float(t >= 1)
        return self._below(math.log(t) - math.log1p(-t))

    def quantile(self, share: float) -> float:
        """Return the time that a share of all times lies below: 0 at share 0 and 1 at 1."""
        if share <= 0 or share >= 1:
            return float(share >= 1)
        if (normal := self.normal) is not None:
            return _sigmoid(normal.mean + normal.width * STANDARD.inv_cdf(share))
        if self.parts[0][1] is None and len(self.parts) == 1:
            return share
        return _sigmoid(_inverted(self, share))

    def _below(self, logit: float) -> float:
        return sum(
            share
            * (STANDARD.cdf((logit - of.mean) / of.width) if of is not None else _sigmoid(logit))
            for share, of in self.parts
        )


PLAIN = Density()


@lru_cache(maxsize=4096)
def _inverted(density: Density, share: float) -> float:
    """Return the logit that a share of a mixture lies below, by bisection."""
    low, high = -_FAR, _FAR
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if density._below(middle) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def density_of(parts: Sequence[TimePart], spread: float) -> Density:
    """Return the density that a config's parts state; none is a logit-normal of 0 and 1.

    spread: standard deviation of the data's values, which parts on the scale of log-SNR need.
    """
    if not parts:
        return PLAIN
    total = sum(part.share for part in parts)
    return Density(tuple((part.share / total, _normal(part, spread)) for part in parts))


def _normal(part: TimePart, spread: float) -> Normal | None:
    if part.kind is TimeKind.uniform:
        return None
    if part.scale is TimeScale.logit:
        return Normal(part.mean, part.width)
    return Normal(part.mean / 2 - math.log(spread), part.width / 2)


def needs_spread(parts: Sequence[TimePart]) -> bool:
    """Say whether parts are stated against the data's spread."""
    return any(p.kind is TimeKind.logit_normal and p.scale is TimeScale.log_snr for p in parts)


def clip_shift(tokens: T, shift_tokens: float, most: float = 0.0) -> T:
    """Return how far the times of a clip move toward noise: s = max(1, sqrt(tokens / T_s)).

    Of floats or tensors. most: the largest s there is; 0 leaves it open.
    """
    longer = (tokens / shift_tokens) ** 0.5  # type: ignore[operator]
    highest = most or math.inf
    if isinstance(longer, float):
        return cast(T, min(max(longer, 1.0), highest))
    return cast(T, longer.clamp(1.0, highest))


def shifted(t: T, shift: T | float) -> T:
    """Move times toward noise: t' = t / (t + s (1 - t)) takes log s off their logits.

    Of floats or tensors (Esser et al. 2024, section 5.3.2 with t = 1 as data).
    """
    return cast(T, t / (t + shift * (1.0 - t)))  # type: ignore[operator]


def log_snr(t: float, spread: float) -> float:
    """Return the log-SNR of data of a spread at a time, infinite at its ends."""
    if t <= 0 or t >= 1:
        return math.copysign(math.inf, t - 0.5)
    return 2 * (math.log(t) - math.log1p(-t) + math.log(spread))


def root_mean_square(spread: Sequence[float]) -> float:
    """Return the spread of all values from that of each channel."""
    return math.sqrt(sum(s * s for s in spread) / len(spread))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
