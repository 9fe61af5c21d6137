"""Checks of a machine and of a file system, each with its remedy; torch-free."""

import fcntl
import os
import shutil
import time
from pathlib import Path

from data.checks import Check, Verdict, judge, of_error
from launch.config import ClusterConfig

_LEAST_FREE_GIB = 10.0
# Signs of life and leases compare times within one clock; a person reads logs of several.
_CLOCK_SECONDS = 5.0
_NAME = "cluster.kind=slurm"
_REMEDY = "Use a machine where sbatch works (or set SLURM_CONF), or choose cluster=local."


def check_here() -> list[Check]:
    """Look at this machine: GPUs as its driver lists them, and memory."""
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return [
        Check("this machine", Verdict.good, f"{cores} cores, {memory:.0f} GiB, {gpus} NVIDIA GPUs")
    ]


def check_folder(folder: Path) -> list[Check]:
    """Look at the file system of runs: what checkpoints and the fence rely on."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".doctor-{os.getpid()}"
        probe.mkdir()
    except OSError as error:
        return [Check("folder of runs", Verdict.bad, str(error), "Choose another with folder=...")]
    try:
        return [_check_space(folder), *_check_operations(probe), _check_clock(probe)]
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _check_space(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / 2**30
    return judge(
        "free space",
        free >= _LEAST_FREE_GIB,
        f"{free:.1f} GiB in {folder}",
        f"Make room: under {_LEAST_FREE_GIB:.0f} GiB a few checkpoints fill it.",
        Verdict.warning,
    )


def _check_operations(probe: Path) -> list[Check]:
    """Try what a checkpoint needs (write, sync, rename a folder) and what the fence needs."""
    operations = {
        "write, sync, rename": (_try_rename, Verdict.bad, "Runs cannot save there."),
        "hard links": (_try_link, Verdict.bad, "Two attempts could own one run. Use another disk."),
        "locks": (_try_lock, Verdict.warning, "A dead attempt is noticed by its lease only, 15 s."),
    }
    checks = []
    for name, (attempt, verdict, remedy) in operations.items():
        started = time.monotonic()
        try:
            attempt(probe)
            found, good = f"work, {1000 * (time.monotonic() - started):.1f} ms", True
        except OSError as error:
            found, good = str(error), False
        checks.append(judge(name, good, found, remedy, verdict))
    return checks


def _try_rename(probe: Path) -> None:
    (probe / "new").mkdir()
    with (probe / "new" / "data").open("wb") as file:
        file.write(b"\0" * 2**20)
        file.flush()
        os.fsync(file.fileno())
    (probe / "new").rename(probe / "kept")
    (probe / "kept" / "data").replace(probe / "data")


def _try_link(probe: Path) -> None:
    (probe / "first").touch()
    os.link(probe / "first", probe / "second")
    try:
        os.link(probe / "first", probe / "second")
    except FileExistsError:
        return
    raise OSError("a second link of one name succeeded")


def _try_lock(probe: Path) -> None:
    with (probe / "lock").open("ab") as file, (probe / "lock").open("ab") as other:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
    raise OSError("two files could both be locked")


def _check_clock(probe: Path) -> Check:
    path = probe / "clock"
    before = time.time()
    path.touch()
    behind = path.stat().st_mtime - before
    return judge(
        "clock of the file server",
        abs(behind) < _CLOCK_SECONDS,
        f"{behind:+.1f} s against this machine's",
        "Synchronise the clocks (chrony): times in logs will not agree.",
        Verdict.warning,
    )


def check_slurm(cluster: ClusterConfig) -> list[Check]:
    """Ask SLURM for its version and the partition's nodes; what does not answer is one bad check.

    A person waits here: nothing is asked more than twice.
    """
    from launch.slurm.commands import SlurmError

    try:
        return _ask_slurm(cluster)
    except SlurmError as error:
        return [Check(_NAME, Verdict.bad, str(error).rstrip("."), _REMEDY)]
    except ValueError as error:
        return [of_error(_NAME, error)]


def _ask_slurm(cluster: ClusterConfig) -> list[Check]:
    from launch.slurm import commands

    year, month = commands.version(tries=1)
    partition = cluster.slurm.partition
    argv = ["sinfo", "--noheader", "--Node", "--format=%N %T"]
    argv += [f"--partition={partition}"] if partition else []
    states = dict(line.split() for line in commands.run(argv, tries=2).splitlines())
    down = sorted(n for n, s in states.items() if s.rstrip("*~#$@+").startswith(("down", "drain")))
    nodes = judge(
        "nodes",
        len(states) > len(down),
        f"{len(states) - len(down)} of {len(states)} up"
        + (f", not {', '.join(down)}" * bool(down)),
        "Choose another cluster.slurm.partition, or wait.",
        Verdict.bad,
    )
    settings = commands.settings(tries=2)
    version = Check("SLURM", Verdict.good, f"{year}.{month:02d} answers")
    arrays = Check("arrays", Verdict.good, f"of up to {commands.max_array(settings)} runs")
    return [version, nodes, arrays, *_check_settings(settings)]


def _check_settings(settings: dict[str, str]) -> list[Check]:
    """Look at what decides whether runs come back by themselves."""
    requeue = settings.get("JobRequeue", "")
    return [
        judge(
            "JobRequeue",
            requeue != "0",
            requeue or "not told",
            "Jobs ask for it by themselves (--requeue); some sites refuse that.",
            Verdict.warning,
        ),
        Check(
            "waits of this site",
            Verdict.good,
            f"KillWait {settings.get('KillWait', '?')}, SlurmdTimeout "
            f"{settings.get('SlurmdTimeout', '?')}: a lost node is noticed after the latter",
        ),
    ]
