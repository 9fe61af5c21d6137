"""Who builds the parts of a dataset: children of this process, or the nodes of a Ray cluster.

Either builds each part in a child of its own that can be killed, under names that no other attempt
has, so that a part which two nodes build after all is still whole. What a part holds depends on
its source and the settings alone: both engines give the same shards, byte for byte.
"""

import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.config import Engine, IngestConfig
from data.engine.children import run_in_children

CHILD_MEMORY_BYTES = 6_000_000_000  # address space, most of it never touched; stops bombs
RETRIES = 5  # of a batch whose node is lost
MOST_TOGETHER = 32  # parts of a batch: importing what decodes takes half a second a batch
WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Work:
    """What building takes, as functions that pickle by name; the folder is where parts go.

    build: write a part, return its samples. finish_dead: the same with what its killed child had.
    is_whole: whether a part is there. last_pulse: when its child last showed that it is at work.
    """

    folder: Path
    build: Callable[[Any], int]
    finish_dead: Callable[[Any, str], int]
    is_whole: Callable[[Any], bool]
    last_pulse: Callable[[Any], float]


def build_all(
    work: Work, parts: Sequence[Any], config: IngestConfig, on_wait: Callable[[], None]
) -> Iterator[tuple[Any, int]]:
    """Yield parts with their numbers of samples as they are built by ``config.engine``.

    ``on_wait`` is called at least twice a second.
    """
    if config.engine is Engine.ray:
        yield from on_ray(work, parts, config, on_wait)
    else:
        yield from in_children(work, parts, config, config.num_workers, on_wait)


def in_children(
    work: Work,
    parts: Sequence[Any],
    config: IngestConfig,
    num_workers: int,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Any, int]]:
    """Build parts in children of this process."""
    attempt = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}".replace(".", "_")
    outcomes = run_in_children(
        work.build,
        [replace(part, attempt=attempt) for part in parts],
        num_workers=num_workers,
        timeout_seconds=config.timeout_seconds,
        memory_bytes=CHILD_MEMORY_BYTES,
        on_wait=on_wait,
        last_pulse=work.last_pulse,
    )
    for outcome in outcomes:
        dead = outcome.death
        yield outcome.job, work.finish_dead(outcome.job, dead) if dead else outcome.value


def on_ray(
    work: Work, parts: Sequence[Any], config: IngestConfig, on_wait: Callable[[], None]
) -> Iterator[tuple[Any, int]]:
    """Build parts on the nodes of a Ray cluster, one processor a batch; lost batches go again.

    Raises ValueError without Ray, without a cluster at ``address``, and where a node does not see
    the folders.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError("engine=ray: needs Ray. pip install 'kinescale[ray]'.") from error
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(
                address=config.address or None, log_to_driver=False, logging_level=logging.ERROR
            )
        except Exception as error:  # a node that does not start in time is a bare one of Ray's
            told = str(error).split("\n")[0]
            raise ValueError(
                f"address={config.address}: no Ray cluster answers there ({told}). "
                "Start one with ray start --head, or use engine=local."
            ) from error
    waiting: dict[Any, Sequence[Any]] = {}
    try:
        processors = max(1, int(ray.cluster_resources().get("CPU", 1)))
        size = min(MOST_TOGETHER, max(1, len(parts) // (4 * processors)))
        batches = [parts[start : start + size] for start in range(0, len(parts), size)]
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(build_batch)
        here = Path.cwd()
        waiting = {task.remote(work, batch, config, here): batch for batch in batches}
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=WAIT_SECONDS)
            on_wait()
            for found in ready:
                batch = waiting.pop(found)
                try:
                    counts = ray.get(found)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, NotSeen):
                        raise ValueError(str(error.cause)) from error
                    raise
                yield from zip(batch, counts, strict=True)
    finally:
        for found in waiting:
            ray.cancel(found, force=True)
        if ours:
            ray.shutdown()


class NotSeen(Exception):
    """A node does not see a folder that the others see."""


def build_batch(work: Work, parts: Sequence[Any], config: IngestConfig, here: Path) -> list[int]:
    """Build parts on a node; return their numbers of samples, 0 for those that were there."""
    for folder in (here, work.folder):
        if not folder.is_dir():
            raise NotSeen(
                f"address={config.address}: the node {socket.gethostname()} does not see {folder}. "
                "Put input and output where all nodes see them, under the same names."
            )
    os.chdir(here)
    missing = [part for part in parts if not work.is_whole(part)]
    counts = {part.stem: count for part, count in in_children(work, missing, config, 1)}
    return [counts.get(part.stem, 0) for part in parts]
