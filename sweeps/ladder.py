"""The ladder of model sizes: a number of parameters in, a DiT shape out.

The dial is the parameter count itself, because isoFLOP grids need even steps in it; width and
depth follow. Among shapes whose parameters lie close to the target, the one whose width over depth
is closest to :func:`aspect` wins. See docs/decisions/001-ladder-dial.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log

from models.config import ModelConfig
from models.count import count_params

_MAX_WIDTH, _MAX_DEPTH = 12288, 96
_ASPECT_WEIGHT = 0.15  # how much a factor in aspect counts against one in parameters


@dataclass(frozen=True)
class Rung:
    """A shape of the ladder with its exact number of parameters."""

    width: int
    depth: int
    params: int


def aspect(width: int) -> float:
    """Return the preferred width / depth: 24 at width 64, 69 at DiT-XL's 1152, 127 at 6144.

    Wide models of published ladders are shallower for their width than small ones; the power is
    fitted by eye between this project's tiny models and 30B video models.
    """
    return 24.0 * (width / 64) ** 0.365


def shape_for(params: float, base: ModelConfig, min_depth: int = 2) -> Rung:
    """Return the feasible shape closest to ``params`` parameters.

    base: gives head size, token and text widths; widths are whole heads and hold a token's values.
    Raises ValueError if the closest shape misses the target by more than a factor of 1.6.
    """
    if not params > 0:
        raise ValueError(f"params={params}: must be positive. Use for example 1e5.")

    def distance(rung: Rung) -> float:
        shape = abs(log(rung.width / rung.depth / aspect(rung.width)))
        return abs(log(rung.params / params)) + _ASPECT_WEIGHT * shape

    best = min(_candidates(params, base, min_depth), key=distance)
    if abs(log(best.params / params)) > log(1.6):
        raise ValueError(
            f"params={params:.3g}: no feasible shape is near; the closest has {best.params:.3g} "
            f"(width {best.width}, depth {best.depth}). Change the target or model.head_dim."
        )
    return best


def _candidates(params: float, base: ModelConfig, min_depth: int) -> Iterator[Rung]:
    """Yield, for every width, the shapes whose depth brings them near ``params``."""
    for width in range(base.head_dim, _MAX_WIDTH + 1, base.head_dim):
        if width < base.values_per_token:
            continue
        one = count_params(replace(base, width=width, depth=1)).total
        block = count_params(replace(base, width=width, depth=2)).total - one
        middle = round((params - one) / block) + 1
        for depth in {min_depth, middle - 1, middle, middle + 1}:
            if min_depth <= depth <= _MAX_DEPTH:
                yield Rung(width, depth, one + (depth - 1) * block)
