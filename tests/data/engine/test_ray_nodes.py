"""A Ray cluster of two nodes, of which one is killed under an ingest: nothing lost or doubled."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from data.dataset.shards import read_index, read_payload

ROOT = Path(__file__).parents[3]
FILMED = ["preset=tiny", "num_train_clips=6000", "num_val_clips=500", "ingest.shard_bytes=3000000"]
SECONDS = 600.0  # for what takes one, on a machine that is busy otherwise
pytestmark = [
    pytest.mark.slow,
    pytest.mark.heavy,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and ip"),
]


def wait_for(what: Callable[[], object], name: str) -> None:
    end = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < end, f"{name} did not come"
        time.sleep(0.1)


class Nodes:
    """Two network namespaces on one bridge, each with a host name and a node of Ray."""

    def __init__(self, folder: Path) -> None:
        number = os.getpid()
        self.bridge, self.folder = f"kr{number}", folder
        self.names = [f"kr{number}-1", f"kr{number}-2"]
        self.subnet = f"10.{200 + number % 50}.{number // 50 % 250}"
        self.started: list[subprocess.Popen[bytes]] = []

    def run(self, *argv: str, check: bool = True) -> str:
        return subprocess.run(argv, capture_output=True, text=True, check=check).stdout

    def inside(self, number: int, *argv: str) -> list[str]:
        name = self.names[number]
        script = f'hostname node{number}; exec "$@"'
        return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", script, "sh", *argv]

    def start(self) -> None:
        self.run("ip", "link", "add", self.bridge, "type", "bridge")
        self.run("ip", "link", "set", self.bridge, "up")
        for number, name in enumerate(self.names):
            self.run("ip", "netns", "add", name)
            ours, theirs = f"{self.bridge}{number}", f"{self.bridge}{number}p"
            self.run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs)
            self.run("ip", "link", "set", theirs, "netns", name)
            self.run("ip", "link", "set", ours, "master", self.bridge, "up")
            address = f"{self.subnet}.{number + 1}/24"
            self.run("ip", "-n", name, "address", "add", address, "dev", theirs)
            self.run("ip", "-n", name, "link", "set", theirs, "up")
            self.run("ip", "-n", name, "link", "set", "lo", "up")
        self.node(0, "--head", "--port=6379", "--include-dashboard=false")
        self.node(1, f"--address={self.address}")

    @property
    def address(self) -> str:
        return f"{self.subnet}.1:6379"

    def node(self, number: int, *more: str) -> None:
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1"]
        ray += [f"--node-ip-address={self.subnet}.{number + 1}", "--disable-usage-stats"]
        ray += ["--object-store-memory=80000000", *more]
        ray += [f"--temp-dir={self.folder}"] * (number == 0)
        log = open(self.folder / f"node{number}.log", "wb")  # noqa: SIM115 - the child's
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = self.inside(number, *ray)
        with log:
            self.started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environ))

    def processes(self, number: int) -> list[psutil.Process]:
        found = []
        for pid in self.run("ip", "netns", "pids", self.names[number], check=False).split():
            try:
                found.append(psutil.Process(int(pid)))
            except psutil.NoSuchProcess:
                continue
        return found

    def works(self, number: int) -> bool:
        """Say whether a task of Ray is at work on a node."""
        for process in self.processes(number):
            try:
                if "ray::do_batch" in " ".join(process.cmdline()):
                    return True
            except psutil.NoSuchProcess:
                continue
        return False

    def kill(self, number: int) -> None:
        """Kill all that runs on a node, as a loss of power would."""
        for process in self.processes(number):
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue

    def stop(self) -> None:
        for number, name in enumerate(self.names):
            self.kill(number)
            self.run("ip", "netns", "del", name, check=False)
        self.run("ip", "link", "del", self.bridge, check=False)
        for child in self.started:
            child.wait()


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """Start the cluster; skip where namespaces cannot be made."""
    folder = Path(tempfile.mkdtemp(prefix="kr-"))  # sockets have short paths
    made = Nodes(folder)
    try:
        try:
            made.start()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr}")
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.glob("*/*") if p.is_file()}


def test_a_node_that_is_killed_loses_and_doubles_nothing(nodes: Nodes, tmp_path: Path) -> None:
    films = [sys.executable, "-m", "kinescale", "worlds", *FILMED]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    out = tmp_path / "out" / "video"
    words = [f"root={tmp_path / 'out'}", "ingest.engine=ray", f"ingest.address={nodes.address}"]
    (tmp_path / "out").mkdir()
    wait_for(lambda: nodes.processes(1), "a node")
    child = subprocess.Popen(nodes.inside(0, *films, *words), cwd=ROOT, env=environ)
    wait_for(lambda: nodes.works(1) and list(out.glob("*/part-*")), "work on both nodes")
    nodes.kill(1)
    built = len(list(out.glob("*/part-*")))
    assert child.wait(3 * SECONDS) == 0
    whole = [*films, f"root={tmp_path / 'whole'}"]
    subprocess.run(whole, cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
    assert files(out) == files(tmp_path / "whole" / "video")
    assert built < len(list(out.glob("*/part-*")))
    for split, count in (("train", 6000), ("val_worlds", 500)):
        infos = read_index(out, split)
        assert len({info.key for info in infos}) == count
        assert all(read_payload(out, split, info) for info in infos)
