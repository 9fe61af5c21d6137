"""Every arm on every measure: mean, spread over seeds, paired difference, and that in words."""

import math
from collections.abc import Sequence
from typing import Any

from sweeps.kinds.arms.compare import compare, noise_floor, spread_over_seeds
from sweeps.kinds.arms.table import Value, measures_of, select


def summarise(
    values: Sequence[Value], arms: Sequence[str], reference: str, level: float
) -> list[dict[str, Any]]:
    """Return a row (``SUMMARY_COLUMNS``) for each measure and arm; an arm without runs has nans."""
    rows = []
    for measure in measures_of(values):
        found = {arm: select(values, measure, arm) for arm in arms}
        spreads = {arm: spread_over_seeds(members) for arm, members in found.items()}
        floor = noise_floor([(deviation, n) for _, deviation, n in spreads.values()])
        for arm in arms:
            mean, deviation, seeds = spreads[arm]
            row: dict[str, Any] = {
                "measure": measure.name,
                "group": measure.group,
                "unit": measure.unit,
                "better": measure.better,
                "arm": arm,
                "seeds": seeds,
                "clips": len({value.clip for value in found[arm]}),
                "mean": mean,
                "std_over_seeds": deviation,
                "noise_floor": floor,
            }
            other = compare(found[arm], found[reference], level) if arm != reference else None
            if other is not None:
                row |= {"difference": other.mean, "low": other.low, "high": other.high}
                row["resolved"] = "yes" if other.resolved else "no"
            rows.append(row)
    return rows


def verdict(row: dict[str, Any], reference: str) -> str:
    """Say in a sentence how an arm differs from the reference on one measure."""
    name, unit = row["measure"], row["unit"]
    where = "" if row["group"] == "all" else f" ({row['group']})"
    difference = row.get("difference")
    if difference is None or not math.isfinite(difference):
        return f"{row['arm']} and {reference} share no finished seed for {name}{where}."
    low, high = row["low"], row["high"]
    if not math.isfinite(low + high):
        return (
            f"{name}{where}: one seed only, so {row['arm']} and {reference} cannot be told apart."
        )
    base = row["mean"] - difference
    shown = _amount(difference, base, unit)
    interval = f"[{_amount(low, base, unit)}, {_amount(high, base, unit)}]"
    if row["resolved"] != "yes":
        return (
            f"{name}{where}: no difference that {row['seeds']} seeds can show: "
            f"{row['arm']} {shown} against {reference}, interval {interval}."
        )
    worse = (difference > 0) == (row["better"] == "lower")
    word = "worse" if worse else "better"
    return (
        f"{name}{where}: {row['arm']} is {word} than {reference} by {shown}, interval {interval}."
    )


def _amount(value: float, base: float, unit: str) -> str:
    """Write a difference of shares in points of a hundred, of losses in per cent of the base."""
    if unit == "share":
        text = f"{100 * value:+.1f} points"
    elif base:
        text = f"{100 * value / base:+.2f} %"
    else:
        text = f"{value:+.4g}"
    return text.replace("-", "\u2212")
