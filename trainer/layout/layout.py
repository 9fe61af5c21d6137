"""Which rank does what, by arithmetic alone: four axes and one order of ranks; torch-free.

Tensor ranks are neighbours, then context, data and pipeline ranks. It is megatron-core's default
order (tp-cp-ep-dp-pp) and DeepSpeed's grid (pipe, data, model): the groups with the most traffic
stay inside a node.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import product


@dataclass(frozen=True)
class Coordinates:
    """A rank's place on each axis, the fastest-changing first."""

    tp: int = 0
    cp: int = 0
    dp: int = 0
    pp: int = 0


AXES = tuple(field.name for field in fields(Coordinates))


@dataclass(frozen=True)
class Layout:
    """Sizes of the axes: tensor, context, data and pipeline parallel."""

    tp: int = 1
    cp: int = 1
    dp: int = 1
    pp: int = 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes in the order of AXES."""
        return tuple(getattr(self, axis) for axis in AXES)

    @property
    def world(self) -> int:
        """Number of ranks."""
        return self.tp * self.cp * self.dp * self.pp

    @property
    def replicas(self) -> int:
        """Ranks that ZeRO shards one copy of a parameter over: data times context parallel."""
        return self.dp * self.cp

    @property
    def row_shards(self) -> int:
        """Ranks that share the rows of a pack: context times tensor (sequence) parallel."""
        return self.cp * self.tp

    def coordinates(self, rank: int) -> Coordinates:
        """Return the place of a rank."""
        assert 0 <= rank < self.world
        place = []
        for size in self.sizes:
            rank, index = divmod(rank, size)
            place.append(index)
        return Coordinates(*place)

    def rank(self, place: Coordinates) -> int:
        """Return the rank at a place; the inverse of :meth:`coordinates`."""
        rank, stride = 0, 1
        for axis, size in zip(AXES, self.sizes, strict=True):
            rank += stride * getattr(place, axis)
            stride *= size
        return rank

    def members(self, rank: int, *axes: str) -> list[int]:
        """Return, ascending, the ranks that differ from ``rank`` along the given axes only."""
        place = vars(self.coordinates(rank))
        spans = [range(getattr(self, a)) if a in axes else [place[a]] for a in AXES]
        return sorted(self.rank(Coordinates(*indices)) for indices in product(*spans))

    def groups(self, *axes: str) -> Iterator[list[int]]:
        """Yield every group along the given axes, in the order of its lowest rank."""
        for rank in range(self.world):
            place = self.coordinates(rank)
            if all(getattr(place, axis) == 0 for axis in axes):
                yield self.members(rank, *axes)

    def context_groups(self, head_ranks: int) -> dict[str, list[list[int]]]:
        """Return the groups into which context ranks fall where so many neighbours trade heads.

        cp_heads: neighbours, which trade rows for heads. cp_keys: ranks that hold the same heads of
        other rows, and gather their keys.
        """
        lines, step = list(self.groups("cp")), head_ranks
        return {
            "cp_heads": [x[i : i + step] for x in lines for i in range(0, self.cp, step)],
            "cp_keys": [x[i::step] for x in lines for i in range(step)],
        }

    def __str__(self) -> str:
        parts = [f"{a}{size}" for a, size in zip(AXES, self.sizes, strict=True) if size > 1]
        return "-".join(parts) or "single"

    def table(self, most: int = 16) -> str:
        """Return a readable table of ranks and places, at most ``most`` rows."""
        names = {
            "tp": "tensor",
            "cp": "context",
            "dp": "data",
            "pp": "pipeline",
        }
        sizes = ", ".join(f"{names[a]} {size}" for a, size in zip(AXES, self.sizes, strict=True))
        lines = [f"layout of {self.world} ranks: {sizes}"]
        lines.append("rank  " + "".join(f"{a:>5}" for a in AXES))
        for rank in range(min(self.world, most)):
            place = vars(self.coordinates(rank))
            lines.append(f"{rank:>4}  " + "".join(f"{place[a]:>5}" for a in AXES))
        if self.world > most:
            lines.append(f"... and {self.world - most} more")
        return "\n".join(lines)
