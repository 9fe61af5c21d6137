"""Initial values that are drawn by a parameter's name and place, so that any piece stands alone.

Philox is counter-based (Salmon et al. 2011): the values of some rows depend on the seed, the name
and the rows' numbers, on nothing that was drawn before. A rank draws what it holds and no more, and
every layout gets the same numbers.
"""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from models.architecture import Initial, Split, Weight, specification_of
from models.config import ModelConfig

_DRAWN = 2**16  # values that are drawn at a time, in whole rows; part of what a name stands for


@dataclass(frozen=True)
class Drawn:
    """The initial value of one parameter, of which any piece can be had."""

    name: str
    weight: Weight
    seed: int

    def piece(self, cut: Split | None, index: int, count: int, start: int, length: int) -> Tensor:
        """Return elements [start, start + length) of part ``index`` of ``count``, flat.

        cut: into parts; None for the one part that is everything.
        """
        full, initial = self.weight.shape, self.weight.initial
        if isinstance(initial, tuple):
            blocks = torch.tensor(initial).repeat_interleave(full[0] // len(initial))
            part = blocks if cut is None else cut.cut(blocks, index, count)
            return part[start : start + length]
        if initial in (Initial.zeros, Initial.ones):
            return torch.full((length,), float(initial is Initial.ones))
        shape = full if cut is None else cut.shape(full, count)
        width = prod(shape[1:])
        first, last = start // width, -(-(start + length) // width)
        rows = torch.cat([
            self._rows(begin, end, cut, index, count)
            for begin, end in self._runs(first, last, cut, index, count)
        ])  # fmt: skip
        offset = start - first * width
        return rows.reshape(-1)[offset : offset + length]

    def _runs(
        self, first: int, last: int, cut: Split | None, index: int, count: int
    ) -> Iterator[tuple[int, int]]:
        """Yield the rows of the whole parameter that rows [first, last) of a part are, in runs."""
        if cut is None or cut.dim > 0:
            yield first, last
            return
        block = self.weight.shape[0] // cut.groups
        own = block // count
        while first < last:
            group, within = divmod(first, own)
            end = min(last, (group + 1) * own)
            begin = group * block + index * own + within
            yield begin, begin + end - first
            first = end

    def _rows(self, begin: int, end: int, cut: Split | None, index: int, count: int) -> Tensor:
        """Return rows [begin, end) of the whole parameter, of a cut inside rows the own columns."""
        shape = self.weight.shape
        each = max(1, _DRAWN // prod(shape[1:]))
        found = []
        for block in range(begin // each, -(-end // each)):
            first = block * each
            rows = min(each, shape[0] - first)
            values = self._draw(block, (rows, *shape[1:]))[max(begin - first, 0) : end - first]
            found.append(values if cut is None or cut.dim == 0 else cut.cut(values, index, count))
        return torch.cat(found)

    def _draw(self, block: int, shape: tuple[int, ...]) -> Tensor:
        digest = hashlib.blake2b(f"{self.seed}/{self.name}".encode(), digest_size=16).digest()
        philox = np.random.Philox(key=int.from_bytes(digest, "little"), counter=[0, 0, block, 0])
        values = np.random.Generator(philox).standard_normal(shape, dtype=np.float32)
        scale = self.weight.shape[1] ** -0.5 if self.weight.initial is Initial.fan_in else 1.0
        return torch.from_numpy(values).mul_(scale)


def drawn_values(
    config: ModelConfig, seed: int, names: Collection[str]
) -> Iterator[tuple[str, Drawn]]:
    """Yield the wanted parameters' names and initial values, of which none is drawn yet.

    By role as in :func:`models.network.initial_values`, whose numbers are others.
    """
    for name, weight in specification_of(config).weights.items():
        if name in names:
            yield name, Drawn(name, weight, seed)
