"""What a killed process leaves of its cluster is stopped by the next that wants one."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .cluster import is_alive, stop_abandoned, why_not

pytestmark = pytest.mark.slurm
STARTER = """
import sys, time
from pathlib import Path
from tests.slurm.cluster import Cluster
Cluster(Path(sys.argv[1]) / 'lab', nodes=2).start()
print('up', flush=True)
time.sleep(600)
"""


def test_a_cluster_outlives_its_killed_process_until_the_next_one() -> None:
    if reason := why_not():
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="kinescale-slurm-"))
    root.chmod(0o755)  # munge, see conftest.py
    with subprocess.Popen([sys.executable, "-c", STARTER, str(root)], stdout=subprocess.PIPE) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == b"up\n"
        p.kill()
    daemons = [int(path.read_text()) for path in (root / "lab" / "run").glob("*.pid")]
    assert len(daemons) == 4  # munge, the controller, two nodes
    assert all(map(is_alive, daemons))
    # Another process may stop it first, and remove its folder: tests run side by side.
    stop_abandoned()
    assert not any(map(is_alive, daemons))
    assert not list(Path("/etc/netns").glob(f"ks{p.pid}-*"))
    assert f"ks{p.pid}" not in os.listdir("/sys/class/net")
    shutil.rmtree(root, ignore_errors=True)
