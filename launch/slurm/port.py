"""A port for a run's rendezvous that no other job on the node takes."""

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

# Below Linux's ephemeral ports (32768 on), so that no outgoing connection takes one by chance.
_FIRST, _COUNT = 20_000, 12_000


def hold_port(job: int, folder: Path = Path("/tmp")) -> tuple[int, IO[bytes]]:
    """Return a free port and a file; the port is ours against other supervisors while it is open.

    The ranks bind it seconds later, so a look whether it is free is not enough: two jobs that start
    on one node together would find the same one. The kernel drops the lock with its holder.
    """
    for number in range(_COUNT):
        port = _FIRST + (job * 7 + number) % _COUNT
        held = _lock(folder / f"kinescale-port-{port}.lock")
        if held is None:
            continue
        if _is_free(port):
            return port, held
        held.close()
    raise OSError(f"no free port from {_FIRST} to {_FIRST + _COUNT}")


def _lock(path: Path) -> IO[bytes] | None:
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")
    except OSError:
        return None  # another user's
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
