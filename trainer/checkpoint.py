"""Checkpoints that exist or do not: fragments in safetensors, a JSON index with checksums.

``checkpoints/step-00000100/`` holds one safetensors file a rank and ``index.json``. It is written
in a temporary folder, synced and renamed; ``latest`` names it last. Loading verifies checksums and
falls back to the previous good one. Fragments carry (parameter, start), so any number of ranks and
any ZeRO stage can read what another wrote. Nothing is ever unpickled.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainer.parallel.engine import Fragment
from trainer.parallel.layout import Layout

log = logging.getLogger(__name__)
FORMAT = 2


class CheckpointError(ValueError):
    """A checkpoint that cannot be trusted, with the file and the reason."""


@dataclass(frozen=True)
class Loaded:
    """A verified checkpoint: its folder and its index."""

    folder: Path
    index: dict[str, Any]

    @property
    def state(self) -> dict[str, Any]:
        """The JSON state that was saved beside the tensors."""
        return self.index["state"]

    def tensors(self, kind: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Assemble full tensors of one kind (``param``, ``exp_avg``, ``exp_avg_sq``, ``ema``)."""
        full = {name: torch.zeros(shape).view(-1) for name, shape in shapes.items()}
        filled = dict.fromkeys(full, 0)
        for entry, tensor in self._entries(kind):
            name, start = entry["name"], entry["start"]
            if name not in full or start + len(tensor) > len(full[name]):
                raise CheckpointError(
                    f"{self.folder}: parameter {name} does not fit this model. "
                    "Resume with the config in the run folder."
                )
            full[name][start : start + len(tensor)] = tensor
            filled[name] += len(tensor)
        missing = [name for name in full if filled[name] != len(full[name])]
        if missing:
            raise CheckpointError(f"{self.folder}: {kind} of {missing[0]} is incomplete.")
        return {name: flat.view(shapes[name]) for name, flat in full.items()}

    def _entries(self, kind: str) -> Iterator[tuple[dict[str, Any], Tensor]]:
        for file in self.index["files"]:
            with safe_open(self.folder / file, framework="pt") as tensors:
                for entry in self.index["fragments"]:
                    if entry["file"] == file and entry["kind"] == kind:
                        yield entry, tensors.get_tensor(_tensor_key(entry))


def save_checkpoint(
    folder: Path,
    layout: Layout,
    step: int,
    fragments: list[Fragment],
    state: dict[str, Any],
    keep: int,
) -> Path | None:
    """Save this rank's fragments; return the checkpoint, or None when any rank could not write.

    A failure (a full disk, say) is logged, the unfinished folder is removed and the last good
    checkpoint stays. Collective: all ranks call it.
    """
    final, temporary = folder / f"step-{step:08d}", folder / f".unfinished-step-{step:08d}"
    error = None
    if layout.is_main:
        shutil.rmtree(temporary, ignore_errors=True)
        error = _attempt(lambda: temporary.mkdir(parents=True, exist_ok=True))
    if layout.any(error is not None):  # a barrier too: nobody writes before the folder is there
        _give_up(layout, temporary, step, error)
        return None
    error = _attempt(lambda: _write_rank(temporary, layout.rank, fragments))
    if layout.any(error is not None):
        _give_up(layout, temporary, step, error)
        return None
    if layout.is_main:
        error = _attempt(lambda: _publish(temporary, final, step, layout.world, state))
    if layout.any(error is not None):
        _give_up(layout, temporary, step, error)
        return None
    if layout.is_main:
        _prune(folder, keep)
    return final


def load_latest(folder: Path) -> Loaded | None:
    """Return the newest checkpoint that verifies, or None when there is none.

    Damaged ones are logged by file and skipped.
    """
    if not folder.is_dir():
        return None
    steps = sorted((p for p in folder.iterdir() if p.name.startswith("step-")), reverse=True)
    for candidate in steps:
        try:
            return verify(candidate)
        except CheckpointError as error:
            log.warning("%s Falling back to the previous checkpoint.", error)
    if steps:
        log.warning("checkpoints=%s: none verifies. Starting from step 0.", folder)
    return None


def verify(checkpoint: Path) -> Loaded:
    """Check format and checksums of a checkpoint; raise CheckpointError naming the file."""
    try:
        index = json.loads((checkpoint / "index.json").read_text())
        form = index["format"]
        digest, files = index.pop("sha256"), dict(index["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{checkpoint}/index.json: cannot be read ({error}).") from error
    if digest != _sha256_text(json.dumps(index)):
        raise CheckpointError(f"{checkpoint}/index.json: is damaged (checksum differs).")
    if form != FORMAT:
        raise CheckpointError(f"{checkpoint}: format={form}: must be {FORMAT}.")
    for name, digest in files.items():
        path = checkpoint / name
        if Path(name).name != name or not path.is_file() or _sha256(path) != digest:
            raise CheckpointError(f"{path}: is missing or damaged (checksum differs).")
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise CheckpointError(f"{path}: is not a safetensors file ({error}).") from error
    return Loaded(checkpoint, index)


def _write_rank(folder: Path, rank: int, fragments: list[Fragment]) -> None:
    """Write one rank's tensors and the list of them, both synced to disk."""
    file = f"rank-{rank:05d}.safetensors"
    entries, tensors = [], {}
    for fragment in fragments:
        for kind, tensor in fragment.tensors.items():
            entry = {"name": fragment.name, "kind": kind, "start": fragment.start, "file": file}
            entries.append(entry)
            tensors[_tensor_key(entry)] = tensor.detach().to("cpu").contiguous()
    path = folder / file
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # it wraps I/O errors too
        raise OSError(str(error)) from error
    _sync(path)
    listing = {"entries": entries, "sha256": _sha256(path)}
    _write_text(folder / f"rank-{rank:05d}.json", json.dumps(listing))


def _publish(temporary: Path, final: Path, step: int, world: int, state: dict[str, Any]) -> None:
    """Merge the ranks' lists into the index, rename the folder, then move ``latest``."""
    files: dict[str, str] = {}
    entries: list[dict[str, Any]] = []
    for rank in range(world):
        path = temporary / f"rank-{rank:05d}.json"
        listing = json.loads(path.read_text())
        files[f"rank-{rank:05d}.safetensors"] = listing["sha256"]
        entries += listing["entries"]
        path.unlink()
    index = {"format": FORMAT, "step": step, "files": files, "fragments": entries, "state": state}
    digest = _sha256_text(json.dumps(index))
    _write_text(temporary / "index.json", json.dumps(index | {"sha256": digest}))
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _sync(final.parent)
    pointer = final.parent / "latest.tmp"
    _write_text(pointer, final.name)
    pointer.replace(final.parent / "latest")
    _sync(final.parent)


def _attempt(write: Any) -> OSError | None:
    try:
        write()
    except OSError as error:
        return error
    return None


def _give_up(layout: Layout, temporary: Path, step: int, error: OSError | None) -> None:
    if error is not None:
        log.error("checkpoint of step %d failed: %s. The previous one stays.", step, error)
    layout.barrier()
    if layout.is_main:
        shutil.rmtree(temporary, ignore_errors=True)


def _prune(folder: Path, keep: int) -> None:
    steps = sorted(p for p in folder.iterdir() if p.name.startswith("step-"))
    for old in steps[: -max(keep, 1)]:
        shutil.rmtree(old, ignore_errors=True)


def _tensor_key(entry: dict[str, Any]) -> str:
    return f"{entry['kind']}:{entry['name']}:{entry['start']}"


def _write_text(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
