"""What the pilot and the twins of a study of a law say."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data.words import counted
from sweeps.kinds.isoflop.config import PilotConfig


def pilot_minimum(pilot: PilotConfig, results: Sequence[dict[str, Any]]) -> tuple[float, str]:
    """Return the pilot's best number of parameters and a sentence on how it was found.

    The vertex of a parabola in log N where it lies among the sizes, else the best size.
    """
    params = np.log([r["params"] for r in results])
    losses = np.log([r["loss"] for r in results])
    best = params[int(np.argmin(losses))]
    how = "the best size, for want of an interior minimum"
    if len(results) >= 3:
        curve, slope, _ = np.polyfit(params, losses, 2)
        vertex = -slope / (2 * curve) if curve > 0 else np.inf
        if params.min() < vertex < params.max():
            best, how = vertex, "the vertex of a parabola in log N"
    centre = float(np.exp(best))
    return centre, (
        f"{counted(len(results), 'size')} at {pilot.flops:.3g} FLOPs; its minimum, {how}, is at "
        f"N = {centre:.3g}. A grid of budget C is centred at that times "
        f"(C / {pilot.flops:.3g})^{pilot.exponent:g}."
    )


def compare_twins(results: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Compare the one-process run with its two-process twin."""
    if len(results) != 2:
        return None
    one, two = results
    keys = ("loss", "loss_real")
    differences = {key: abs(one[key] - two[key]) / abs(one[key]) for key in keys if one.get(key)}
    return {
        "names": [one["name"], two["name"]],
        "losses": [one["loss"], two["loss"]],
        "world_sizes": [one["world_size"], two["world_size"]],
        "zero_stages": [one["zero_stage"], two["zero_stage"]],
        "steps": one["steps"],
        "max_relative_difference": max(differences.values()),
        "equal_tokens": one["tokens"] == two["tokens"] and one["flops"] == two["flops"],
    }
