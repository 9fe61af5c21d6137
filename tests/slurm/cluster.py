"""A throw-away SLURM cluster on one machine: real daemons, a network namespace for each node.

    controller (10.x.y.254) --bridge-- n1 (10.x.y.1), n2, ...

As root and without systemd. Each node has its own host name and address, so that torch's rendezvous
and SLURM see several machines, and a node's link can be cut. Everything lies in one folder but the
namespaces and their ``/etc/netns`` entries, whose names carry this process's id; ``stop`` ends the
daemons by the ids they wrote down, then whatever carries this cluster's ``SLURM_CONF``. What a
killed process left of its cluster, ``stop_abandoned`` stops.
"""

import json
import os
import random
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

_NAMESPACES = Path("/etc/netns")  # `ip netns exec NAME` shows NAME's folder there as its /etc
PROGRAMS = ("slurmctld", "slurmd", "munged", "ip", "unshare", "sbatch")
CONFIG = """\
ClusterName=kinescale
SlurmctldHost={host}({address})
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmdSpoolDir={root}/spool/%n
StateSaveLocation={root}/state
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
AuthType=auth/munge
# The shortest that SLURM takes: a requeued job waits for so long.
AuthInfo=socket={root}/run/munge.sock,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType={accounting}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
BatchStartTimeout=30
MinJobAge=3600
InactiveLimit=0
MessageTimeout=10
# How long SLURM tries to reach a cut node's daemon, several times over; on one network 1 s is long.
TCPTimeout=1
SlurmdTimeout=10
SlurmctldTimeout=30
EpilogMsgTime=0
UnkillableStepTimeout=20
MaxArraySize=2001
GresTypes=gpu
NodeName=n[1-{nodes}] NodeAddr={subnet}.[1-{nodes}] CPUs={cpus} \\
  RealMemory=4096 Gres=gpu:h100:8 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=7-0 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=spot Nodes=ALL MaxTime=7-0 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=gpu Nodes=ALL MaxTime=7-0 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=shut Nodes=ALL MaxTime=7-0 State=DOWN
"""

# Accounting is a daemon of its own before a database of its own.
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacct")
DATABASE_CONFIG = """\
AuthType=auth/munge
AuthInfo=socket={root}/run/munge.sock
DbdHost={host}
DbdPort={port}
SlurmUser=root
LogFile={root}/log/slurmdbd.log
PidFile={root}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={storage_port}
StorageUser=slurm
StoragePass=throwaway
StorageLoc=slurm_acct_db
"""
USER = """\
CREATE USER 'slurm'@'127.0.0.1' IDENTIFIED BY 'throwaway';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
"""


def why_not() -> str:
    """Return why no cluster can be started here, or ''."""
    if os.geteuid() != 0:
        return "a throw-away SLURM cluster needs root"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} is missing: apt-get install slurm-wlm munge iproute2"
    name = f"kinescale-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"network namespaces cannot be made here: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


def stop_abandoned() -> list[Path]:
    """Stop the clusters whose process is gone; return their folders."""
    found = []
    for note in _NAMESPACES.glob("ks*-n1/cluster.json"):
        try:
            about = json.loads(note.read_text())
        except FileNotFoundError:  # another process stops it
            continue
        if not is_alive(about["pid"]):
            left = Cluster(Path(about["root"]), about["nodes"], tag=about["tag"])
            left.stop()
            found.append(left.root)
    return found


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that ended and whose parent has not asked for it does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(what: Callable[[], object], seconds: float, name: str = "") -> None:
    """Poll until something holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"{name or what}: not within {seconds} s"
        time.sleep(0.1)


class Cluster:
    """The cluster; ``env`` is what its clients need in their environment."""

    def __init__(
        self, root: Path, nodes: int = 4, cpus: int = 4, accounting: bool = False, tag: str = ""
    ) -> None:
        self.root, self.num_nodes, self.cpus, self.accounting = root, nodes, cpus, accounting
        self.nodes = [f"n{i}" for i in range(1, nodes + 1)]
        # One process may hold one cluster with accounting beside one without.
        number = (os.getpid() + 7919 * accounting) % 60_000
        self._tag = tag or f"ks{number}"
        self._subnet = f"10.{100 + number // 250 % 100}.{number % 250}"
        self._config = root / "slurm.conf"
        self.env = {**os.environ, "SLURM_CONF": str(self._config)}
        self.small_disk = root / "disk"
        self.no_small_disk = ""  # why there is none
        self._cut: set[str] = set()
        self._accounts_port = free_port()
        self._database: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start everything and wait until all nodes are idle."""
        for name in ("state", "log", "run", "spool"):
            (self.root / name).mkdir(parents=True)
        for path in (self.root, self.root / "run"):
            path.chmod(0o755)  # munge refuses a socket in a folder that others cannot enter
        self._write_config()
        self._mount_small_disk()
        self._start_munge()
        self._add_network()
        if self.accounting:
            self._start_accounting()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self.wait_idle()

    def __call__(self, *argv: str, check: bool = True) -> str:
        """Run a client's command and return what it printed."""
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def wait_idle(self, seconds: float = 60.0) -> None:
        """Wait until every node is idle."""

        def idle() -> bool:
            states = self("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False).split()
            return states == ["idle"] * self.num_nodes

        wait_until(idle, seconds, "idle nodes")

    def start_controller(self) -> None:
        """Start the controller and wait until it answers."""
        self("slurmctld", "-f", str(self._config))
        wait_until(lambda: "is UP" in self("scontrol", "ping", check=False), 30, "slurmctld")

    def change(self, key: str, value: str) -> None:
        """Set a key of the configuration that stands there, for a controller started anew."""
        text, count = re.subn(rf"(?m)^{key}=.*$", f"{key}={value}", self._config.read_text())
        assert count == 1, key
        self.kill_controller()
        self._config.write_text(text)
        self.start_controller()

    def kill_controller(self) -> None:
        """End the controller as a crash would."""
        self._kill(self.root / "run" / "slurmctld.pid")

    def wait_saved(self, since: float, seconds: float = 60.0) -> None:
        """Wait until the controller has saved its jobs after a moment; it does so 5 s late."""
        saved = self.root / "state" / "job_state"
        wait_until(lambda: saved.exists() and saved.stat().st_mtime > since, seconds, "saved state")

    def start_node(self, node: str) -> None:
        """Start a node's daemon, in the node's namespaces."""
        (self.root / "spool" / node).mkdir(exist_ok=True)
        daemon = f"hostname {node}; exec slurmd -N {node} -f '{self._config}'"
        self(*self._inside(node), "unshare", "--uts", "sh", "-c", daemon)

    def kill_daemon(self, node: str) -> None:
        """Kill a node's daemon; what it started lives on."""
        self._kill(self.root / "run" / f"slurmd.{node}.pid")

    def cut(self, node: str) -> None:
        """Cut a node's link: its daemon and its processes go on alone."""
        self._cut.add(node)
        self("ip", "link", "set", self._link(node), "down")

    def heal(self, node: str) -> None:
        """Undo ``cut``; the controller, which asks a lost node ever more rarely, asks at once."""
        self("ip", "link", "set", self._link(node), "up")
        self("scontrol", "reconfigure")
        self._cut.discard(node)

    def restore(self) -> None:
        """Empty the queue and bring every node back."""
        if not (self.root / "run" / "slurmctld.pid").exists():
            self.start_controller()
        self("scancel", "--state=PENDING", "--user=root", check=False)
        self("scancel", "--user=root", check=False)
        for node in self._cut.copy():
            self.heal(node)
        for node in self.nodes:
            if not (self.root / "run" / f"slurmd.{node}.pid").exists():
                self.start_node(node)
        wait_until(lambda: not self("squeue", "-h", check=False), 60, "an empty queue")
        self.wait_idle(120)

    def stop(self) -> None:
        """End all jobs, daemons, left-over processes and namespaces."""
        # Killed: asked to end, each waits for others, a quarter of a minute in all.
        for path in (self.root / "run").glob("*.pid"):
            self._kill(path)
        if self._database is not None:
            self._database.wait(30)
        for process in self._left_over():
            process.kill()
        for node in self.nodes:
            subprocess.run(["ip", "netns", "del", self._namespace(node)], capture_output=True)
            shutil.rmtree(_NAMESPACES / self._namespace(node), ignore_errors=True)
        subprocess.run(["ip", "link", "del", self._tag], capture_output=True)
        if self.small_disk.is_mount():
            subprocess.run(["umount", "--lazy", str(self.small_disk)], capture_output=True)

    def _mount_small_disk(self, megabytes: int = 24) -> None:
        """Mount a disk that a test can fill; before the nodes start, whose mounts are copies."""
        self.small_disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(self.small_disk)]
        done = subprocess.run(mount, capture_output=True, text=True)
        self.no_small_disk = done.stderr.strip() if done.returncode else ""

    def _write_config(self) -> None:
        values = {
            "host": socket.gethostname(),
            "address": f"{self._subnet}.254",
            "subnet": self._subnet,
            "root": self.root,
            "nodes": self.num_nodes,
            "cpus": self.cpus,
            "port": free_port(),
            "node_port": free_port(),
            "accounting": "accounting_storage/none",
        }
        if self.accounting:
            lines = ("slurmdbd", f"AccountingStorageHost={values['host']}",
                     f"AccountingStoragePort={self._accounts_port}",
                     f"AccountingStoragePass={self.root}/run/munge.sock",
                     "AccountingStorageEnforce=associations,limits")  # fmt: skip
            values["accounting"] = "accounting_storage/" + "\n".join(lines)
        self._config.write_text(CONFIG.format(**values))
        # GPUs that nothing is written to: what is asked for is tested, not what is given.
        for i in range(8):
            os.mknod(self.root / f"gpu{i}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        devices = f"Name=gpu Type=h100 File={self.root}/gpu[0-7]\n"
        (self.root / "gres.conf").write_text(devices)
        (self.root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")

    def _start_munge(self) -> None:
        key = self.root / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        run = self.root / "run"
        self(
            "munged", "--force", f"--key-file={key}", f"--socket={run}/munge.sock",
            f"--pid-file={run}/munged.pid", f"--log-file={self.root}/log/munged.log",
            f"--seed-file={self.root}/munge.seed", "--num-threads=2",
        )  # fmt: skip

    def _start_accounting(self) -> None:
        """Start a database in the cluster's folder, and SLURM's daemon before it."""
        data, run, port = self.root / "database", self.root / "run", free_port()
        self("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}")
        (self.root / "user.sql").write_text(USER)
        with (self.root / "log" / "mariadbd.log").open("wb") as log:
            self._database = subprocess.Popen(
                ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}",
                 "--bind-address=127.0.0.1", f"--port={port}", f"--socket={run}/mariadbd.sock",
                 f"--pid-file={run}/mariadbd.pid", f"--init-file={self.root}/user.sql"],
                stdout=log, stderr=log, env=self.env,
            )  # fmt: skip
        wait_until(lambda: (run / "mariadbd.pid").exists(), 60, "mariadbd")
        config = self.root / "slurmdbd.conf"
        config.touch(mode=0o600)  # it holds a password: slurmdbd refuses one that others can read
        config.write_text(
            DATABASE_CONFIG.format(
                root=self.root,
                host=socket.gethostname(),
                port=self._accounts_port,
                storage_port=port,
            )
        )
        self("slurmdbd")
        known = ("sacctmgr", "--immediate", "add", "cluster", "kinescale")
        wait_until(lambda: "Adding" in self(*known, check=False), 60, "slurmdbd")
        for what in (["account", "lab", "cluster=kinescale"], ["user", "root", "account=lab"]):
            self("sacctmgr", "--immediate", "add", *what, check=False)

    def _add_network(self) -> None:
        self("ip", "link", "add", self._tag, "type", "bridge")
        self("ip", "addr", "add", f"{self._subnet}.254/24", "dev", self._tag)
        self("ip", "link", "set", self._tag, "up")
        hosts = ["127.0.0.1 localhost", f"{self._subnet}.254 {socket.gethostname()}"]
        hosts += [f"{self._subnet}.{i} n{i}" for i in range(1, self.num_nodes + 1)]
        owner = {"pid": os.getpid(), "root": str(self.root)}
        about = json.dumps(owner | {"tag": self._tag, "nodes": self.num_nodes})
        for i, node in enumerate(self.nodes, 1):
            space, link = self._namespace(node), self._link(node)
            folder = _NAMESPACES / space
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "hosts").write_text("\n".join(hosts) + "\n")
            (folder / "cluster.json").write_text(about)
            self("ip", "netns", "add", space)
            self(*f"ip link add {link} type veth peer name eth0 netns {space}".split())
            self("ip", "link", "set", link, "master", self._tag, "up")
            self(*f"ip -n {space} addr add {self._subnet}.{i}/24 dev eth0".split())
            self("ip", "-n", space, "link", "set", "eth0", "up")
            self("ip", "-n", space, "link", "set", "lo", "up")

    def _namespace(self, node: str) -> str:
        return f"{self._tag}-{node}"

    def _link(self, node: str) -> str:
        return f"{self._tag}v{node[1:]}"

    def _inside(self, node: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self._namespace(node))

    def _kill(self, pid_file: Path) -> None:
        """Kill a daemon by the id it wrote down; return when it is gone."""
        try:
            process = psutil.Process(int(pid_file.read_text()))
            if pid_file.name.startswith(process.name()):  # else another has its id by now
                process.kill()
                wait_until(lambda: not is_alive(process.pid), 10, pid_file.stem)
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            pass
        pid_file.unlink(missing_ok=True)

    def _left_over(self) -> list[psutil.Process]:
        """Return step daemons and tasks that lost their daemon: all carry this SLURM_CONF."""
        found = []
        # Not psutil's environ(), which ends where a step daemon wrote its title over the first.
        for process in psutil.process_iter():
            try:
                words = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                ours = f"SLURM_CONF={self._config}".encode() in words
                of_a_job = any(word.startswith(b"SLURM_JOB_ID=") for word in words)
                if ours and (process.name().startswith("slurm") or of_a_job):
                    found.append(process)
            except (OSError, psutil.NoSuchProcess):
                continue
        return [process for process in found if process.pid != os.getpid()]


def free_port() -> int:
    """Return a port nobody listens on, of a hundred that are this process's own.

    The kernel hands out others, to a cluster beside this one, too, before a daemon is there.
    """
    first = 20_000 + os.getpid() % 120 * 100  # below those that the kernel hands out
    for port in random.sample(range(first, first + 100), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port
    raise RuntimeError(f"ports {first} to {first + 99} are all taken")
