"""The ladder of model sizes: a number of parameters in, a DiT shape out.

The dial is the parameter count itself, because isoFLOP grids need even steps in it; width and
depth follow. Among shapes whose parameters lie close to the target, the one whose width over depth
is closest to :func:`aspect` wins. See docs/decisions/001-ladder-dial.md.

    kinescale ladder --help          # prints a ladder as a table beside published shapes
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log

from models.config import ModelConfig
from models.count import count_params
from trainer.layout.config import ParallelConfig

_MAX_WIDTH, _MAX_DEPTH = 12288, 96
_STEP, _NARROW = 8, 128  # widths go up in steps of 8 to 128, then in whole heads of base size
_ASPECT_WEIGHT = 0.15  # how much a factor in aspect counts against one in parameters
MISS = 1.6  # a shape that misses its target by a larger factor is no answer
SPREAD = 1.3  # how far the ratio of neighbouring rungs may lie from the one asked for, as a factor


@dataclass(frozen=True)
class Rung:
    """A shape of the ladder with its exact number of parameters."""

    width: int
    depth: int
    head_dim: int
    params: int

    def of(self, base: ModelConfig) -> ModelConfig:
        """Return the model of this shape that shares everything else with ``base``."""
        return replace(base, width=self.width, depth=self.depth, head_dim=self.head_dim)


@dataclass(frozen=True)
class Constraint:
    """The layout that every rung has to allow, by the rules of ``ParallelConfig.check``.

    Heads divide by tp x cp (and so do widths by tp). Depth divides by pp x interleave: the check
    asks for a block in every chunk, a ladder for as many in each.
    """

    tp: int = 1
    cp: int = 1
    pp: int = 1
    interleave: int = 1

    @property
    def heads(self) -> int:
        """What the number of heads must be a multiple of."""
        return self.tp * self.cp

    @property
    def chunks(self) -> int:
        """What the depth must be a multiple of."""
        return self.pp * self.interleave

    def check(self, model: ModelConfig | None = None) -> None:
        """Raise ValueError on a layout that is none, or that a model's run would refuse."""
        heads, chunks = max(1, self.heads), max(1, self.chunks)
        fitting = ModelConfig(width=16 * heads, depth=chunks, head_dim=16)
        ParallelConfig(
            processes=heads * max(1, self.pp), tp=self.tp, cp=self.cp, pp=self.pp,
            interleave=self.interleave,
        ).check(model or fitting, packs_per_step=self.pp)  # fmt: skip


def aspect(width: int) -> float:
    """Return the preferred width / depth.

    41 at DiT-XL (1152 x 28, Peebles and Xie 2023), 128 at Wan 14B (5120 x 40, 2025); tiny models
    keep the 40, which also suits them (docs/log.md).
    """
    return 40.0 * max(1.0, width / 1152) ** 0.78


def head_size(width: int, target: int, multiple: int = 1) -> int | None:
    """Return the even head size closest to ``target`` that gives a multiple of so many heads.

    None where there is none. On CPU the cost of attention grows with the number of heads, so narrow
    models have one.
    """
    share, rest = divmod(width, multiple)
    sizes = [size for size in range(6, share + 1, 2) if not rest and share % size == 0]
    return min(sizes, key=lambda size: abs(log(size / target)), default=None)


def shape_for(
    params: float,
    base: ModelConfig,
    min_depth: int = 1,
    constraint: Constraint | None = None,
    max_depth: int | None = None,
) -> Rung:
    """Return the feasible shape closest to ``params`` parameters.

    base: gives the head size to aim at and the token and text widths.
    min_depth, max_depth: bounds of the number of blocks; None: no upper one.
    constraint: the layout that the shape must allow; one process by default.
    Raises ValueError if the closest shape misses the target by more than a factor of 1.6.
    """
    if not 0 < params < float("inf"):
        raise ValueError(f"params={params}: must be positive. Use for example 1e5.")
    constraint = constraint or Constraint()
    constraint.check()

    def distance(rung: Rung) -> float:
        shape = abs(log(rung.width / rung.depth / aspect(rung.width)))
        return abs(log(rung.params / params)) + _ASPECT_WEIGHT * shape

    rungs = [
        rung
        for rung in _candidates(params, base, min_depth, constraint)
        if max_depth is None or rung.depth <= max_depth
    ]
    near = [rung for rung in rungs if abs(log(rung.params / params)) <= log(MISS)]
    if not near:
        raise ValueError(
            f"params={params:.3g}: no feasible shape is near{_under(constraint)}; "
            f"{_neighbours(params, rungs)}. Change the target, the layout or model.head_dim"
            f"{'' if max_depth is None else f', or allow more blocks than {max_depth}'}."
        )
    best = min(near, key=distance)
    constraint.check(best.of(base))
    return best


def smallest(base: ModelConfig, constraint: Constraint | None = None) -> Rung:
    """Return the shape of fewest parameters that a layout allows."""
    return min(_candidates(1.0, base, 1, constraint or Constraint()), key=lambda r: r.params)


def ladder(
    low: float,
    high: float,
    ratio: float,
    base: ModelConfig,
    constraint: Constraint | None = None,
) -> list[Rung]:
    """Return rungs from ``low`` to ``high``, each aimed at ``ratio`` times the parameters before.

    For ratios of 1.5 and more, neighbours are within a factor :data:`SPREAD` of it (tests/sweeps).
    """
    if not 1 < ratio < float("inf"):
        raise ValueError(f"ratio={ratio}: must be above 1. Use 1.7.")
    if not 0 < low <= high < float("inf"):
        raise ValueError(f"low={low:g}, high={high:g}: must rise from above 0. Use 1e5 and 1e9.")
    rungs: list[Rung] = []
    target = low
    while target <= high * 1.000001:
        rung = shape_for(target, base, constraint=constraint)
        higher = not rungs or rung.params > rungs[-1].params
        rungs += [rung] if higher else []
        target = rung.params * ratio if higher else target * 1.1
    return rungs


def _under(constraint: Constraint) -> str:
    if constraint == Constraint():
        return ""
    return (
        f" with heads a multiple of tp x cp = {constraint.heads} and depth one of pp x interleave "
        f"= {constraint.chunks}"
    )


def _neighbours(params: float, rungs: list[Rung]) -> str:
    """Name the nearest feasible shapes on both sides of a target."""
    below = max((r for r in rungs if r.params < params), key=lambda r: r.params, default=None)
    above = min((r for r in rungs if r.params >= params), key=lambda r: r.params, default=None)
    found = [
        f"{rung.params:.3g} (width {rung.width}, depth {rung.depth}, heads of {rung.head_dim})"
        for rung in (below, above)
        if rung
    ]
    return f"the closest has {' or '.join(found)}" if found else "none exists at all"


def _candidates(
    params: float, base: ModelConfig, min_depth: int, constraint: Constraint
) -> Iterator[Rung]:
    """Yield, for every width, the shapes whose depth brings them near ``params``."""
    heads, chunks = constraint.heads, constraint.chunks
    lowest, narrowest = -(-max(min_depth, chunks) // chunks) * chunks, 0.0
    # A layout of many heads leaves gaps between widths of whole heads: there, heads may vary too.
    narrow = _NARROW if heads == 1 else max(_NARROW, 2 * base.head_dim * heads)
    for width in _widths(narrow, base.head_dim * heads):
        size = head_size(width, base.head_dim, heads) if width <= narrow else base.head_dim
        if size is None or base.values_per_token > 2 * width:
            continue
        shape = replace(base, width=width, head_dim=size)
        one = count_params(replace(shape, depth=1)).total
        block = count_params(replace(shape, depth=2)).total - one
        if narrowest and one > 4 * max(params, narrowest):
            return  # wider ones are larger still
        narrowest = narrowest or one + (lowest - 1) * block
        middle = round(((params - one) / block + 1) / chunks) * chunks
        highest = _MAX_DEPTH // chunks * chunks  # for the message when nothing is near
        for depth in sorted({lowest, middle - chunks, middle, middle + chunks, highest}):
            if lowest <= depth <= highest:
                yield Rung(width, depth, size, one + (depth - 1) * block)


def _widths(narrow: int, step: int) -> Iterator[int]:
    yield from range(_STEP, narrow + 1, _STEP)
    yield from range((narrow // step + 1) * step, _MAX_WIDTH + 1, step)
