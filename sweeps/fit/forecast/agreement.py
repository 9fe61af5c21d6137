"""Whether the ways to N*'s exponent of compute agree: three approaches, and every form."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sweeps.fit.forecast.choice import Choice
from sweeps.fit.forms.base import FlopsPerToken
from sweeps.fit.minima.frontier import compute_optimal

APPROACHES = {
    "approach_1": "the envelope", "approach_2": "isoFLOP minima", "approach_3": "the form",
}  # fmt: skip
APART = 0.05  # exponents that differ by less are alike for any plan


def exponent_spread(
    exponents: Mapping[str, Any], choice: Choice, cost: FlopsPerToken
) -> dict[str, Any]:
    """Return the exponent with the spread of approaches and forms in its interval.

    params: the median of all; interval: from the least to the largest end of the approaches'
    intervals and of what each form says; by_form: N*'s slope over the fitted compute by each form.
    """
    columns = choice.candidates[choice.form].fit.columns
    ends = float(columns["flops"].min()), float(columns["flops"].max())
    by_form = {}
    for name, candidate in choice.candidates.items():
        fit = candidate.fit
        with np.errstate(all="ignore"):
            low, high = (float(compute_optimal(fit, fit.theta, c, cost)[0][0]) for c in ends)
        if ends[1] > ends[0] and low > 0 and high > 0:
            by_form[name] = float(np.log(high / low) / np.log(ends[1] / ends[0]))
    found = [item for key in APPROACHES if (item := exponents.get(key)) and item.get("params")]
    values = [float(item["params"]) for item in found] + list(by_form.values())
    reach = values + [float(end) for item in found for end in item["interval"]]
    reach = [value for value in reach if np.isfinite(value)]
    return {
        "params": float(np.median(values)) if values else None,
        "interval": (min(reach), max(reach)) if reach else None,
        "by_form": by_form,
    }


def warn_agreement(exponents: Mapping[str, Any]) -> Iterator[str]:
    """Yield the approaches that contradict each other: intervals apart, and by enough to matter."""
    known = {
        words: (float(item["params"]), item["interval"])
        for key, words in APPROACHES.items()
        if (item := exponents.get(key)) and item.get("params")
    }
    names = list(known)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            (a, (low, high)), (b, (least, most)) = known[one], known[other]
            if (low > most or least > high) and abs(a - b) > APART:
                yield (
                    f"N* grows as C^{a:.2f} by {one} ({low:.2f} to {high:.2f}) and as C^{b:.2f} by "
                    f"{other} ({least:.2f} to {most:.2f}): they contradict each other, so the form "
                    "or the grid of sizes is wrong. Trust neither further than the runs reach."
                )
