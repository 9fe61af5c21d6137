"""What a checkpoint is on disk: names of files and folders, sealed JSON, and steps of publishing.

A save has a folder of its own, ``.unfinished-step-00000100-attempt-2-save-3``, that all ranks write
to. One rename makes it ``step-00000100``; another, to ``.failed-...``, tells all ranks that it is
given up. Nothing here knows threads or process groups.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from data.files import replacing, sync, write_text
from trainer.checkpoint.pieces import (
    Entry,
    Piece,
    compact,
    list_pieces,
    refuse_overlaps,
    tensor_key,
    tensors_name,
)

log = logging.getLogger(__name__)
FORMAT = 4
FORMATS = (3, FORMAT)  # that are read
INDEX = "index.json"
LATEST = "latest"
_STEP = re.compile(r"(\.replaced-)?step-(\d+)")
_SAVE = re.compile(r"\.(unfinished|failed)-step-\d+(?:-attempt-(\d+)-save-\d+)?")


@dataclass(frozen=True)
class SaveFolders:
    """The folders of one save in the checkpoints' folder ``root``.

    attempt, count: of the run, and of the save within it: no two saves write to one folder.
    """

    root: Path
    step: int
    attempt: int
    count: int

    @property
    def unfinished(self) -> Path:
        """Where the ranks write."""
        return self.root / f".unfinished-{self._name}"

    @property
    def failed(self) -> Path:
        """What the unfinished folder becomes when the save is given up; it stays, but is empty."""
        return self.root / f".failed-{self._name}"

    @property
    def final(self) -> Path:
        """What the unfinished folder becomes when the save is published."""
        return step_folder(self.root, self.step)

    @property
    def _name(self) -> str:
        return f"step-{self.step:08d}-attempt-{self.attempt}-save-{self.count}"


def step_folder(root: Path, step: int, replaced: bool = False) -> Path:
    """Return where a step's checkpoint lies, or lay until another of the same step replaced it."""
    return root / f"{'.replaced-' if replaced else ''}step-{step:08d}"


def find_steps(root: Path) -> list[tuple[int, bool]]:
    """List (step, replaced) of what could be a checkpoint, the one to try first leading."""
    if not root.is_dir():
        return []
    found = [match for path in root.iterdir() if (match := _STEP.fullmatch(path.name))]
    return sorted(((int(m[2]), bool(m[1])) for m in found), key=lambda s: (-s[0], s[1]))


def listing_name(rank: int) -> str:
    """Return the name of a rank's list of pieces; its presence says that the rank is done."""
    return f"rank-{rank:05d}.json"


def failure_name(rank: int) -> str:
    """Return the name of the file in which a rank tells why it could not write."""
    return f"rank-{rank:05d}.failed"


def write_rank(folder: Path, rank: int, pieces: list[tuple[Entry, Tensor]]) -> None:
    """Write one rank's tensors, then the list of them; both are on the disk when it is visible."""
    path = folder / tensors_name(rank)
    try:
        save_file({tensor_key(entry): tensor for entry, tensor in pieces}, path)
    except SafetensorError as error:  # it wraps I/O errors too
        raise OSError(str(error)) from error
    sync(path)
    listing = {"pieces": list_pieces([e for e, _ in pieces], rank), "file": sha256_file(path)}
    write_text(folder / listing_name(rank), seal(listing))
    sync(folder)


def merge_listings(folder: Path, world: int) -> dict[str, Any]:
    """Return the ``files`` (name -> sha256) and ``pieces`` of all ranks for the index.

    Raise OSError for a list that cannot be read, CheckpointError when two pieces overlap: then the
    layout is wrong and nobody could load what was saved.
    """
    files: dict[str, str] = {}
    pieces: list[Piece] = []
    for rank in range(world):
        path = folder / listing_name(rank)
        try:
            listing = unseal(path.read_text())
        except ValueError as error:
            raise OSError(f"{path}: {error}") from error
        files[tensors_name(rank)] = listing["file"]
        pieces += listing["pieces"]
    refuse_overlaps(pieces)
    return {"files": files, "pieces": compact(pieces)}


def publish(
    save: SaveFolders, world: int, index: dict[str, Any], token: Callable[[], None] | None
) -> None:
    """Write the index, ask the token, and rename the folder: from then on the checkpoint exists.

    Whatever the token raises passes through, and nothing is published.
    """
    folder = save.unfinished
    write_text(folder / INDEX, seal(index))
    for rank in range(world):
        (folder / listing_name(rank)).unlink()
    sync(folder)
    if token is not None:
        token()
    if save.final.exists():
        # The old one of this step stays loadable until the new one has its name.
        aside = step_folder(save.root, save.step, replaced=True)
        shutil.rmtree(aside, ignore_errors=True)
        save.final.rename(aside)
    folder.rename(save.final)


def point_latest(final: Path, token: Callable[[], None] | None = None) -> None:
    """Let ``latest`` name a checkpoint. It is for people; loading looks for the newest good one.

    The token is asked last of all: a process that slept here may have been replaced meanwhile.
    """
    sync(final.parent)  # first the folder's own name: ``latest`` never names what is not there
    with replacing(final.parent / LATEST) as temporary:
        temporary.write_text(final.name, encoding="utf-8")
        sync(temporary)
        if token is not None:
            token()
    sync(final.parent)


def prune(root: Path, published: int, keep: int) -> None:
    """Remove what the checkpoint of step ``published`` makes superfluous, but for ``keep`` of them.

    Checkpoints of later steps go too: the run fell back behind them because they are damaged, or
    was rewound, and a resume must not continue the history that was left.
    """
    steps = find_steps(root)
    kept = [s for s, replaced in steps if s <= published and not replaced][: max(keep, 1)]
    for step, replaced in steps:
        if step > published:
            log.warning("checkpoint of step %d: removed, the run goes on from %d", step, published)
        if replaced or step not in kept:
            shutil.rmtree(step_folder(root, step, replaced), ignore_errors=True)


def give_up(save: SaveFolders, world: int) -> None:
    """End a save for all ranks: its folder becomes ``.failed-...`` and gives its space back."""
    if world == 1:
        shutil.rmtree(save.unfinished, ignore_errors=True)
        return
    try:
        save.unfinished.rename(save.failed)
    except FileNotFoundError:  # nobody came as far as making it
        save.failed.mkdir(parents=True, exist_ok=True)
    for path in save.failed.iterdir():
        path.unlink(missing_ok=True)


def remove_leftovers(root: Path, attempt: int, rank: int, world: int) -> None:
    """Remove what saves that nobody will finish left; every rank calls it before its first save.

    Earlier attempts' folders go altogether. In one of this attempt other ranks may write already,
    so a rank removes no more than the files that it wrote itself in another life.
    """
    if not root.is_dir():
        return
    for path in root.iterdir():
        match = _SAVE.fullmatch(path.name)
        if match is None or int(match[2] or 0) > attempt:
            continue
        ended = int(match[2] or 0) < attempt or match[1] == "failed" or world == 1
        if ended and rank == 0:
            shutil.rmtree(path, ignore_errors=True)
        elif not ended:
            for name in (listing_name(rank), failure_name(rank), tensors_name(rank)):
                (path / name).unlink(missing_ok=True)


def seal(content: dict[str, Any]) -> str:
    """Return JSON with a checksum of itself."""
    text = json.dumps(content)
    return json.dumps(content | {"sha256": hashlib.sha256(text.encode()).hexdigest()})


def unseal(text: str) -> dict[str, Any]:
    """Return what was sealed; raise ValueError when any byte of it changed."""
    content = json.loads(text)
    if not isinstance(content, dict) or content.pop("sha256", None) is None:
        raise ValueError("is damaged (has no checksum)")
    if seal(content) != text:
        raise ValueError("is damaged (checksum differs)")
    return content


def sha256_file(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
