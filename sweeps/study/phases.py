"""What every kind of study does: launch a phase's jobs, note who failed, describe the machine."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from launch.config import ClusterConfig
from launch.dispatch import run_on
from launch.local.eta import Observation
from launch.local.process import Job, available_cores
from launch.local.run import Outcome, ProgressPrinter, Status, describe_failures

INTERRUPTED = 130  # exit status of a study that a signal stopped


class Interrupted(RuntimeError):
    """A signal stopped the launcher; what runs saved is kept."""


def launch_phase(
    title: str, jobs: Sequence[Job], cluster: ClusterConfig, seen: list[Observation] | None = None
) -> list[Outcome]:
    """Run a phase's jobs and print who failed. Raises Interrupted when a signal stopped them.

    seen: what jobs of earlier phases took, for the ETA; what these take is added.
    On a cluster a phase's missing runs are one array, and a signal stops the waiting alone.
    """
    with ProgressPrinter(title) as printer:
        outcomes = run_on(cluster, title, jobs, printer, seen)
    stopped = (Status.interrupted, Status.not_started)
    # All may have been done when the signal came: the next phase must not begin all the same.
    if any(outcome.status in stopped or outcome.stopped for outcome in outcomes):
        raise Interrupted
    if text := describe_failures(outcomes):
        print(text, file=sys.stderr)
    return outcomes


def describe_environment(run_folders: Iterable[Path]) -> dict[str, Any]:
    """Return the environment that the first run wrote down, with this machine's size."""
    for folder in run_folders:
        path = folder / "env.json"
        if path.exists():
            env = json.loads(path.read_text())
            env.pop("argv", None)
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
            return dict(env) | {"cores": available_cores(), "memory": f"{memory:.0f} GiB"}
    return {"python": platform.python_version()}
