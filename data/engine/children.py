"""Run jobs in child processes that can be killed: hostile media must not take the parent along."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Generic, TypeVar

from data.shell import NO_ROOM, deaf_children

Job = TypeVar("Job")
POLL_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Outcome(Generic[Job]):
    """What became of one job: its value, or what killed the child that ran it."""

    job: Job
    value: Any = None
    death: str = ""


class ChildError(RuntimeError):
    """A job raised something it does not handle: our own bug, shown with the child's traceback."""


def serve(function: Callable[[Any], Any], pipe: Connection, memory_bytes: int) -> None:
    """Answer jobs until the pipe closes; a parent that is killed takes this process along."""
    _die_with_parent()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    if memory_bytes:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = pipe.recv()
            answer: tuple[bool, Any]
            try:
                answer = (True, function(job))
            except OSError as error:
                # A disk that is full is no bug: the parent says it in a line.
                answer = (False, error if error.errno in NO_ROOM else traceback.format_exc())
            except Exception:  # noqa: BLE001 - carried to the parent, which raises it
                answer = (False, traceback.format_exc())
            pipe.send(answer)


def _die_with_parent() -> None:
    """Lead a group of processes that ends with the parent, which may be killed in mid-job.

    The group holds what a job starts, as the engine of a simulator.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        os.killpg(0, signal.SIGKILL)

    os.setpgrp()
    signal.signal(signal.SIGTERM, leave)
    libc, parent = ctypes.CDLL(None), multiprocessing.parent_process()
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)  # it died before it was asked for


@dataclass
class Child(Generic[Job]):
    """One child process and the job it is on."""

    process: BaseProcess
    pipe: Connection
    job: Job | None = None
    started: float = 0.0

    def kill(self) -> None:
        """End the child at once, with what it started, and wait for it."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):  # it leads no group yet
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_in_children(
    function: Callable[[Job], Any],
    jobs: Sequence[Job],
    num_workers: int,
    timeout_seconds: float,
    memory_bytes: int = 0,
    on_wait: Callable[[], None] = lambda: None,
    last_pulse: Callable[[Job], float] = lambda job: 0.0,
) -> Iterator[Outcome[Job]]:
    """Yield outcomes as jobs finish; ``function`` and jobs must be picklable.

    A job that has shown nothing for ``timeout_seconds`` or whose child dies is reported in
    ``Outcome.death`` and the child is replaced. ``last_pulse`` tells when a job last showed that it
    is at work, in seconds of the epoch; its start counts as such. Children get ``memory_bytes`` of
    address space (0: no limit). Raises ChildError if the function itself raises, OSError where a
    disk is full. ``on_wait`` is called at least twice a second.
    """
    context = multiprocessing.get_context("spawn")
    waiting = deque(jobs)
    children: list[Child[Job]] = []

    def start() -> Child[Job]:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(function, theirs, memory_bytes), daemon=True)
        resource_tracker.ensure_running()  # when first started it would unblock SIGINT
        with deaf_children():
            process.start()
        theirs.close()
        return Child(process, ours)

    try:
        while waiting or any(child.job is not None for child in children):
            at_work = sum(child.job is not None for child in children)
            # Importing what decodes takes half a second: no child starts without a job.
            while len(children) < min(num_workers, at_work + len(waiting)):
                children.append(start())
            for child in children:
                if child.job is None and waiting:
                    child.job, child.started = waiting.popleft(), time.monotonic()
                    child.pipe.send(child.job)
            busy = [child for child in children if child.job is not None]
            ready = wait([child.pipe for child in busy], timeout=POLL_SECONDS)
            on_wait()
            for child in busy:
                outcome = collect(child, child.pipe in ready, timeout_seconds, last_pulse)
                if outcome is None:
                    continue
                if outcome.death:
                    child.kill()
                    children.remove(child)
                yield outcome
    finally:
        for child in children:
            child.kill()


def collect(
    child: Child[Job],
    ready: bool,
    timeout_seconds: float,
    last_pulse: Callable[[Job], float] = lambda job: 0.0,
) -> Outcome[Job] | None:
    """Take a child's answer if there is one; None while it is still at work."""
    job = child.job
    assert job is not None
    if ready:
        try:
            fine, value = child.pipe.recv()
        except (EOFError, ConnectionResetError):
            child.process.join(5)
            return Outcome(job, death=f"the decoder died (exit code {child.process.exitcode})")
        if isinstance(value, OSError) and not fine:
            raise value
        if not fine:
            raise ChildError(f"{job}\n{value}")
        child.job = None
        return Outcome(job, value)
    silent = min(time.monotonic() - child.started, time.time() - last_pulse(job))
    if silent > timeout_seconds:
        return Outcome(job, death=f"not read within timeout_seconds={timeout_seconds:g}")
    return None
