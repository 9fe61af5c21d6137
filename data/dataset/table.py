"""Samples of a large split as a sequence whose sizes are known without reading a line of the index.

A ``Table`` is used wherever a list of samples is: ``table[i]`` reads and parses one line. What
planning asks of all samples (tokens, kinds, sources, order of keys) comes from columns instead.
"""

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from data.dataset.columns import (
    ColumnBuilder,
    Columns,
    Kind,
    Shape,
    planned_line,
    shapes_of,
)
from data.dataset.sample import SampleInfo
from data.dataset.tokens import Cell, tokens

Numbers = NDArray[Any]


class Table(Sequence[SampleInfo]):
    """Samples in columns: each has the number of its shape, and its line is read when asked for."""

    shapes: list[Shape]
    numbers: Numbers  # of each sample's shape

    @abstractmethod
    def row(self, place: int) -> SampleInfo:
        """Return the sample at a place from 0 on."""

    @abstractmethod
    def digest(self) -> str:
        """Return a SHA-256 over what a plan depends on."""

    @abstractmethod
    def column(self, name: str) -> Numbers:
        """Return a column of ``ROW`` for all samples; shards and sources numbered anyhow."""

    def counts(self) -> Numbers:
        """Return how many samples have each shape."""
        return np.bincount(self.numbers, minlength=len(self.shapes))

    def kinds(self) -> list[tuple[Kind, int]]:
        """Return the different kinds with their counts."""
        columns = (self.numbers, self.column("caption"), self.column("short"))
        packed = np.stack([np.asarray(c, np.uint32) for c in columns], 1)
        found, counts = np.unique(packed, axis=0, return_counts=True)
        return named_kinds(self.shapes, np.column_stack([found, counts]).tolist())

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> SampleInfo: ...
    @overload
    def __getitem__(self, place: slice) -> "Table": ...
    def __getitem__(self, place: int | slice) -> "SampleInfo | Table":
        if isinstance(place, slice):
            whole = place.indices(len(self)) == (0, len(self), 1)
            return self if whole else Chosen(self, np.arange(len(self))[place])
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self.row(place % len(self))


def named_kinds(shapes: list[Shape], rows: Iterable[Sequence[int]]) -> list[tuple[Kind, int]]:
    """Return kinds with their counts from rows of (shape, caption, short, count)."""
    return [
        (Kind(*shapes[shape][1:], caption, "some" if short else "", max(0, short - 1)), count)
        for shape, caption, short, count in rows
    ]


class Stored(Table):
    """All samples of one split, memory-mapped."""

    def __init__(self, columns: Columns) -> None:
        self.columns, self.shapes = columns, shapes_of(columns.arrays)
        self.numbers = columns.arrays["shape"]

    def row(self, place: int) -> SampleInfo:
        return self.columns.read(place)

    def digest(self) -> str:
        return self.columns.digest

    def column(self, name: str) -> Numbers:
        return self.columns.arrays[name]

    def counts(self) -> Numbers:
        return self.columns.arrays["shape_counts"]

    def kinds(self) -> list[tuple[Kind, int]]:
        return named_kinds(self.shapes, self.columns.arrays["kinds"].reshape(-1, 4).tolist())

    def from_sources(self, pattern: str) -> Table:
        """Return the samples whose source matches a shell pattern."""
        if pattern == "*":
            return self
        names = self.columns.names("source")
        matching = np.array([fnmatchcase(name, pattern) for name in names], bool)
        return Chosen(self, np.flatnonzero(matching[self.column("source")]))


class Listed(Table):
    """Samples that lie in memory, so that they can be joined to others in columns."""

    def __init__(self, infos: Sequence[SampleInfo]) -> None:
        self.infos = infos
        builder = ColumnBuilder()
        for info in infos:
            builder.add(info, 0)
        self._arrays = builder.arrays()
        self.shapes = shapes_of(self._arrays)
        self.numbers = self._arrays["shape"]

    def row(self, place: int) -> SampleInfo:
        return self.infos[place]

    def digest(self) -> str:
        return index_digest(self.infos)

    def column(self, name: str) -> Numbers:
        return self._arrays[name]


class Chosen(Table):
    """Some rows of a table, in a given order."""

    def __init__(self, base: Table, rows: Numbers) -> None:
        self.base, self.rows = base, rows
        self.shapes, self.numbers = base.shapes, base.numbers[rows]

    def row(self, place: int) -> SampleInfo:
        return self.base.row(int(self.rows[place]))

    def digest(self) -> str:
        return digest_of("chosen", self.base.digest(), self.rows.astype("<i8").tobytes())

    def column(self, name: str) -> Numbers:
        return self.base.column(name)[self.rows]


class Joined(Table):
    """Tables one after another: the members of a mixture."""

    def __init__(self, parts: Sequence[Table]) -> None:
        self.parts = list(parts)
        self.shapes = [shape for part in parts for shape in part.shapes]
        firsts = np.cumsum([0, *(len(part.shapes) for part in parts)]).tolist()
        self.numbers = np.concatenate(
            [part.numbers + np.uint32(first) for part, first in zip(parts, firsts, strict=False)]
        )
        self._starts = np.cumsum([0, *map(len, parts)])

    def row(self, place: int) -> SampleInfo:
        part = int(np.searchsorted(self._starts, place, "right")) - 1
        return self.parts[part].row(place - int(self._starts[part]))

    def digest(self) -> str:
        return digest_of("joined", *(part.digest() for part in self.parts))

    def column(self, name: str) -> Numbers:
        found = [part.column(name) for part in self.parts]
        if name == "shard":  # numbers of other members are other shards
            tops = np.cumsum([0, *(int(column.max()) + 1 for column in found)]).tolist()
            found = [column + np.uint32(top) for column, top in zip(found, tops, strict=False)]
        return np.concatenate(found)


class Pieced(Table):
    """A table whose long clips are cut: each shape makes a known number of pieces.

    cut: the pieces of a sample, which are as many for all samples of a shape. said: what decides
    how samples are cut.
    """

    def __init__(
        self, base: Table, cut: Callable[[SampleInfo], list[SampleInfo]], lengths: list[list[int]],
        said: str,
    ) -> None:  # fmt: skip
        self.base, self.cut, self.said = base, cut, said
        self._counts = counts = np.array([len(of_shape) for of_shape in lengths])
        firsts = np.cumsum([0, *counts[:-1]])
        self.shapes = [
            shape._replace(num_frames=length)
            for shape, of_shape in zip(base.shapes, lengths, strict=True)
            for length in of_shape
        ]
        repeats = counts[base.numbers]
        self.rows = np.repeat(np.arange(len(base), dtype=np.uint32), repeats)
        starts = np.cumsum(repeats) - repeats
        self._number = (np.arange(len(self.rows)) - starts[self.rows]).astype(np.uint16)
        self.numbers = (firsts[base.numbers[self.rows]] + self._number).astype(np.uint32)

    def row(self, place: int) -> SampleInfo:
        return self.cut(self.base.row(int(self.rows[place])))[int(self._number[place])]

    def digest(self) -> str:
        return digest_of("pieced", self.base.digest(), self.said)

    def column(self, name: str) -> Numbers:
        return self.base.column(name)[self.rows]

    def starts(self, edges: Sequence[int]) -> list[int]:
        """Return where the pieces of the base's rows from ``edges`` on begin."""
        return np.searchsorted(self.rows, edges).tolist()

    def num_pieces(self) -> int:
        """Count the pieces of clips that are cut."""
        return int((self._counts * self.base.counts())[self._counts > 1].sum())


class Lengths(Sequence[int]):
    """The tokens of each sample of a table, by its shape: no memory a sample."""

    def __init__(self, table: Table, cell: Cell) -> None:
        self.table = table
        self._of_shape = [tokens(*shape[1:], cell) for shape in table.shapes]

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> list[int]: ...
    def __getitem__(self, place: int | slice) -> int | list[int]:
        if isinstance(place, slice):
            return [self._of_shape[number] for number in self.table.numbers[place].tolist()]
        return self._of_shape[self.table.numbers[place]]

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def tally(self) -> Counter[int]:
        """How many samples have each number of tokens."""
        found = Counter[int]()
        for length, count in zip(self._of_shape, self.table.counts().tolist(), strict=True):
            if count:
                found[length] += count
        return found

    def index(self, value: int, start: int = 0, stop: int | None = None) -> int:
        """Return the first place with so many tokens. Raises ValueError where there is none."""
        wanted = np.array([length == value for length in self._of_shape])
        places = np.flatnonzero(wanted[self.table.numbers[start:stop]])
        if not len(places):
            raise ValueError(value)
        return start + int(places[0])


def lengths_of(infos: Sequence[SampleInfo], cell: Cell) -> Sequence[int]:
    """Return the tokens of samples."""
    if isinstance(infos, Table):
        return Lengths(infos, cell)
    return [tokens(i.num_frames, i.height, i.width, cell) for i in infos]


def tally(lengths: Sequence[int]) -> Counter[int]:
    """Count samples by their tokens."""
    return lengths.tally if isinstance(lengths, Lengths) else Counter(lengths)


def media_of(infos: Sequence[SampleInfo]) -> set[str]:
    """Return the media of samples."""
    if isinstance(infos, Table):
        return {s.media for s, n in zip(infos.shapes, infos.counts(), strict=True) if n}
    return {info.media for info in infos}


def joined(members: Sequence[Sequence[SampleInfo]]) -> Sequence[SampleInfo]:
    """Return the samples of members one after another, in columns where one of them is."""
    if not any(isinstance(member, Table) for member in members):
        return [info for member in members for info in member]
    return Joined([m if isinstance(m, Table) else Listed(m) for m in members])


def index_digest(infos: Sequence[SampleInfo]) -> str:
    """Return a SHA-256 over what a plan depends on: keys, payload digests, sizes, order.

    Of columns that are a whole split it is the one of the same samples as a list.
    """
    if isinstance(infos, Table):
        return infos.digest()
    digest = hashlib.sha256()
    for info in infos:
        digest.update(planned_line(info))
    return digest.hexdigest()


def digest_of(*parts: str | bytes) -> str:
    """Return a SHA-256 of parts, each told apart from the next."""
    whole = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        whole.update(len(content).to_bytes(8, "little") + content)
    return whole.hexdigest()
