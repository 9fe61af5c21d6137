"""A study's registered y-axis: the weighting of noise levels that its loss is, chosen in advance.

Whoever has seen the largest budget's runs can find a weighting under which a law holds. So the axis
stands in ``study.yaml`` before they begin; others are looked at beside it, with
``kinescale fit y_axis.weighting=...`` and the table of weightings on the study's page.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

from annotated_types import Len
from typing_extensions import Doc

from sweeps.fit.rows.y_axis import (
    PLAIN,
    STRATUM,
    TRAINED,
    UNIFORM,
    YAxis,
    YWeighting,
    axis_of,
    loss_on,
    strata_in,
    weights,
)
from sweeps.study.archive import losses_by_time
from sweeps.study.config import Study
from trainer.config import Share

_BEGUN = ("metrics.jsonl", "result.json")
_WHOLE = [0.0, 1.0]


@dataclass
class YAxisConfig:
    """What the loss of a study weighs over noise levels."""

    weighting: Annotated[
        YWeighting,
        Doc("All times alike, as often as they were trained, or t / (1 - t) as the likelihood."),
    ] = YWeighting.uniform
    window: Annotated[
        list[Share], Len(2, 2), Doc("Times that count: [0.25, 0.75] is the middle alone.")
    ] = field(default_factory=lambda: [0.0, 1.0])

    @property
    def axis(self) -> YAxis:
        """The axis; raises ValueError on one that cannot be."""
        low, high = self.window
        return YAxis(self.weighting, (low, high))


@runtime_checkable
class Registered(Protocol):
    """A study that registers an axis.

    tabulates_strata: whether its runs.csv keeps the losses by stratum, from which others follow.
    largest_budget: its runs see the axis frozen when they begin; None is the largest of its plan.
    """

    tabulates_strata: ClassVar[bool]
    y_axis: YAxisConfig

    @property
    def largest_budget(self) -> float | None: ...


def refuse_late(study: Study, frozen: dict[str, Any]) -> None:
    """Raise ValueError where a study's axis changes after its largest budget began to run.

    frozen: its study.yaml as it lies in the folder.
    """
    if not isinstance(study, Registered):
        return
    was, now = axis_of(frozen.get("y_axis")), study.y_axis.axis
    if was == now:
        return
    budget, begun = _begun(study.folder, study.largest_budget)
    if begun:
        look = f", and look at others with: kinescale fit table={study.folder / 'runs.csv'} "
        look += "y_axis.weighting=..."
        raise ValueError(
            f"y_axis={now}: {begun} of the runs at the largest budget, {budget:g} "
            f"FLOPs, have begun, and an axis is registered before they do. Keep {was}"
            f"{look if study.tabulates_strata else '.'}"
        )


def _begun(folder: Path, budget: float | None) -> tuple[float, int]:
    """Return a budget, None standing for the largest planned, and how many of its runs began."""
    plan = folder / "plan.json"
    specs = json.loads(plan.read_text(encoding="utf-8")) if plan.is_file() else []
    if budget is None:
        budget = max((spec["budget"] for spec in specs), default=0.0)
    runs = [folder / "runs" / str(spec["folder"]) for spec in specs if spec["budget"] == budget]
    return budget, sum(any((run / name).exists() for name in _BEGUN) for run in runs)


def on_axis(result: dict[str, Any], axis: YAxis = PLAIN) -> dict[str, Any]:
    """Return a result with its losses by stratum, and with loss and noise on an axis.

    A result without a loss, of a run that failed, is returned as it is. Raises ValueError where the
    result does not keep what the axis weighs.
    """
    if not isinstance(result.get("loss"), int | float) or not math.isfinite(result["loss"]):
        return result
    if result.get("t_range", _WHOLE) != _WHOLE:
        if not axis.plain:
            raise ValueError(
                f"y_axis={axis}: needs runs of all times, and {result.get('name')} has "
                f"objective.t_range={result['t_range']}. Use y_axis.weighting=uniform."
            )
        return result
    kept = result | losses_by_time(result)
    if axis.plain:
        return kept
    name = str(result.get("name", "the result"))
    kept |= {"loss": loss_on(axis, kept, name), UNIFORM: result["loss"]}
    return kept | {"loss_noise": _noise(kept, axis)}


def columns_in(result: dict[str, Any]) -> dict[str, float]:
    """Return the entries of a result on an axis that make a law on another one."""
    names = [UNIFORM, TRAINED, *(f"{STRATUM}{i + 1}" for i in range(len(strata_in(result))))]
    return {name: result[name] for name in names if name in result}


def _noise(result: dict[str, Any], axis: YAxis) -> float | None:
    """Return the standard error of a loss on an axis over noise draws, None where it is unknown."""
    first: dict[str, Any] = next(iter((result.get("validation") or {}).values()), {})
    kept: dict[str, Any] = first.get("strata") or {}
    if not kept or not all(kept["values"]):
        return None
    shares = kept["trained"]
    if axis.weighting is not YWeighting.trained:
        shares = weights(axis, len(kept["values"]))
    terms = zip(shares, kept["variance"], kept["values"], strict=True)
    return math.sqrt(math.fsum(w * w * variance / v**2 for w, variance, v in terms))
