"""How often training draws the times that validation measures, before anything runs; torch-free."""

from collections.abc import Mapping
from math import ceil

from models.times import Density, clip_shift, density_of, shifted
from trainer.config import RunConfig

LEAST_STRATA = 8  # that a result keeps, also where each clip is seen at fewer times
STARVED = 0.01  # of the training times in a stratum: 8 even ones have 0.125 each


def number_of_strata(times: int) -> int:
    """Return how many strata are kept where each clip is seen at ``times``: a multiple of them."""
    return times * ceil(LEAST_STRATA / times)


def starved_times(run: RunConfig, lengths: Mapping[int, float]) -> str:
    """Say which noise levels validation measures that training hardly draws; "" where none is.

    lengths: tokens of a clip -> how many clips are as long. Of flow alone: how often another
    objective draws a time, its own code says (``trainer.diffusion.strata.trained_shares``).
    """
    objective = run.objective
    if objective.kind != "flow":
        return ""
    density = density_of(objective.density, objective.spread)
    strata, total = number_of_strata(run.validation.times), 0.0
    low, high = objective.t_range
    edges = [low + (high - low) * i / strata for i in range(strata + 1)]
    drawn = [0.0] * strata
    for length, clips in lengths.items():
        shift = clip_shift(float(length), objective.shift_tokens, objective.most_shift)
        below = [_below(density, shift, edge) for edge in edges]
        total += length * clips
        for i in range(strata):
            share = (below[i + 1] - below[i]) / (below[-1] - below[0])
            drawn[i] += length * clips * share
    starved = [i for i in range(strata) if drawn[i] < STARVED * total]
    if not starved:
        return ""
    share = sum(drawn[i] for i in starved) / total
    return (
        f"{len(starved)} of {strata} strata of t that validation weighs evenly, between "
        f"{edges[starved[0]]:.3g} and {edges[starved[-1] + 1]:.3g}, get {share:.2%} of the "
        "training times"
    )


def _below(density: Density, shift: float, t: float) -> float:
    """Return the share of shifted times below one: the shift's inverse is a shift by 1 / s."""
    return density.below(shifted(t, 1 / shift) if 0 < t < 1 else t)
