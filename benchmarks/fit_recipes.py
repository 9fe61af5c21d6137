"""What a recipe is worth in compute, on tables whose answer is known.

Two isoFLOP tables of 20 runs each, noise 0.3 % a run, four budgets a factor 4 apart. `scaled`: one
recipe needs 1.5 times fewer tokens, so that its multiplier is 1.5 at every loss. `apart`: its
exponent of N is larger by 0.02, so that what it is worth grows. `python -m benchmarks.fit recipes`
prints how often the intervals hold the truth.
"""

from dataclasses import dataclass

import numpy as np

from sweeps.compare.recipes import Recipe, compare_recipes
from sweeps.fit.forms.base import Array
from sweeps.fit.optimum.shared import SCALED
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.runs import Run

FACTOR, STEEPER, NOISE = 1.5, 0.02, 0.003


def loss_of(params: Array, tokens: Array, factor: float = 1.0, steeper: float = 0.0) -> Array:
    """Return the loss of a recipe without noise."""
    return 1.69 + 406.4 / params ** (0.34 + steeper) + 410.7 / (factor * tokens) ** 0.28


def recipe(name: str, seed: int, factor: float = 1.0, steeper: float = 0.0) -> Recipe:
    """Return the runs of one recipe."""
    rng = np.random.default_rng(seed)
    runs = []
    for flops in 1e18 * 4.0 ** np.arange(4):
        for params in (flops / 6) ** 0.45 * np.geomspace(0.3, 3.3, 5):
            tokens = flops / 6 / params
            loss = loss_of(params, tokens, factor, steeper) * np.exp(NOISE * rng.standard_normal())
            runs.append(Run("", float(params), float(tokens), float(flops), float(loss)))
    return Recipe(name, runs)


def compute_at(loss: float, steeper: float = 0.0) -> float:
    """Return the least compute at which a recipe reaches a loss, by the exact law."""
    flops = np.geomspace(1e16, 1e23, 3000)
    sizes = np.geomspace(1e6, 1e12, 1500)[:, None]
    least = loss_of(sizes, flops / 6 / sizes, steeper=steeper).min(axis=0)
    return float(np.exp(np.interp(-loss, -least, np.log(flops))))


@dataclass(frozen=True)
class Coverage:
    """How often 90 % intervals hold the truth. same: that the runs were said to share all slopes.

    constant: the factor of `scaled`, whatever was said; width: the median of the upper over the
    lower end of its interval. ends: what is told at both ends of the losses of `apart`.
    """

    constant: float
    width: float
    same_of_scaled: float
    ends: float
    same_of_apart: float


def coverage_of_multipliers(replicates: int = 200, resamples: int = 100) -> Coverage:
    """Return the coverage over so many tables of either kind."""
    held, widths, same, ends, same_of_apart = [], [], [], [], []
    for seed in range(replicates):
        options = FitOptions(resamples=resamples, seed=seed)
        one, other = recipe("a", 2 * seed), recipe("b", 2 * seed + 1, FACTOR)
        found, *_ = compare_recipes(one, other, options)
        assert found.interval is not None
        held.append(found.interval[0] <= FACTOR <= found.interval[1])
        widths.append(found.interval[1] / found.interval[0])
        same.append(found.shared == SCALED)
        found, *_ = compare_recipes(one, recipe("b", 2 * seed + 1, 1.0, STEEPER), options)
        for point in (found.points[0], found.points[-1]):
            truth = compute_at(point["loss"]) / compute_at(point["loss"], STEEPER)
            ends.append(point["interval"][0] <= truth <= point["interval"][1])
        same_of_apart.append(found.shared == SCALED)
    return Coverage(
        float(np.mean(held)), float(np.median(widths)), float(np.mean(same)), float(np.mean(ends)),
        float(np.mean(same_of_apart)),
    )  # fmt: skip
