"""End a run that this machine carries out, by what its folder tells of its process."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from data.files import write_json
from data.reading import read_object
from launch.local.process import carries, end_processes
from launch.run_folder.records import CANCELLED_FILE, is_alive, read_launches

# The owner's lease (trainer/run/lease.py): the main rank's host and process.
_LEASE = "attempt.json"
# Some renewals of a lease, and a minute by which the clocks of two hosts may differ.
_FRESH_SECONDS = 90.0


@dataclass(frozen=True)
class Cancelled:
    """What became of a run that is to end.

    told: it saves and leaves. ended: it was killed. remedy: what a person must do, '' for nothing.
    """

    told: bool = False
    ended: bool = False
    remedy: str = ""


def cancel_here(run_dir: Path, now: bool, moment: float) -> Cancelled:
    """Tell a run's first process to save and leave, or with ``now`` kill all of them.

    Only a process whose environment or arguments name this run folder is signalled: its number may
    be another one's by now. A run on another host is left alone, and the remedy names the host.
    """
    known = [record for record in (_start(run_dir), _lease(run_dir)) if record]
    process = next((p for r in known if (p := _process(r, run_dir)) is not None), None)
    if process is None:
        elsewhere = [record for record in known if is_alive(record) is None]
        fresh = elsewhere and moment - _last_sign(run_dir, elsewhere) < _FRESH_SECONDS
        return Cancelled(remedy=_remedy(elsewhere[0], run_dir)) if fresh else Cancelled()
    # First the mark: a launcher whose run ends must find it.
    write_json(run_dir / CANCELLED_FILE, {"time": moment})
    try:
        if now:
            workers = process.children(recursive=True)
            process.kill()
            for worker in workers:
                _kill(worker)
            end_processes(str(run_dir.resolve()), grace_seconds=0.0)
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        (run_dir / CANCELLED_FILE).unlink(missing_ok=True)
        return Cancelled()
    except psutil.AccessDenied:
        (run_dir / CANCELLED_FILE).unlink(missing_ok=True)
        who = f"process {process.pid} belongs to another user"
        return Cancelled(remedy=f"{run_dir}: {who}. Ask its owner.")
    return Cancelled(told=not now, ended=now)


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _last_sign(run_dir: Path, records: Sequence[Mapping[str, Any]]) -> float:
    """Return when a run last gave a sign: it was started, or its lease was renewed."""
    try:
        renewed = (run_dir / _LEASE).stat().st_mtime
    except OSError:
        renewed = 0.0
    return max([renewed, *(record.get("time", 0.0) for record in records)])


def _start(run_dir: Path) -> dict[str, Any]:
    """Return the last start of a local launcher, if it has not ended; {} where there is none."""
    launches = read_launches(run_dir)
    last = launches[-1] if launches else {}
    return last if last.get("local") is True and last.get("event") == "start" else {}


def _lease(run_dir: Path) -> dict[str, Any]:
    """Return the lease of a run that has begun to train, however it was started."""
    lease = read_object(run_dir / _LEASE).values
    sound = all(isinstance(lease.get(key), str) for key in ("host", "boot"))
    if not sound or lease.get("released"):
        return {}
    return {key: lease.get(key) for key in ("host", "boot", "pid")}


def _process(record: Mapping[str, Any], run_dir: Path) -> psutil.Process | None:
    """Return the living process that a record names, if it is this run's."""
    if not is_alive(record):
        return None
    try:
        process = psutil.Process(record["pid"])
        if carries(process, str(run_dir.resolve())):
            return process
        place = process.cwd()
        named = any(_is_same(os.path.join(place, word), run_dir) for word in process.cmdline()[1:])
        return process if named else None
    except (psutil.Error, OSError):
        return None


def _is_same(word: str, run_dir: Path) -> bool:
    try:
        return os.path.samefile(word, run_dir)
    except (OSError, ValueError):
        return False


def _remedy(record: Mapping[str, Any], run_dir: Path) -> str:
    return (
        f"{run_dir}: was last run on {record.get('host') or 'an unknown host'} as process "
        f"{record.get('pid')}. If it still runs, use kinescale cancel {run_dir} there."
    )
