"""Who does the jobs of a dataset: this process and its children, or the nodes of a Ray cluster.

A job writes files of its own under names that no other attempt has, so that what two nodes do
after all is still whole. What it writes depends on the job alone: both engines give the same bytes.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from data.config import Engine, IngestConfig
from data.dataset.part import attempt_name
from data.engine.children import run_in_children

CHILD_MEMORY_BYTES = 6_000_000_000  # address space, most of it never touched; stops bombs
RETRIES = 5  # of a batch whose node is lost
MOST_TOGETHER = 4  # jobs of a batch: importing what decodes takes half a second a batch
WAIT_SECONDS = 0.5
Wait = Callable[[], None]


class Builders(Protocol):
    """The settings that say who does jobs."""

    engine: Engine
    address: str
    num_workers: int


@dataclass(frozen=True)
class Work:
    """What is done with jobs, by a function that pickles by name; jobs that are done are skipped.

    do: takes jobs, a number of workers and what is called at least twice a second; yields how much
    is done (in the unit of the caller) and made. folders: where jobs read and write. num_gpus:
    devices that a batch takes of a node.
    """

    do: Callable[[Sequence[Any], int, Wait], Iterator[tuple[float, int]]]
    folders: tuple[Path, ...]
    num_gpus: int = 0


def carry_out(
    work: Work, jobs: Sequence[Any], settings: Builders, on_wait: Wait
) -> Iterator[tuple[float, int]]:
    """Do jobs by ``settings.engine``; yield how much is done and made, as it goes."""
    if settings.engine is Engine.ray:
        return on_ray(work, jobs, settings.address, on_wait)
    return work.do(jobs, settings.num_workers, on_wait)


def in_children(
    build: Callable[[Any], int],
    finish_dead: Callable[[Any, str], int],
    last_pulse: Callable[[Any], float],
    drafts: Sequence[Any],
    config: IngestConfig,
    num_workers: int,
    on_wait: Wait,
) -> Iterator[tuple[Any, int]]:
    """Build drafts in children of this process that can be killed; yield each with its samples.

    finish_dead: finishes the draft of a killed child, told of what. last_pulse: when its child last
    showed that it is at work.
    """
    attempt = attempt_name()
    outcomes = run_in_children(
        build,
        [replace(draft, attempt=attempt) for draft in drafts],
        num_workers=num_workers,
        timeout_seconds=config.timeout_seconds,
        memory_bytes=CHILD_MEMORY_BYTES,
        on_wait=on_wait,
        last_pulse=last_pulse,
    )
    for outcome in outcomes:
        dead = outcome.death
        yield outcome.job, finish_dead(outcome.job, dead) if dead else outcome.value


def on_ray(
    work: Work, jobs: Sequence[Any], address: str, on_wait: Wait
) -> Iterator[tuple[float, int]]:
    """Do jobs on the nodes of a Ray cluster, one processor a batch; lost batches go again.

    Raises ValueError without Ray, without a cluster at ``address``, and where a node does not see
    the folders or refuses a job.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError("engine=ray: needs Ray. pip install 'kinescale[ray]'.") from error
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # a node that does not start in time is a bare one of Ray's
            told = str(error).split("\n")[0]
            raise ValueError(
                f"address={address}: no Ray cluster answers there ({told}). "
                "Start one with ray start --head, or use engine=local."
            ) from error
    waiting: set[Any] = set()
    try:
        resources = ray.cluster_resources()
        at_once = max(1, int(resources.get("GPU" if work.num_gpus else "CPU", 1)))
        size = min(MOST_TOGETHER, max(1, len(jobs) // (4 * at_once)))
        needs = {"num_cpus": 1, "num_gpus": work.num_gpus, "max_retries": RETRIES}
        for folder in work.folders:
            folder.mkdir(parents=True, exist_ok=True)
        task = ray.remote(**needs)(do_batch)
        about = work, address, Path.cwd()
        starts = range(0, len(jobs), size)
        waiting = {task.remote(jobs[start : start + size], *about) for start in starts}
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=WAIT_SECONDS)
            on_wait()
            for found in ready:
                waiting.remove(found)
                try:
                    yield ray.get(found)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, ValueError):
                        raise ValueError(str(error.cause)) from error
                    raise
    finally:
        for found in waiting:
            ray.cancel(found, force=True)
        if ours:
            ray.shutdown()


def do_batch(jobs: Sequence[Any], work: Work, address: str, here: Path) -> tuple[float, int]:
    """Do jobs on a node; return how much was done and made.

    Raises ValueError where the node does not see a folder that the others see.
    """
    for folder in (here, *work.folders):
        if not folder.is_dir():
            raise ValueError(
                f"address={address}: the node {socket.gethostname()} does not see {folder}. "
                "Put input and output where all nodes see them, under the same names."
            )
    os.chdir(here)
    done = list(work.do(jobs, 1, lambda: None))
    return sum(weight for weight, _ in done), sum(made for _, made in done)
