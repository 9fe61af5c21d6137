"""The cluster of a session, what runs on it, and the table of faults."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ..conftest import AddRow
from ..trainer.conftest import latents as latents  # the same tiny data set
from .cluster import Cluster, stop_abandoned, why_not
from .faults import FAULT_COLUMNS, Fault

FAULT_TITLE = "SLURM: faults, and seconds lost to them"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Return a running cluster of four nodes, whose clients this process may call."""
    if reason := why_not():
        pytest.skip(reason)
    for left in stop_abandoned():
        shutil.rmtree(left.parent, ignore_errors=True)
    # Not pytest's folder: munge wants one that only its owner may change, all the way up.
    root = Path(tempfile.mkdtemp(prefix="kinescale-slurm-"))
    root.chmod(0o755)
    found, before = Cluster(root / "lab"), os.environ.get("SLURM_CONF")
    try:
        found.start()
        os.environ["SLURM_CONF"] = found.env["SLURM_CONF"]
        yield found
    finally:
        found.stop()
        os.environ.pop("SLURM_CONF", None)
        if before is not None:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def idle(cluster: Cluster) -> Iterator[Cluster]:
    """Return the cluster with all nodes up and nothing in its queue, and leave it so."""
    cluster.restore()
    yield cluster
    cluster.restore()


@pytest.fixture(scope="session")
def note_fault(
    summary_table: Callable[[str, Sequence[str]], AddRow],
) -> Callable[[Fault], None]:
    """Return a function that adds a fault to the table."""
    add_row = summary_table(FAULT_TITLE, FAULT_COLUMNS)
    return lambda fault: add_row(*fault.cells())
