"""Faults that a rank brings upon itself at a chosen moment; installed before it trains.

Each is a value that pickles and is called in the rank's process. Functions are wrapped where the
trainer looks them up, so what runs until the fault, and on the other ranks, is the trainer's own.
"""

import importlib
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import torch

from data.loading.batch import Step
from data.loading.loader import Loader
from trainer.checkpoint.write import CheckpointWriter
from trainer.diffusion.loop import Training


def wrap(where: str, around: Callable[..., Any]) -> None:
    """Replace ``module:name.name``: ``around(original, *args, **kwargs)`` is called instead."""
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original = getattr(owner, name)

    def replacement(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, replacement)


@dataclass(frozen=True)
class Signal:
    """Send this process a signal right before, or after, the n-th call of a function."""

    number: int
    where: str
    call: int = 1
    after: bool = False

    def __call__(self) -> None:
        """Install it."""
        calls = iter(range(1, 10**9))

        def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            due = next(calls) == self.call
            if due and not self.after:
                os.kill(os.getpid(), self.number)
            result = original(*args, **kwargs)
            if due and self.after:
                os.kill(os.getpid(), self.number)
            return result

        wrap(self.where, around)


def kill(where: str, call: int = 1, after: bool = False) -> Signal:
    """Return kill -9 at a moment."""
    return Signal(signal.SIGKILL, where, call, after)


@dataclass(frozen=True)
class Corrupt:
    """Multiply latents by a factor: those of the samples named, or of all in the steps named."""

    factor: float
    keys: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def __call__(self) -> None:
        """Install it."""

        def around(original: Callable[[Loader], Step], loader: Loader) -> Step:
            step = original(loader)
            for sample in (s for pack in step.packs for s in pack.samples):
                if sample.info.key in self.keys or step.index in self.steps:
                    assert sample.latent is not None
                    sample.latent = (sample.latent.float() * self.factor).to(torch.float32)
            return step

        wrap("data.loading.loader:Loader.next_step", around)


@dataclass(frozen=True)
class FullDisk:
    """Let no file of the saves of these numbers grow beyond a few bytes."""

    saves: list[int]
    limit_bytes: int = 2048

    def __call__(self) -> None:
        """Install it."""
        calls = iter(range(1, 10**9))

        def around(original: Callable[..., Any], *args: Any) -> Any:
            if next(calls) not in self.saves:
                return original(*args)
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit_bytes, before[1]))
            try:
                return original(*args)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

        wrap("trainer.checkpoint.write:write_rank", around)


@dataclass(frozen=True)
class Fill:
    """Fill a file system with a file of zeros during the saves of these numbers."""

    folder: Path
    saves: list[int]

    def __call__(self) -> None:
        """Install it."""
        calls = iter(range(1, 10**9))

        def around(original: Callable[..., Any], *args: Any) -> Any:
            ballast = self.folder / "ballast"
            if next(calls) not in self.saves:
                ballast.unlink(missing_ok=True)
                return original(*args)
            with ballast.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError:
                    pass
            return original(*args)

        wrap("trainer.checkpoint.write:write_rank", around)


@dataclass(frozen=True)
class Machine:
    """Be a process of another machine, whose lock and clock nobody else sees."""

    host: str
    lease_seconds: float = 1.0

    def __call__(self) -> None:
        """Install it."""
        wrap("trainer.run.lease:_boot", lambda original: f"boot of {self.host}")
        wrap(
            "trainer.run.lease:Fence.take",
            lambda original, folder, ended: original(folder, self.lease_seconds, self.host),
        )


@dataclass(frozen=True)
class Slow:
    """Take at least so long for a step."""

    seconds: float

    def __call__(self) -> None:
        """Install it."""

        def around(original: Callable[..., Any], *args: Any) -> Any:
            time.sleep(self.seconds)
            return original(*args)

        wrap("trainer.diffusion.loop:accumulate", around)


@dataclass(frozen=True)
class Both:
    """Several faults in one process."""

    faults: tuple[Callable[[], None], ...]

    def __call__(self) -> None:
        """Install them."""
        for fault in self.faults:
            fault()


@dataclass(frozen=True)
class KeepRewound:
    """Save what is in memory right after a rewind to a folder beside the run's, as a step."""

    step: int

    def __call__(self) -> None:
        """Install it."""

        def around(original: Callable[[Training], None], training: Training) -> None:
            original(training)
            writer, progress = training._writer, training.progress
            folder = training.folder.with_name(f"{training.folder.name}-rewound")
            folder.mkdir(exist_ok=True)
            if training.mesh.is_main:
                (folder / "config.yaml").write_bytes((training.folder / "config.yaml").read_bytes())
            training._writer = CheckpointWriter(folder / "checkpoints", training.mesh, 1, False)
            training.progress = replace(progress, step=self.step)
            training.save()
            assert training.finish_save()
            training._writer, training.progress = writer, progress

        wrap("trainer.diffusion.loop:Training._rewind", around)


@dataclass(frozen=True)
class InfiniteGradient:
    """Make the gradients of the n-th backward pass infinite; the loss stays what it is."""

    call: int

    def __call__(self) -> None:
        """Install it."""
        calls = iter(range(1, 10**9))

        def around(original: Callable[..., Any], engine: Any, error: torch.Tensor, *a: Any) -> None:
            original(engine, error * inf if next(calls) == self.call else error, *a)

        wrap("trainer.parallel.engine:Engine.backward_loss", around)
