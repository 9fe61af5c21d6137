"""One writer to a run folder: an attempt that was replaced finds out and writes nothing more.

A run may be requeued while its old process is cut off, stopped or dying elsewhere. Three files of
the folder, which may lie on a shared file system, decide who writes:

- ``.lock-HOST``: flocked for the life of an attempt, so the kernel of that host tells who lives;
- ``attempts/000002``: made once by whoever becomes attempt 2. The highest one owns the folder; of
  any number of processes that want the same number, the file system lets one make it;
- ``attempt.json``: the owner's lease, rewritten every third of ``lease_seconds``. Other hosts watch
  whether it changes, by their own clock; clocks of two machines are never compared.
"""

import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
import weakref
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from data.files import write_text
from data.reading import number_of, parse_object, read_tail
from trainer.run.attempt import Busy

log = logging.getLogger(__name__)

_LEASE = "attempt.json"
_ATTEMPTS = "attempts"
_LEASE_BYTES = 64 << 10  # a lease has some 300
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Looks at a lease while waiting for it to run out. More only ask a shared file system more often.
_LOOKS = 30


class Fenced(RuntimeError):
    """A newer attempt owns the run folder: this process must write nothing more."""


@dataclass(frozen=True)
class Lease:
    """Who makes an attempt, and its last sign of life.

    boot: id of the kernel's boot; with ``host`` it says where ``pid``, the host's lock and
    ``uptime_seconds`` (its monotonic clock) have a meaning.
    """

    attempt: int
    host: str
    pid: int
    token: str
    boot: str
    lease_seconds: float
    renewed: int = 0
    uptime_seconds: float = 0.0
    released: bool = False


class Fence:
    """The right to write to a run folder, held by the main rank of one attempt.

    It cannot stop a write that is under way: call ``check`` right before each publishing rename.
    """

    def __init__(self, folder: Path, lease: Lease, lock: int | None) -> None:
        self._folder, self._lease, self._lock = folder, lease, lock
        self._newer: Lease | None = None
        self._stopping = threading.Event()
        _close_in_children(self)
        self._thread = threading.Thread(target=self._keep_renewing, name="fence", daemon=True)
        self._thread.start()

    @classmethod
    def take(
        cls, folder: Path, lease_seconds: float = 15.0, host: str = "", ended: int = 0
    ) -> Self:
        """Become the next attempt of a run; raise ValueError while another one lives.

        At once when the last attempt ended cleanly or died on this host; otherwise after watching
        for ``lease_seconds`` that it gives no sign of life. host: this machine's name, for tests.
        ended: attempts up to this number are over, the launcher vouches for it: what still renews
        the lease is an orphan on a node that was cut off, and is superseded.
        """
        host = host or socket.gethostname()
        (folder / _ATTEMPTS).mkdir(parents=True, exist_ok=True)
        vouched = 0 < _newest(folder) <= ended
        lock = _lock_host(folder, host, vouched)
        try:
            newest = _newest(folder)
            if newest > ended:
                _wait_for_end(folder, newest, lease_seconds, None if lock is None else host)
            lease = _renewed(_claim(folder, newest + 1, host, lease_seconds))
            _write(folder, lease)
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise
        return cls(folder, lease, lock)

    @property
    def attempt(self) -> int:
        """Return which attempt at the run this is, from 1."""
        return self._lease.attempt

    def check(self) -> None:
        """Raise Fenced when a newer attempt owns the folder; costs a stat and a small read.

        OSError means that the folder cannot be read; it says nothing about another attempt.
        """
        newer = self._look()
        if newer is not None:
            raise Fenced(
                f"run={self._folder}: attempt {self.attempt} was superseded by attempt "
                f"{newer.attempt} of process {newer.pid} on {newer.host}; "
                "this one writes nothing more"
            )

    def release(self) -> None:
        """End the attempt: the next one need not wait. Does nothing the second time."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join(self._lease.lease_seconds)
        try:
            if self._look() is None:
                _write(self._folder, replace(self._lease, released=True))
        except OSError as error:
            log.warning("run=%s: cannot release the lease (%s)", self._folder, error)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _look(self) -> Lease | None:
        """Return the newer attempt, if there is one; what was seen once stays true."""
        if self._newer is None:
            # The lease too: a client of a network file system may remember for a minute that a
            # file does not exist, but opening one asks the server.
            lease = _read(self._folder / _LEASE)
            following = _attempt_file(self._folder, self.attempt + 1).exists()
            if following or (lease is not None and lease.attempt > self.attempt):
                self._newer = _owner(self._folder, _newest(self._folder))
        return self._newer

    def _keep_renewing(self) -> None:
        while not self._stopping.wait(self._lease.lease_seconds / 3):
            try:
                # A superseded attempt may still overwrite the lease if it is stopped between this
                # look and the rename. That is harmless: attempts/ decides, and the owner's next
                # renewal puts its own back.
                if self._look() is not None:
                    log.error(
                        "run=%s: attempt %d was superseded by attempt %d",
                        self._folder,
                        self.attempt,
                        _newest(self._folder),
                    )
                    return
                self._lease = _renewed(self._lease)
                _write(self._folder, self._lease)
            except OSError as error:
                log.warning("run=%s: cannot renew the lease (%s)", self._folder, error)


def _close_in_children(fence: Fence) -> None:
    # A forked child shares the lock and would hold it beyond the death of this process.
    reference = weakref.ref(fence)

    def close() -> None:
        parent = reference()
        if parent is not None and parent._lock is not None:
            os.close(parent._lock)
            parent._lock = None

    os.register_at_fork(after_in_child=close)


def _lock_host(folder: Path, host: str, vouched: bool) -> int | None:
    """Lock the folder against this host's other processes; None if the file system cannot.

    vouched: whoever holds the lock is an orphan, so none is needed.
    """
    lock = os.open(folder / f".lock-{host}", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock
    except BlockingIOError:
        pid = os.pread(lock, 20, 0).decode() or "unknown"
        os.close(lock)
        if vouched:
            log.warning("run=%s: is locked by the orphan %s, which is superseded", folder, pid)
            return None
        raise _refusal_by_lock(folder, host, pid) from None
    except OSError as error:
        os.close(lock)
        log.warning("run=%s: cannot be locked (%s). Relying on its lease alone.", folder, error)
        return None


def _wait_for_end(folder: Path, newest: int, lease_seconds: float, locked: str | None) -> None:
    """Return once the newest attempt is known to be over; raise ValueError while it lives.

    locked: name of this host if its lock is held.
    """
    owner = _owner(folder, newest)
    if _is_released(folder, newest):
        log.info("run=%s: attempt %d ended; starting attempt %d", folder, newest, newest + 1)
        return
    if owner.host == locked and owner.boot and owner.boot == _boot():
        log.warning(
            "run=%s: attempt %d takes over from attempt %d: its process %s on this host is dead",
            *(folder, newest + 1, newest, owner.pid),
        )
        return
    seconds = max(lease_seconds, owner.lease_seconds)
    log.warning(
        "run=%s: watching for %g s whether attempt %d, process %s on %s, is alive",
        *(folder, seconds, newest, owner.pid, owner.host),
    )
    if _changes(folder, seconds) and not _is_released(folder, newest):
        raise _refusal(folder, _owner(folder, _newest(folder)), 0.0)
    log.warning(
        "run=%s: attempt %d takes over from attempt %d, process %s on %s",
        *(folder, newest + 1, newest, owner.pid, owner.host),
    )


def _changes(folder: Path, seconds: float) -> bool:
    """Watch the lease for so long; return True as soon as its content changes."""
    first, started = _read_text(folder / _LEASE), time.monotonic()
    while True:
        time.sleep(seconds / _LOOKS)
        # Before the look, not after it: a watcher that was itself stopped in between has not
        # watched for that time.
        watched = time.monotonic() - started
        found = _read_text(folder / _LEASE)
        if found and found != first:
            return True
        if watched >= seconds:
            return False


def _claim(folder: Path, attempt: int, host: str, lease_seconds: float) -> Lease:
    """Make ``attempts/N``, which exactly one process can; raise ValueError if another one did."""
    lease = Lease(attempt, host, os.getpid(), secrets.token_hex(8), _boot(), lease_seconds)
    path = _attempt_file(folder, attempt)
    temporary = path.with_name(f".{path.name}-{lease.token}")
    # A link, not O_EXCL: whoever sees the file sees all of it.
    write_text(temporary, _to_json(lease))
    try:
        os.link(temporary, path)
    except FileExistsError:
        # An NFS server whose answer was lost reports its own success as "exists".
        winner = _owner(folder, attempt)
        if winner.token != lease.token:
            raise _refusal(folder, winner, 0.0) from None
    finally:
        temporary.unlink()
    return lease


def _refusal_by_lock(folder: Path, host: str, pid: str) -> ValueError:
    """Refuse because a process of this host, which is perhaps just starting, holds the lock."""
    newest = _newest(folder)
    lease = _read(folder / _LEASE)
    for attempt in range(newest, 0, -1):
        owner = _owner(folder, attempt)
        if (owner.host, str(owner.pid)) != (host, pid):
            continue
        if lease is not None and lease.token == owner.token:
            return _refusal(folder, owner, time.monotonic() - lease.uptime_seconds)
        return _refused(folder, f"process {pid} on {host} (attempt {attempt}, superseded)")
    return _refused(folder, f"process {pid} on {host} (attempt {newest + 1}, just starting)")


def _refusal(folder: Path, owner: Lease, seconds: float) -> ValueError:
    return _refused(
        folder,
        f"process {owner.pid} on {owner.host} "
        f"(attempt {owner.attempt}, last sign of life {max(seconds, 0.0):.0f} seconds ago)",
    )


def _refused(folder: Path, who: str) -> Busy:
    return Busy(
        f"run={folder}: is being trained by {who}. Wait for it, stop it, or choose another name."
    )


def _attempt_file(folder: Path, attempt: int) -> Path:
    return folder / _ATTEMPTS / f"{attempt:06d}"


def _newest(folder: Path) -> int:
    """Return the number of the attempt that owns the folder, 0 if there was none."""
    made = [int(name) for name in os.listdir(folder / _ATTEMPTS) if name.isdigit()]
    lease = _read(folder / _LEASE)
    return max([*made, 0 if lease is None else lease.attempt])


def _owner(folder: Path, attempt: int) -> Lease:
    """Return who made an attempt; somebody unknown if its file cannot be read."""
    unknown = Lease(attempt, "an unknown host", 0, "", "", 0.0)
    return _read(_attempt_file(folder, attempt)) or unknown


def _is_released(folder: Path, newest: int) -> bool:
    lease = _read(folder / _LEASE)
    return lease is not None and lease.attempt == newest and lease.released


def _boot() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def _renewed(lease: Lease) -> Lease:
    return replace(lease, renewed=lease.renewed + 1, uptime_seconds=time.monotonic())


def _write(folder: Path, lease: Lease) -> None:
    write_text(folder / _LEASE, _to_json(lease))


def _to_json(lease: Lease) -> str:
    return json.dumps(asdict(lease)) + "\n"


def _read(path: Path) -> Lease | None:
    """Read a lease; None if there is none or it cannot be read."""
    text = _read_text(path)
    if not text:
        return None
    try:
        found = Lease(**(parse_object(text) or {}))
    except TypeError as error:
        log.warning("%s: is no lease (%s)", path, error)
        return None
    if not isinstance(found.attempt, int) or number_of(found.lease_seconds) is None:
        log.warning("%s: is no lease (its numbers are none)", path)
        return None
    return found


def _read_text(path: Path) -> str:
    """Return what a lease file holds, '' if there is none or it cannot be read; never waits."""
    text, problem = read_tail(path, _LEASE_BYTES)
    if problem:
        # A file that vanished from a network file system while it was read is replaced by now.
        log.warning("%s: %s", path.parent, problem)
    return text
