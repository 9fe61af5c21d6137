"""Which piece of which parameter lies in which file, told in few words.

ZeRO 3 cuts every parameter over all its ranks, so a thousand ranks store a thousand pieces of each.
They are equally long and lie one after another in files of evenly spaced ranks: one run tells them
all, for every kind of tensor at once. An index of runs grows with the parameters, not with ranks.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Entry = dict[str, Any]  # of one stored piece: name, kind, part, parts, start, length (and file)

# (name, kinds, part, parts, start, length, rank): a piece of all these kinds, in a rank's file.
Piece = list[Any]

# (kinds, part, parts, start, length, rank, count, step): ``count`` pieces of ``length`` elements,
# one after another from ``start`` on, in files of ranks ``rank``, ``rank + step`` and so on.
Run = list[Any]


class CheckpointError(ValueError):
    """A checkpoint that cannot be trusted, with the file and the reason."""


def tensor_key(entry: Entry) -> str:
    """Return the key of a piece in its rank's safetensors file."""
    return f"{entry['kind']}:{entry['name']}:{entry['part']}:{entry['start']}"


def tensors_name(rank: int) -> str:
    """Return the name of a rank's file of tensors."""
    return f"rank-{rank:05d}.safetensors"


def list_pieces(entries: list[Entry], rank: int) -> list[Piece]:
    """Return a rank's pieces, each with all kinds that are stored of it."""
    kinds: dict[tuple[Any, ...], list[str]] = {}
    for e in entries:
        place = e["name"], e["part"], e["parts"], e["start"], e["length"]
        kinds.setdefault(place, []).append(e["kind"])
    return [[name, sorted(found), *rest, rank] for (name, *rest), found in kinds.items()]


def refuse_overlaps(pieces: list[Piece]) -> None:
    """Raise CheckpointError where two pieces hold the same element."""
    stops: dict[tuple[str, str, int], int] = {}
    for name, kinds, part, _, start, length, _ in sorted(pieces, key=lambda p: (p[0], p[2], p[4])):
        for kind in kinds:
            if start < stops.get((kind, name, part), 0):
                raise CheckpointError(f"{kind} of {name}: two ranks save element {start}.")
            stops[kind, name, part] = start + length


def compact(pieces: list[Piece]) -> dict[str, list[Run]]:
    """Return the runs of every parameter."""
    found: dict[str, list[Run]] = {}
    for name, kinds, part, parts, start, length, rank in sorted(pieces):
        runs = found.setdefault(name, [])
        if runs:
            run = runs[-1]
            if run[:3] == [kinds, part, parts] and run[4] == length:
                first, count = run[5], run[6]
                step = run[7] if count > 1 else rank - first
                follows = run[3] + count * length == start and first + count * step == rank
                if follows and step > 0:
                    run[6:] = [count + 1, step]
                    continue
        runs.append([kinds, part, parts, start, length, rank, 1, 0])
    return found


class Contents:
    """What a checkpoint's index says is stored, of which entries are spelled out when asked for.

    An index of format 3 lists every entry, under ``fragments``.
    """

    def __init__(self, index: Mapping[str, Any]) -> None:
        self._most = len(index.get("files", ()))
        self._runs: dict[str, list[Run]] = index.get("pieces", {})
        self._listed: dict[tuple[str, str], list[Entry]] = {}
        for entry in index.get("fragments", ()):
            self._listed.setdefault((entry["kind"], entry["name"]), []).append(entry)

    @property
    def names(self) -> set[tuple[str, str]]:
        """All (kind, name) of which something is stored."""
        return {*self._listed} | {
            (k, n) for n, runs in self._runs.items() for r in runs for k in r[0]
        }

    def entries(self, kind: str, name: str) -> list[Entry]:
        """Return the pieces of a parameter, in the order of part and start."""
        found = [*self._listed.get((kind, name), ()), *self._spelled_out(kind, name)]
        return sorted(found, key=lambda e: (e["part"], e["start"]))

    def _spelled_out(self, kind: str, name: str) -> Iterator[Entry]:
        for kinds, part, parts, start, length, rank, count, step in self._runs.get(name, ()):
            if kind not in kinds:
                continue
            if count > self._most:
                raise CheckpointError(
                    f"{kind} of {name}: its index tells of more pieces than files."
                )
            for i in range(count):
                yield {
                    "name": name,
                    "kind": kind,
                    "part": part,
                    "parts": parts,
                    "start": start + i * length,
                    "length": length,
                    "file": tensors_name(rank + i * step),
                }
