"""The test cluster as a config, and stand-ins for training where no training is tested."""

import sys
from pathlib import Path

from launch.config import ClusterConfig, ClusterKind
from launch.local.process import Job
from launch.slurm_config import SlurmConfig

# Notes its span and finishes.
SHORT = """
import os, pathlib, time
folder = pathlib.Path({folder!r})
begun = time.time(); time.sleep({seconds})
with (folder / 'spans').open('a') as file:
    file.write(f'{{begun}} {{time.time()}} {{os.environ["SLURM_JOB_ID"]}}\\n')
(folder / 'result.json').write_text('{{}}')
"""
# Counts from its checkpoint on; on a signal it saves, leaves the trainer's mark and exits with 75.
COUNTER = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path({folder!r})
saved = folder / 'checkpoints' / 'latest'
saved.parent.mkdir(exist_ok=True)
count = int(saved.read_text()) if saved.exists() else 0
(folder / 'stopped.json').unlink(missing_ok=True)
stop = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: stop.append(number))
(folder / 'ready').touch()
while count < {total}:
    time.sleep(.1)
    count += 1
    with (folder / 'counts').open('a') as file:
        file.write(f'{{count}}\\n')
    if stop:
        saved.write_text(str(count))
        (folder / 'stopped.json').write_text(json.dumps({{'signal': stop[0]}}))
        sys.exit(75)
saved.write_text(str(count))
(folder / 'result.json').write_text('{{}}')
"""


def site(partition: str = "main", retries: int = 3, **settings: object) -> ClusterConfig:
    """Return the config of the test cluster, one rank a node unless told otherwise."""
    fixed: dict[str, object] = {"processes_per_node": 1, "backoff_seconds": 1.0}
    slurm = SlurmConfig(partition=partition, **(fixed | settings))  # type: ignore[arg-type]
    return ClusterConfig(
        kind=ClusterKind.slurm, retries=retries, poll_seconds=0.5, grace_seconds=120.0, slurm=slurm
    )


def make_job(root: Path, name: str, program: str, processes: int = 1, **values: object) -> Job:
    """Return the job of a stand-in."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    source = program.format(folder=str(folder), **values)
    argv = [sys.executable, "-S", "-c", source]
    return Job(name, folder, argv, processes, 1.0, folder / "result.json")


def counts(folder: Path) -> list[int]:
    """Return what a counter counted."""
    path = folder / "counts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []
