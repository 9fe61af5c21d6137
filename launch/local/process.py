"""One job as a child process: started in its own session, tagged, and never left behind."""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import psutil

from data.reading import number_of, parse_object, read_tail
from data.secrets import refuse_secrets
from data.words import counted

LOG_FILE = "log.txt"
METRICS_FILE = "metrics.jsonl"
# Every process of a job inherits this variable, so workers whose parent died (torchrun gives each
# its own session, out of reach of a group kill) are still found.
TAG = "KINESCALE_RUN_DIR"
# Runs before the job's own program: asks the kernel for SIGTERM when the launcher dies, then
# replaces itself. A preexec_fn would do the same but is unsafe beside threads (rich starts one).
_GUARD = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15, 0, 0, 0); "
    "os.getppid() == int(sys.argv[1]) or sys.exit('the launcher died'); "
    "os.execvp(sys.argv[2], sys.argv[2:])"
)
# What it says in a process that forks runs: theirs in /proc stays their parent's.
WARM = "(warm)"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_TAIL_BYTES = 65536
_LEFTOVER_SECONDS = 2.0


@dataclass(frozen=True)
class Job:
    """Describe one run to start.

    name: how it is called in messages.
    run_dir: its folder; gets ``log.txt``, and is expected to get ``metrics.jsonl``.
    argv: program and arguments.
    num_processes: slots it takes.
    cost: FLOPs of the whole run, or what else ``goal`` counts; orders the queue, weighs progress.
    done_marker: file whose existence means the job has finished.
    goal: the count of ``metrics.jsonl`` that tells how far it is, and its value at the end; 0 takes
        the cost. A run of so many tokens or steps has FLOPs that nobody knows ahead.
    tokens: about how many it trains on, for the ETA; 0 where nobody knows.
    """

    name: str
    run_dir: Path
    argv: list[str]
    num_processes: int
    cost: float
    done_marker: Path
    goal: tuple[str, float] = ("flops", 0.0)
    tokens: float = 0.0


def refuse_keys_of(jobs: Sequence[Job], environ: Mapping[str, str]) -> None:
    """Raise ValueError where a job's arguments or its frozen config hold a key.

    Frozen configs are checked once more, as people edit them.
    """
    for job in jobs:
        config = job.run_dir / "config.yaml"
        texts = {str(config): config.read_text(encoding="utf-8")} if config.is_file() else {}
        refuse_secrets(texts | {f"arguments of {job.name}": "\n".join(job.argv)}, environ)


class RunLocked(RuntimeError):
    """Another living launcher runs this job."""


def available_cores() -> int:
    """Return how many cores this process may use: its affinity, capped by its cgroup's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        return cores  # no cgroup v2 here, so no quota to respect
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def tail_text(path: Path, num_lines: int = 30) -> str:
    """Return the last lines of a text file, or '' if there is none."""
    return "\n".join(read_tail(path, _TAIL_BYTES)[0].splitlines()[-num_lines:])


def read_done(job: Job) -> float:
    """Return which part of a job's cost its metrics say is done."""
    key, whole = job.goal
    whole = whole or job.cost
    return job.cost * min(read_count(job.run_dir, key) / whole, 1.0) if whole > 0 else 0.0


def read_flops(run_dir: Path) -> float:
    """Return the cumulative FLOPs that a run's metrics state, or 0."""
    return read_count(run_dir, "flops")


def read_count(run_dir: Path, key: str) -> float:
    """Return a count of the last usable line of ``metrics.jsonl``, such as flops or step; or 0.

    The last line may be half written, and not every line carries each count.
    """
    for line in reversed(read_tail(run_dir / METRICS_FILE, _TAIL_BYTES)[0].splitlines()):
        found = number_of((parse_object(line) or {}).get(key))
        if found is not None and found >= 0:
            return found
    return 0.0


class Process(Protocol):
    """What a launcher needs of a process, its child or its grandchild; as in subprocess."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it lives."""

    def wait(self) -> int:
        """Wait for its end; return its exit code."""

    def send_signal(self, sig: int, /) -> None:
        """Signal it, if it lives."""


# (run folder, its log, its environment) -> its process; None where it has to be started otherwise
Fork = Callable[[Path, Path, Mapping[str, str]], Process | None]


class Child:
    """Run one attempt of a job in a new session.

    ``log.txt`` receives stdout and stderr, appended. fork: starts it, where it can. Raises
    :class:`RunLocked` if another launcher holds the run folder. Processes an earlier, killed
    launcher left in it are ended first: two writers in one run folder would mix two histories.
    """

    def __init__(
        self,
        job: Job,
        env: Mapping[str, str],
        threads: int,
        attempt: int,
        grace_seconds: float,
        fork: Fork | None = None,
    ) -> None:
        self.job = job
        self._leftover_seconds = _LEFTOVER_SECONDS
        self._tag = str(job.run_dir.resolve())
        job.run_dir.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(job.run_dir)
        with (job.run_dir / LOG_FILE).open("ab") as log:
            num_orphans = end_processes(self._tag, grace_seconds)
            if num_orphans:
                ended = counted(num_orphans, "process", "processes")
                log.write(f"[launch] ended {ended} of a dead launcher\n".encode())
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            log.write(f"[launch] {stamp} attempt {attempt}: {job.argv}\n".encode())
            log.flush()
            try:
                self._process = self._start(environment(env, threads, self._tag), log, fork)
            except OSError:
                self._lock.close()
                raise

    def _start(self, env: Mapping[str, str], log: IO[bytes], fork: Fork | None) -> Process:
        run_dir = self.job.run_dir
        forked = None if fork is None else fork(run_dir, (run_dir / LOG_FILE).resolve(), env)
        if forked is not None:
            return forked
        return subprocess.Popen(
            guarded(self.job.argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Return the number of the job's first process."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs; after the end nothing of the job lives."""
        code = self._process.poll()
        if code is not None and not self._lock.closed:
            # A logger's background process may still be flushing: wait before killing.
            psutil.wait_procs(_tagged(self._tag), timeout=self._leftover_seconds)
            end_processes(self._tag, grace_seconds=0.0)
            self._lock.close()
        return code

    def terminate(self) -> None:
        """Send SIGTERM to the leader only.

        The trainer must save a checkpoint, so its decoder workers have to live on; torchrun
        forwards the signal to its ranks.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to everything that belongs to the job and reap the leader."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._leftover_seconds = 0.0
        self.poll()


def environment(env: Mapping[str, str], threads: int, tag: str) -> dict[str, str]:
    """Return the variables of a process with so many threads that carries ``tag``."""
    return {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads)), **env, TAG: tag}


def guarded(command: list[str]) -> list[str]:
    """Return a command that is asked to end when this process dies."""
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "prctl"):
        return command
    # -S -E: the guard needs neither site-packages nor PYTHON* and starts in 10 ms.
    return [sys.executable, "-S", "-E", "-c", _GUARD, str(os.getpid()), *command]


def _lock(run_dir: Path) -> IO[bytes]:
    # The kernel drops the lock with the launcher, however it dies.
    file = (run_dir / ".launch.lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunLocked(
            f"run_dir={run_dir}: another launcher is running it. Wait for that one or stop it."
        ) from None
    return file


def end_processes(tag: str, grace_seconds: float) -> int:
    """End every process that carries ``tag``, by SIGTERM, then by SIGKILL; return their number."""
    found = _tagged(tag)
    if grace_seconds > 0 and found:
        for process in found:
            _signal(process, signal.SIGTERM)
        psutil.wait_procs(found, timeout=grace_seconds)
    # Scanned again: a process may have forked since, and a killed one forks no more.
    num_found, deadline = len(found), time.monotonic() + 10.0
    while (found := _tagged(tag)) and time.monotonic() < deadline:
        for process in found:
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(found, timeout=1.0)
    return num_found


def carries(process: psutil.Process, tag: str) -> bool:
    """Tell whether a process belongs to the run folder ``tag``. Raises psutil.Error.

    What a process forked from another shows as its environment is that one's: such a run is known
    by the log that it writes.
    """
    said = process.environ().get(TAG)
    if said != WARM:
        return said == tag
    try:
        return os.readlink(f"/proc/{process.pid}/fd/1") == os.path.join(tag, LOG_FILE)
    except OSError:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _tagged(tag: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if carries(process, tag):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # Gone meanwhile, or another user's: not ours.
            continue
    return found
