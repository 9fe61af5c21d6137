"""Runs as forks of one process that has imported what they need (trainer/warm.py)."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from launch.local.process import WARM, environment, guarded
from launch.run_folder.records import is_alive, this_host

_REPLY_SECONDS = 10.0  # a fork takes milliseconds, on a busy machine a second
_LOST = -15  # SIGTERM: what the kernel sends to runs whose parent died


class Forked:
    """A run that was forked; see ``launch.local.process.Process``."""

    def __init__(self, starter: "WarmStarter", pid: int) -> None:
        self._starter, self.pid = starter, pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it lives."""
        if self._code is None:
            self._code = self._starter.code_of(self.pid)
        return self._code

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        while (code := self.poll()) is None:
            time.sleep(0.01)
        return code

    def send_signal(self, sig: int) -> None:
        """Signal it, if it lives."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)


class WarmStarter:
    """Fork runs from a process that imports while others run; until it is ready it forks none."""

    def __init__(self, env: Mapping[str, str], threads: int) -> None:
        command = [sys.executable, "-m", "trainer.warm"]
        self._process = subprocess.Popen(
            guarded(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what fails here is started otherwise
            env=environment(env, threads, WARM),
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._answers.fileno(), False)
        self._pending, self._ready, self._over = b"", False, False
        self._codes: dict[int, int] = {}
        self._started: list[int] = []

    def fork(self, folder: Path, log: Path, env: Mapping[str, str]) -> Forked | None:
        """Start a run; None where this process is not ready, or does not answer."""
        self._listen()
        if not self._ready or self._over:
            return None
        order = {"folder": str(folder), "log": str(log), "environment": dict(env)}
        before, deadline = len(self._started), time.monotonic() + _REPLY_SECONDS
        try:
            self._orders.write(json.dumps(order).encode() + b"\n")
        except OSError:
            self._over = True
        while len(self._started) == before and not self._over:
            if time.monotonic() > deadline:
                self.close()  # an order that comes to life later must not train beside another
                return None
            time.sleep(0.001)
            self._listen()
        return None if self._over else Forked(self, self._started[-1])

    def code_of(self, pid: int) -> int | None:
        """Return how a run that was forked here ended, None while it lives."""
        self._listen()
        if pid not in self._codes and self._over and not is_alive({"pid": pid, **this_host()}):
            return _LOST
        return self._codes.get(pid)

    def close(self) -> None:
        """End the process; runs that live are asked to save by the kernel."""
        self._over = True
        self._process.kill()
        self._process.wait()
        self._orders.close()
        self._answers.close()

    def _listen(self) -> None:
        """Take in what it has said."""
        while not self._over:
            try:
                read = self._answers.read(1 << 16)
            except OSError:
                read = b""
            if read is None:
                return
            if not read:
                self._over = True
                return
            *lines, self._pending = (self._pending + read).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, record: Mapping[str, Any]) -> None:
        pid = record.get("pid")
        if pid is None:
            self._ready = True
            return
        if pid not in self._started:  # one that died at once tells its end alone
            self._started.append(pid)
        if "status" in record:
            self._codes[pid] = record["status"]
