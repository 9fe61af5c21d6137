"""The y-axis of a law: which noise levels its loss weighs, computed from losses by stratum of time.

A table keeps the loss of each of S equal parts of t (0 is noise, 1 data) as ``loss_t1`` to
``loss_tS``, the plain mean as ``loss_uniform`` (or as ``loss``, where that is it), and the mean
over the training times as ``loss_trained``. A y-axis is the mean under a weighting of t:

    loss = sum_s w_s loss_ts,    w_s = integral of w over the stratum, inside the window, sum 1
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

STRATUM, UNIFORM, TRAINED = "loss_t", "loss_uniform", "loss_trained"
ELBO_STRATA = 8  # at least: its weight rises by three within the last quarter but one
ELBO_END = 0.99  # t / (1 - t) has no integral up to 1


class YWeighting(StrEnum):
    """How much a squared velocity error weighs at its time in the loss of a law.

    uniform: the same at all times. trained: as often as the time was trained. elbo: t / (1 - t),
    which the likelihood weighs it by (Kingma and Gao 2023), up to t = 0.99.
    """

    uniform = "uniform"
    trained = "trained"
    elbo = "elbo"


@dataclass(frozen=True)
class YAxis:
    """A weighting of times, and the window of times that count.

    The middle is the window (0.25, 0.75) of the uniform weighting, a single stratum a narrow one.
    """

    weighting: YWeighting = YWeighting.uniform
    window: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.window
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"y_axis.window={list(self.window)}: must rise within [0, 1]. Use [0.25, 0.75]."
            )
        if self.weighting is YWeighting.trained and self.window != (0.0, 1.0):
            raise ValueError(
                f"y_axis.window={list(self.window)}: y_axis.weighting=trained is of all times. "
                "Leave the window out."
            )

    @property
    def plain(self) -> bool:
        """Whether it is the mean over all times, as every run's ``loss``."""
        return self == PLAIN

    @property
    def values(self) -> dict[str, Any]:
        """Its keys as JSON has them."""
        return {"weighting": self.weighting.value, "window": list(self.window)}

    def __str__(self) -> str:
        low, high = self.window
        inside = "" if (low, high) == (0, 1) else f", t from {low:g} to {high:g}"
        return f"{self.weighting.value}{inside}"


PLAIN = YAxis()
MIDDLE = YAxis(window=(0.25, 0.75))


def axis_of(values: Mapping[str, Any] | None) -> YAxis:
    """Return the axis that a mapping of its keys states, the plain one for none.

    Raises:
        ValueError: a key or a value is none.
    """
    given = dict(values or {})
    if unknown := set(given) - {"weighting", "window"}:
        raise ValueError(
            f"y_axis.{min(unknown)}: unknown key. Known are y_axis.weighting and y_axis.window."
        )
    name = str(given.get("weighting", YWeighting.uniform.value))
    if name not in list(YWeighting):
        raise ValueError(f"y_axis.weighting={name}: must be one of {', '.join(YWeighting)}.")
    window = given.get("window", [0.0, 1.0])
    if isinstance(window, str):
        window = window.strip("[] ").split(",")
    try:
        low, high = map(float, window)
    except (TypeError, ValueError):
        raise ValueError(f"y_axis.window={window}: must be two numbers, as [0.25,0.75].") from None
    return YAxis(YWeighting(name), (low, high))


def weights(axis: YAxis, strata: int) -> list[float]:
    """Return what each of so many strata weighs; they sum to 1.

    Raises:
        ValueError: the strata are too few, or do not end where the window does.
    """
    ends = [end * strata for end in axis.window]
    if any(abs(end - round(end)) > 1e-6 for end in ends):
        raise ValueError(
            f"y_axis.window={list(axis.window)}: needs strata of t that end there, and these "
            f"results keep {strata}, whose ends are multiples of {1 / strata:g}. Use such ends."
        )
    if axis.weighting is YWeighting.elbo and strata < ELBO_STRATA:
        raise ValueError(
            f"y_axis.weighting=elbo: needs at least {ELBO_STRATA} strata of t, and these results "
            f"keep {strata}. Use uniform, or train the runs anew."
        )
    first, last = (round(end) for end in ends)
    found = [
        _mass(axis.weighting, s / strata, (s + 1) / strata) if first <= s < last else 0.0
        for s in range(strata)
    ]
    return [mass / sum(found) for mass in found]


def loss_on(axis: YAxis, row: Mapping[str, Any], place: str = "the table") -> float:
    """Return a row's loss on an axis; numbers may be text.

    Raises:
        ValueError: the row does not keep what the axis weighs.
    """
    if axis.plain:
        return float(row.get(UNIFORM) or row["loss"])
    if axis.weighting is YWeighting.trained:
        if not row.get(TRAINED):
            raise ValueError(
                f"y_axis.weighting=trained: {place} has no {TRAINED}, as results from before "
                "2026-12 do not say which times were trained. Use uniform, or train the runs anew."
            )
        return float(row[TRAINED])
    losses = strata_in(row)
    if not losses:
        raise ValueError(
            f"y_axis={axis}: {place} keeps no loss by stratum of t ({STRATUM}1 and so on). Use "
            "y_axis.weighting=uniform, or train the runs anew."
        )
    pairs = zip(weights(axis, len(losses)), losses, strict=True)
    return math.fsum(weight * loss for weight, loss in pairs if weight)


def strata_in(row: Mapping[str, Any]) -> list[float]:
    """Return a row's losses by stratum, from noise to data; none where it keeps none."""
    found: list[float] = []
    while row.get(f"{STRATUM}{len(found) + 1}") not in (None, ""):
        found.append(float(row[f"{STRATUM}{len(found) + 1}"]))
    return found


def _mass(weighting: YWeighting, low: float, high: float) -> float:
    """Return the integral of a weighting over a stratum."""
    if weighting is YWeighting.uniform:
        return high - low
    ends = [min(end, ELBO_END) for end in (low, high)]
    below, above = (-math.log1p(-end) - end for end in ends)
    return above - below
