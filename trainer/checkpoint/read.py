"""Reading checkpoints: find the newest one that verifies, and put its pieces together.

Pieces are stored as (parameter, tensor part, start), so a checkpoint of any layout is read under
any other. Nothing is ever unpickled.
"""

import logging
from collections import OrderedDict
from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.architecture import Specification, Split
from trainer.checkpoint.files import (
    FORMAT,
    FORMATS,
    INDEX,
    find_steps,
    sha256_file,
    step_folder,
    unseal,
)
from trainer.checkpoint.pieces import CheckpointError, Contents, Entry, tensor_key
from trainer.parallel.mesh import Mesh, alone

log = logging.getLogger(__name__)
_OPEN_FILES = 16  # a parameter's pieces lie in few files; thousands of ranks wrote thousands


@dataclass(frozen=True)
class Loaded:
    """A verified checkpoint: its folder and its index."""

    folder: Path
    index: dict[str, Any]

    @property
    def state(self) -> dict[str, Any]:
        """The JSON state that was saved beside the tensors."""
        return self.index["state"]

    def tensor(
        self, kind: str, name: str, shape: tuple[int, ...], split: Split | None = None
    ) -> Tensor:
        """Assemble one full parameter of a kind (``param``, ``exp_avg``, ``exp_avg_sq``, ``ema``).

        split: how tensor parallelism cuts it, see ``models.architecture.Specification.cuts``.
        Read only what belongs to it. Raise CheckpointError when the stored pieces do not make up
        exactly a parameter of this shape.
        """
        entries = self.contents.entries(kind, name)
        if not entries:
            raise CheckpointError(f"{self.folder}: {kind} of {name} is incomplete.")
        parts = entries[0]["parts"]
        if any(entry["parts"] != parts or entry["part"] >= parts for entry in entries):
            raise CheckpointError(f"{self.folder}: {kind} of {name} is a mix of tensor layouts.")
        if parts == 1 or split is None:
            if parts > 1:
                raise self._misfit(name)
            return self._part(entries, 0, prod(shape)).view(shape)
        if split.dim >= len(shape) or shape[split.dim] % (split.groups * parts):
            raise self._misfit(name)
        part_shape = split.shape(shape, parts)
        size = prod(part_shape)
        return split.join(
            [self._part(entries, part, size).view(part_shape) for part in range(parts)]
        )

    def stored_part(
        self, of: "Stored", index: int, count: int, start: int, length: int
    ) -> Tensor | None:
        """Read some elements of a parameter stored in ``count`` parts; None if it is in others."""
        entries = self.contents.entries(of.kind, of.name)
        if not entries or any(entry["parts"] != count for entry in entries):
            return None
        whole = of.split is None or count == 1
        shape = of.shape if whole or of.split is None else of.split.shape(of.shape, count)
        return self._part(entries, index, prod(shape), start, length)

    def tensors(
        self,
        kind: str,
        shapes: dict[str, tuple[int, ...]],
        cuts: Mapping[str, Split] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Assemble all parameters of one kind; refuse parameters that are not in ``shapes``."""
        self.refuse_others(kind, shapes)
        return {n: self.tensor(kind, n, shape, cuts.get(n)) for n, shape in shapes.items()}

    def refuse_others(self, kind: str, names: Container[str]) -> None:
        """Raise CheckpointError for a stored parameter of a kind that is not among ``names``."""
        for stored_kind, name in self.contents.names:
            if stored_kind == kind and name not in names:
                raise self._misfit(name)

    @cached_property
    def contents(self) -> Contents:
        """What is stored, and where."""
        return Contents(self.index)

    @cached_property
    def _files(self) -> "_OpenFiles":
        return _OpenFiles(self.folder)

    def _part(
        self, entries: list[Entry], part: int, size: int, start: int = 0, length: int | None = None
    ) -> Tensor:
        """Read elements [start, start + length) of a tensor part, by default all of its ``size``.

        Refuse pieces that do not cover the part exactly once, whether they are read or not.
        """
        stop, place, pieces = size if length is None else start + length, 0, []
        what = f"{self.folder}: {entries[0]['kind']} of {entries[0]['name']}"
        for entry in entries:
            if entry["part"] != part:
                continue
            if entry["start"] + entry["length"] > size:
                raise self._misfit(entry["name"])
            if entry["start"] < place:
                raise CheckpointError(f"{what} is stored twice from element {entry['start']}.")
            if entry["start"] > place:
                break
            first, last = max(start, place) - place, min(stop - place, entry["length"])
            if first < last:
                pieces.append(self._piece(entry, first, last))
            place += entry["length"]
        if place < size:
            raise CheckpointError(f"{what} is incomplete from element {place} of part {part}.")
        return torch.cat(pieces)  # a copy: what is read maps the file

    def _piece(self, entry: Entry, first: int, last: int) -> Tensor:
        path, key = self.folder / entry["file"], tensor_key(entry)
        try:
            stored = self._files.open(entry["file"]).get_slice(key)
            shape, piece = stored.get_shape(), stored[first:last]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: {key} cannot be read ({error}).") from error
        if shape != [entry["length"]]:
            raise CheckpointError(f"{path}: {key} is not as long as the index says.")
        return piece

    def _misfit(self, name: str) -> CheckpointError:
        return CheckpointError(
            f"{self.folder}: parameter {name} does not fit this model. "
            "Resume with the config in the run folder."
        )


@dataclass(frozen=True)
class Stored:
    """A parameter of a checkpoint, of which no more is read than is asked for.

    split: how tensor parallelism cuts it, if at all.
    """

    loaded: Loaded
    kind: str
    name: str
    shape: tuple[int, ...]
    split: Split | None

    def piece(self, cut: Split | None, index: int, count: int, start: int, length: int) -> Tensor:
        """Return elements [start, start + length) of part ``index`` of ``count``, flat.

        Where it was stored in other parts it is put together first.
        """
        part = self.loaded.stored_part(self, index, count, start, length)
        if part is not None:
            return part
        full = self.loaded.tensor(self.kind, self.name, self.shape, self.split)
        own = full if cut is None else cut.cut(full, index, count)
        return own.reshape(-1)[start : start + length]


def stored_values(
    loaded: Loaded, facts: Specification, kind: str, names: Collection[str]
) -> Iterator[tuple[str, Stored]]:
    """Yield the wanted parameters of a checkpoint, which read what is asked of them."""
    for name, shape in facts.shapes.items():
        if name in names:
            yield name, Stored(loaded, kind, name, shape, facts.cuts.get(name))


class _OpenFiles:
    """The files of a folder that were read last, kept open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: OrderedDict[str, Any] = OrderedDict()

    def open(self, name: str) -> Any:
        """Return a file for reading, opening it when it is not open yet."""
        if name not in self._open:
            if len(self._open) == _OPEN_FILES:
                self._open.popitem(last=False)
            self._open[name] = safe_open(self._folder / name, framework="pt")
        self._open.move_to_end(name)
        return self._open[name]


def load_latest(folder: Path, mesh: Mesh | None = None) -> Loaded | None:
    """Return the newest checkpoint that verifies, the same on every rank, or None.

    Damaged ones are logged by file, on the rank that saw it, and skipped. The ranks share the work
    of verifying. Collective where a mesh of several ranks is given.
    """
    mesh = mesh or alone()
    candidates = 0
    for checkpoint in _agreed_candidates(folder, mesh):
        candidates += 1
        loaded = None
        try:
            loaded = verify(checkpoint, mesh.rank, mesh.world)
        except CheckpointError as error:
            log.warning("%s Falling back to the previous checkpoint.", error)
        if not mesh.any(loaded is None):
            return loaded
    if candidates and mesh.is_main:
        log.warning("checkpoints=%s: none verifies. Starting from step 0.", folder)
    return None


def _agreed_candidates(folder: Path, mesh: Mesh) -> Iterator[Path]:
    """Yield on every rank the checkpoints that the main rank sees, the newest first.

    On a network file system ranks may see different listings, and each must try the same ones.
    """
    steps = iter(find_steps(folder)) if mesh.is_main else iter(())
    while True:
        proposed = next(steps, (-1, False)) if mesh.is_main else (0, False)
        step, replaced = mesh.sum(*proposed)  # the others add nothing
        if step < 0:
            return
        yield step_folder(folder, int(step), bool(replaced))


def verify(checkpoint: Path, rank: int = 0, world: int = 1) -> Loaded:
    """Check format and checksums of a checkpoint; raise CheckpointError naming the file.

    Of ``world`` ranks each checks the index and its share of the other files.
    """
    try:
        index = unseal((checkpoint / INDEX).read_text())
        form, files = index["format"], index["files"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{checkpoint}/{INDEX}: cannot be read ({error}).") from error
    if form not in FORMATS:
        raise CheckpointError(f"{checkpoint}: format={form}: must be {FORMAT} (or 3, of before).")
    for name in sorted(files)[rank::world]:
        _verify_file(checkpoint, name, files[name])
    return Loaded(checkpoint, index)


def _verify_file(checkpoint: Path, name: str, digest: str) -> None:
    path = checkpoint / name
    try:
        if Path(name).name != name or sha256_file(path) != digest:
            raise CheckpointError(f"{path}: is damaged (checksum differs).")
        with safe_open(path, framework="pt"):
            pass
    except OSError as error:
        raise CheckpointError(f"{path}: is missing or unreadable ({error}).") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: is not a safetensors file ({error}).") from error
