"""Checkpoints that exist or do not: fragments in safetensors, a JSON index with checksums.

``checkpoints/step-00000100/`` holds one safetensors file a rank and ``index.json``. Training waits
for a copy of its tensors only; a thread of each rank writes them to a temporary folder, the main
rank's thread waits for all and renames it. The threads speak through files alone: collectives of a
thread would mix with those of the training step.
"""

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.files import write_text
from trainer.checkpoint.files import (
    FORMAT,
    SaveFolders,
    failure_name,
    give_up,
    listing_name,
    merge_listings,
    point_latest,
    prune,
    publish,
    remove_leftovers,
    write_rank,
)
from trainer.checkpoint.pieces import CheckpointError, Entry
from trainer.checkpoint.read import Loaded, load_latest, verify
from trainer.config import CheckpointConfig
from trainer.layout.plan import Fragment
from trainer.parallel.mesh import Mesh
from trainer.run.session import Session

__all__ = ["CheckpointError", "CheckpointWriter", "Loaded", "load_latest", "open_writer", "verify"]

log = logging.getLogger(__name__)


class CheckpointWriter:
    """Saves checkpoints of one attempt at a run, one at a time.

    Every rank makes one and calls ``save`` with the same steps. keep: good checkpoints that stay.
    background: write in a thread. token: called on the main rank right before a checkpoint is
    published; it raises when another attempt has taken over the run. attempt: the same on all ranks
    and larger than that of all earlier attempts at the run. timeout_seconds: how long the main rank
    waits for the others.

    blocked_seconds: that training waited in ``save`` and ``wait``; write_seconds: of writing.
    """

    def __init__(
        self,
        folder: Path,
        mesh: Mesh,
        keep: int,
        background: bool,
        token: Callable[[], None] | None = None,
        attempt: int = 0,
        timeout_seconds: float = 600.0,
    ) -> None:
        self.folder, self.keep, self.attempt = folder, keep, attempt
        self.blocked_seconds = self.write_seconds = 0.0
        self._rank, self._world, self._is_main = mesh.rank, mesh.world, mesh.is_main
        self._background, self._token, self._timeout = background, token, timeout_seconds
        self._staging = _Staging()
        self._count = 0
        self._job: _Job | None = None
        self._published: Path | None = None
        remove_leftovers(folder, attempt, mesh.rank, mesh.world)

    def save(self, step: int, fragments: Iterable[Fragment], state: dict[str, Any]) -> None:
        """Save this rank's fragments, and on the main rank the JSON ``state``.

        Wait for the previous save, copy, and leave the rest to the thread. A failure (a full disk,
        say) is logged, and :meth:`wait` returns None. What the token raises is raised here, for the
        previous save, or in :meth:`wait`.
        """
        self.wait()
        started = time.monotonic()
        self._count += 1
        save = SaveFolders(self.folder, step, self.attempt, self._count)
        pieces = self._staging.copy(fragments)
        frozen = json.loads(json.dumps(state))  # training goes on and changes it
        self._job = _Job(save, lambda: self._write(save, pieces, frozen))
        if self._background:
            self._job.start()
        else:
            self._job.run()
        self.blocked_seconds += time.monotonic() - started
        if not self._background:
            self.wait()

    @property
    def is_busy(self) -> bool:
        """Whether the last save is still being written by this rank."""
        return self._job is not None and self._job.is_alive()

    def wait(self) -> Path | None:
        """Wait for the last save; return the checkpoint, or None when any rank could not write."""
        job, self._job = self._job, None
        if job is not None:
            started, self._published = time.monotonic(), None
            try:
                self._published = self._outcome(job)
            finally:
                self.blocked_seconds += time.monotonic() - started
        return self._published

    def _outcome(self, job: "_Job") -> Path | None:
        """Return the checkpoint when it was published, as the main rank decided it."""
        if job.ident is not None:
            job.join()
        if job.error is not None:
            raise job.error
        save = job.save
        if not job.done or self._is_main:
            return save.final if job.done else None
        # Longer than the main rank waits, so that it decides.
        for _ in _polls(2 * self._timeout):
            gone = not save.unfinished.exists()  # looked at first: it is renamed to one of the two
            if save.failed.exists():
                shutil.rmtree(save.unfinished, ignore_errors=True)  # we came after the decision
                return None
            if gone and save.final.exists():
                return save.final
        log.error("checkpoint of step %d: the main rank does not answer.", save.step)
        return None

    def _write(
        self, save: SaveFolders, pieces: list[tuple[Entry, Tensor]], state: dict[str, Any]
    ) -> bool:
        """Do this rank's part; tell whether it is done (on the main rank: published)."""
        started = time.monotonic()
        try:
            save.unfinished.mkdir(parents=True, exist_ok=True)
            write_rank(save.unfinished, self._rank, pieces)
            if self._is_main:
                self._finish(save, state)
        except BaseException as error:
            log.error("checkpoint of step %d failed: %s. The previous one stays.", save.step, error)
            with suppress(OSError):
                self._tell_failure(save, str(error))
            if not isinstance(error, OSError):
                raise
            return False
        finally:
            self.write_seconds += time.monotonic() - started
        return True

    def _finish(self, save: SaveFolders, state: dict[str, Any]) -> None:
        """Wait for all ranks, publish, and tidy up; on the main rank."""
        self._await_ranks(save.unfinished)
        merged = merge_listings(save.unfinished, self._world)
        index = {"format": FORMAT, "step": save.step} | merged | {"state": state}
        publish(save, self._world, index, self._token)
        try:
            point_latest(save.final, self._token)
            if self._token is not None:
                self._token()  # who was replaced must not remove the steps of the other
            prune(self.folder, save.step, self.keep)
        except OSError as error:  # it exists all the same, and other ranks may know it already
            log.warning("checkpoint of step %d is saved, tidying up failed: %s", save.step, error)

    def _await_ranks(self, folder: Path) -> None:
        """Return when every rank has listed its file; raise OSError when one failed or is late."""
        missing = set(range(self._world))
        for _ in _polls(self._timeout):
            names = set(os.listdir(folder))
            for rank in sorted(missing):
                if failure_name(rank) in names:
                    reason = (folder / failure_name(rank)).read_text()
                    raise OSError(f"rank {rank} could not write: {reason}")
            missing = {rank for rank in missing if listing_name(rank) not in names}
            if not missing:
                return
        late = ", ".join(str(rank) for rank in sorted(missing)[:16])
        raise TimeoutError(f"no word from ranks {late} in {self._timeout:.0f} s")

    def _tell_failure(self, save: SaveFolders, reason: str) -> None:
        if self._is_main:
            give_up(save, self._world)
            return
        path = save.unfinished / failure_name(self._rank)
        try:
            write_text(path, reason)
        except OSError:
            path.touch()  # an empty file fits on a full disk
        if save.failed.exists():  # given up already, and another late rank made the folder anew
            shutil.rmtree(save.unfinished, ignore_errors=True)


class _Job(threading.Thread):
    """One save in a thread, which dies with the process: an unfinished save is no loss."""

    def __init__(self, save: SaveFolders, work: Callable[[], bool]) -> None:
        super().__init__(name=f"checkpoint-{save.step}", daemon=True)
        self.save, self._work = save, work
        self.done = False
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do the work, keep its answer or what it raised."""
        try:
            self.done = self._work()
        except BaseException as error:  # noqa: BLE001 - carried to wait(), which raises it
            self.error = error


class _Staging:
    """Host memory that tensors are copied to, kept from save to save; page-locked beside a GPU."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def copy(self, fragments: Iterable[Fragment]) -> list[tuple[Entry, Tensor]]:
        """Copy all tensors of the fragments; return what each is, and the copy."""
        found: list[tuple[Entry, Tensor]] = []
        for fragment in fragments:
            about = {"name": fragment.name, "part": fragment.part, "parts": fragment.parts}
            for kind, tensor in fragment.tensors.items():
                entry = about | {"kind": kind, "start": fragment.start, "length": tensor.numel()}
                if tensor.numel():
                    found.append((entry, tensor.detach()))
        # The widest first: every tensor then starts at a multiple of its element's size.
        found.sort(key=lambda item: -item[1].element_size())
        size, on_gpu = sum(t.nbytes for _, t in found), any(t.is_cuda for _, t in found)
        if len(self._memory) != size:
            self._memory = torch.empty(0, dtype=torch.uint8)  # frees the old before the new
            self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=on_gpu)
        copies, start = [], 0
        for entry, tensor in found:
            copy = self._memory[start : start + tensor.nbytes].view(tensor.dtype)
            copies.append((entry, copy.copy_(tensor.reshape(-1), non_blocking=True)))
            start += tensor.nbytes
        if on_gpu:
            torch.cuda.synchronize()
        return copies


def _polls(seconds: float) -> Iterator[None]:
    """Yield now and then for a time, at last once more after it; the pauses grow to a second."""
    end, pause = time.monotonic() + seconds, 0.01
    while time.monotonic() < end:
        yield
        time.sleep(min(pause, max(end - time.monotonic(), 0)))
        pause = min(1.5 * pause, 1.0)
    yield


def open_writer(session: Session, mesh: Mesh, policy: CheckpointConfig) -> CheckpointWriter:
    """Return the writer of an attempt's checkpoints."""
    return CheckpointWriter(
        session.folder / "checkpoints",
        mesh,
        policy.keep,
        policy.background,
        token=session.check,
        attempt=session.attempt,
    )
