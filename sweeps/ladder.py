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
_STEP, _NARROW = 8, 128  # widths go up in steps of 8 to 128, then in whole heads
_ASPECT_WEIGHT = 0.15  # how much a factor in aspect counts against one in parameters


@dataclass(frozen=True)
class Rung:
    """A shape of the ladder with its exact number of parameters."""

    width: int
    depth: int
    head_dim: int
    params: int


def aspect(width: int) -> float:
    """Return the preferred width / depth.

    41 at DiT-XL (1152 x 28, Peebles and Xie 2023), 128 at Wan 14B (5120 x 40, 2025); tiny models
    keep the 40, which also suits them (docs/log.md).
    """
    return 40.0 * max(1.0, width / 1152) ** 0.78


def head_size(width: int, target: int) -> int:
    """Return the even head size closest to ``target`` that divides ``width`` into whole heads.

    On CPU the cost of attention grows with the number of heads, so narrow models have one.
    """
    sizes = [size for size in range(6, width + 1) if width % size == 0 and size % 2 == 0]
    return min(sizes, key=lambda size: abs(log(size / target)))


def shape_for(params: float, base: ModelConfig, min_depth: int = 1) -> Rung:
    """Return the feasible shape closest to ``params`` parameters.

    base: gives the head size to aim at and the token and text widths.
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
    narrow = range(_STEP, _NARROW + 1, _STEP)
    first = (_NARROW // base.head_dim + 1) * base.head_dim
    wide = range(first, _MAX_WIDTH + 1, base.head_dim)
    for width in (*narrow, *wide):
        if base.values_per_token > 2 * width:
            continue
        size = head_size(width, base.head_dim) if width <= _NARROW else base.head_dim
        if width % size:
            continue
        shape = replace(base, width=width, head_dim=size)
        one = count_params(replace(shape, depth=1)).total
        block = count_params(replace(shape, depth=2)).total - one
        middle = round((params - one) / block) + 1
        for depth in sorted({min_depth, middle - 1, middle, middle + 1}):
            if min_depth <= depth <= _MAX_DEPTH:
                yield Rung(width, depth, size, one + (depth - 1) * block)
