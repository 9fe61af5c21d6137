"""The samples a run trains on: one split, or several sources mixed by weight."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from data.config import DataConfig
from data.dataset.opening import open_index
from data.dataset.remote import ShardCache, open_root
from data.dataset.sample import SampleInfo
from data.dataset.shards import read_payload
from data.dataset.table import Chosen, Stored, Table, joined
from data.dataset.tokens import Cell
from data.loading.planner import PackPlanner
from data.loading.stream import Span


@dataclass(frozen=True)
class Member:
    """One source: a name for tables, the split it is read from, and its rows of the index.

    root: the folder that holds index and manifest; shards come through ``cache`` if there is one.
    """

    name: str
    root: Path
    split: str
    span: Span
    cache: ShardCache | None = None

    def read_payload(self, info: SampleInfo) -> bytes:
        """Return the verified payload of one of its samples. Raises ValueError."""
        if self.cache is not None:
            return self.cache.read_payload(self.split, info)
        return read_payload(self.root, self.split, info)


@dataclass(frozen=True)
class Dataset:
    """The index entries of all members, one member after another."""

    infos: Sequence[SampleInfo]
    members: list[Member]

    @property
    def spans(self) -> list[Span]:
        """The rows and weights of the members, as the planner takes them."""
        return [member.span for member in self.members]

    @property
    def shares(self) -> list[float]:
        """The members' shares of the training tokens; they add up to 1."""
        total = sum(span.weight for span in self.spans)
        return [span.weight / total for span in self.spans]

    def member_of(self, index: int) -> int:
        """Return which member a row of the index belongs to."""
        return bisect_right(self.members, index, key=lambda member: member.span.start) - 1


def read_split(config: DataConfig, split: str) -> Dataset:
    """Read a split of data.root, whatever data.mixture says."""
    folder, cache = open_root(config, config.root)
    infos = open_index(folder, split)
    span = Span(0, len(infos), 1.0)
    return Dataset(infos, [Member(config.root, folder, split, span, cache)])


def read_mixture(config: DataConfig, split: str) -> Dataset:
    """Read the members of data.mixture, or the split of data.root where it is empty.

    Of each as many samples as data.limit lets pass. Raises ValueError for a pattern that no sample
    matches, a limit that there are too few samples for, and a key that two members share: draws and
    resume tell samples apart by their keys.
    """
    if not config.mixture:
        whole = read_split(config, split)
        infos = limited(whole.infos, config.limit)
        home = replace(whole.members[0], span=Span(0, len(infos), 1.0))
        return Dataset(infos, [home])
    parts: list[Sequence[SampleInfo]] = []
    start = 0
    members: list[Member] = []
    roots: dict[str, tuple[Path, ShardCache | None]] = {}
    for number, member in enumerate(config.mixture):
        root, chosen = member.root or config.root, member.split or split
        if root not in roots:
            roots[root] = open_root(config, root)
        folder, cache = roots[root]
        found = from_sources(open_index(folder, chosen), member.source)
        if not len(found):
            raise ValueError(
                f"data.mixture[{number}].source={member.source!r}: matches no sample of {root} "
                f"{chosen}. Use a shell pattern such as '*'."
            )
        found = limited(found, config.limit)
        pattern = "" if member.source == "*" else f" {member.source}"
        span = Span(start, start + len(found), member.weight)
        members.append(Member(f"{root} {chosen}{pattern}", folder, chosen, span, cache))
        parts.append(found)
        start = span.stop
    dataset = Dataset(joined(parts), members)
    _check_keys(dataset)
    return dataset


def from_sources(infos: Sequence[SampleInfo], pattern: str) -> Sequence[SampleInfo]:
    """Return the samples whose source matches a shell pattern."""
    if isinstance(infos, Stored):
        return infos.from_sources(pattern)
    return [info for info in infos if fnmatchcase(info.source, pattern)]


def limited(infos: Sequence[SampleInfo], limit: float) -> Sequence[SampleInfo]:
    """Return the samples that a limit lets pass, in the order of the index.

    They are those whose keys have the smallest SHA-256: a choice that knows nothing of worlds,
    shards or sizes, and in which each smaller limit's samples are among those of a larger one.
    limit: 0 for all, a share below 1, or a whole number of samples. Raises ValueError otherwise.
    """
    if limit == 0:
        return infos
    count = max(1, round(limit * len(infos))) if 0 < limit < 1 else limit
    if not (1 <= count <= len(infos) and count == int(count)):
        raise ValueError(
            f"data.limit={limit:g}: must be 0, a share below 1 or a whole number of at most the "
            f"{len(infos)} samples there are. Use for example 0.5."
        )
    if isinstance(infos, Table):
        rows = np.argsort(infos.column("key"), kind="stable")[: int(count)]
        return Chosen(infos, np.sort(rows))
    order = sorted(range(len(infos)), key=lambda i: hashlib.sha256(infos[i].key.encode()).digest())
    return [infos[i] for i in sorted(order[: int(count)])]


def _check_keys(dataset: Dataset) -> None:
    for other, index in _alike(dataset.infos):
        info = dataset.infos[index]
        if dataset.infos[other].key == info.key:
            names = [dataset.members[dataset.member_of(i)].name for i in (other, index)]
            raise ValueError(
                f"key={info.key!r}: must be in one member of data.mixture only, but is in "
                f"{names[0]} and in {names[1]}. Give keys a prefix of their own when ingesting, or "
                "choose data.mixture[].source patterns that do not overlap."
            )


def _alike(infos: Sequence[SampleInfo]) -> Iterator[tuple[int, int]]:
    """Yield pairs of places with equal keys; of columns with keys that are equal nearly surely."""
    if isinstance(infos, Table):
        keys = infos.column("key")
        order = np.argsort(keys, kind="stable")
        for place in np.flatnonzero(keys[order[1:]] == keys[order[:-1]]):
            yield int(order[place]), int(order[place + 1])
        return
    seen: dict[str, int] = {}
    for index, info in enumerate(infos):
        other = seen.setdefault(info.key, index)
        if other != index:
            yield other, index


def planner_of(
    config: DataConfig, infos: Sequence[SampleInfo], spans: Sequence[Span], cell: Cell, seed: int
) -> PackPlanner:
    """Return the planner of a dataset under a config; a run and its forecast share it."""
    return PackPlanner(
        infos,
        cell,
        config.pack_tokens,
        config.packs_per_step,
        config.max_segments,
        config.pool,
        seed,
        spans,
        config.shuffle_shards,
        config.in_order,
    )
