"""At most one attempt writes to a run folder: shown with processes that are killed and stopped."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainer.run.lease import Fence, Fenced

# Takes the fence, says so, and then answers each line it reads.
HOLDER = """
import logging, os, sys, time
from pathlib import Path
from trainer.run.lease import Fence, Fenced

logging.basicConfig(level=logging.INFO)
folder, host, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
try:
    fence = Fence.take(folder, seconds, host)
except ValueError as error:
    sys.exit(f"refused: {error}")
print("took", fence.attempt, flush=True)
for line in sys.stdin:
    if line == "check\\n":
        try:
            fence.check()
            print("mine", flush=True)
        except Fenced as error:
            print("fenced:", error, flush=True)
    elif line == "fork\\n":
        child = os.fork()
        if child == 0:
            print(os.getpid(), flush=True)
            time.sleep(60)
            os._exit(0)
    elif line == "release\\n":
        fence.release()
        print("released", flush=True)
"""
HOST = socket.gethostname()


class Holder:
    """A process that takes the fence of a folder."""

    def __init__(self, folder: Path, host: str = "", seconds: float = 1.0) -> None:
        command = [sys.executable, "-c", HOLDER, str(folder), host, str(seconds)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe)

    def read(self) -> str:
        """Return its next line, "" when it ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, what: str) -> str:
        """Send it a line and return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.read()

    def kill(self) -> str:
        """Kill it hard and return what it wrote to stderr."""
        self.process.kill()
        return self.process.communicate()[1]


@pytest.fixture
def hold() -> Iterator[Callable[..., Holder]]:
    """Return a way to start holders, which are killed after the test."""
    holders: list[Holder] = []

    def start(*args: object, **kwargs: object) -> Holder:
        holders.append(Holder(*args, **kwargs))  # type: ignore[arg-type]
        return holders[-1]

    yield start
    for holder in holders:
        holder.kill()


def lease(folder: Path) -> dict:
    return json.loads((folder / "attempt.json").read_text())


def attempts(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "attempts"))


def test_the_first_attempt_is_number_one(tmp_path: Path) -> None:
    fence = Fence.take(tmp_path)
    fence.check()
    assert fence.attempt == 1
    assert lease(tmp_path)["pid"] == os.getpid()
    assert lease(tmp_path)["host"] == HOST
    fence.release()


def test_a_second_start_is_refused_and_told_who_trains(tmp_path: Path, hold: Callable) -> None:
    holder = hold(tmp_path, HOST)
    assert holder.read() == "took 1"
    with pytest.raises(ValueError) as refused:
        Fence.take(tmp_path)
    assert re.fullmatch(
        rf"run={re.escape(str(tmp_path))}: is being trained by process {holder.process.pid} on "
        rf"{re.escape(HOST)} \(attempt 1, last sign of life \d seconds ago\)\. "
        r"Wait for it, stop it, or choose another name\.",
        str(refused.value),
    )
    assert attempts(tmp_path) == ["000001"]
    assert holder.ask("check") == "mine"


def test_a_killed_attempt_is_taken_over_at_once_on_its_host(tmp_path: Path, hold: Callable) -> None:
    holder = hold(tmp_path, HOST, seconds=60.0)
    assert holder.read() == "took 1"
    holder.kill()
    started = time.monotonic()
    fence = Fence.take(tmp_path, 60.0)
    assert time.monotonic() - started < 2
    assert fence.attempt == 2
    fence.release()


def test_a_forked_child_does_not_keep_a_dead_attempt_alive(tmp_path: Path, hold: Callable) -> None:
    holder = hold(tmp_path, HOST, seconds=60.0)
    assert holder.read() == "took 1"
    child = int(holder.ask("fork"))
    try:
        os.kill(holder.process.pid, signal.SIGKILL)
        holder.process.wait()
        fence = Fence.take(tmp_path, 60.0)
        os.kill(child, 0)  # it does live
        assert fence.attempt == 2
        fence.release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_released_folder_is_taken_at_once_from_any_host(tmp_path: Path, hold: Callable) -> None:
    holder = hold(tmp_path, "first", seconds=60.0)
    assert holder.read() == "took 1"
    assert holder.ask("release") == "released"
    assert lease(tmp_path)["released"]
    started = time.monotonic()
    fence = Fence.take(tmp_path, 60.0, "second")
    assert time.monotonic() - started < 2
    assert fence.attempt == 2
    assert "superseded" in holder.ask("check")
    fence.release()
    fence.release()


@pytest.mark.heavy
def test_a_living_attempt_on_another_host_is_respected(tmp_path: Path, hold: Callable) -> None:
    holder = hold(tmp_path, "first", seconds=3.0)
    assert holder.read() == "took 1"
    with pytest.raises(ValueError, match=r"on first \(attempt 1, last sign of life 0 seconds ago"):
        Fence.take(tmp_path, 3.0, "second")
    assert holder.ask("check") == "mine"


@pytest.mark.heavy
def test_a_dead_attempt_on_another_host_is_taken_over_after_its_lease(
    tmp_path: Path, hold: Callable
) -> None:
    holder = hold(tmp_path, "first", seconds=2.0)
    assert holder.read() == "took 1"
    holder.kill()
    started = time.monotonic()
    # The lease of the dead counts: its owner renews it no more often than that.
    fence = Fence.take(tmp_path, 0.5, "second")
    assert 2 <= time.monotonic() - started < 4
    assert fence.attempt == 2
    fence.release()


@pytest.mark.heavy
def test_a_rebooted_host_waits_for_the_lease(tmp_path: Path, hold: Callable) -> None:
    # Or another machine of the same name: its lock says nothing about this one's processes.
    holder = hold(tmp_path, HOST)
    assert holder.read() == "took 1"
    holder.kill()
    for path in (tmp_path / "attempt.json", tmp_path / "attempts/000001"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "another"}))
    started = time.monotonic()
    fence = Fence.take(tmp_path, 1.0)
    assert time.monotonic() - started >= 1
    fence.release()


@pytest.mark.heavy
def test_a_stopped_attempt_that_wakes_up_is_fenced(tmp_path: Path, hold: Callable) -> None:
    stale = hold(tmp_path, "first")
    assert stale.read() == "took 1"
    os.kill(stale.process.pid, signal.SIGSTOP)
    newer = hold(tmp_path, "second")
    assert newer.read() == "took 2"
    os.kill(stale.process.pid, signal.SIGCONT)
    assert stale.ask("check") == (
        f"fenced: run={tmp_path}: attempt 1 was superseded by attempt 2 of process "
        f"{newer.process.pid} on second; this one writes nothing more"
    )
    time.sleep(1)  # three renewals
    assert lease(tmp_path)["attempt"] == 2
    assert stale.ask("release") == "released"
    assert lease(tmp_path)["attempt"] == 2
    assert newer.ask("check") == "mine"
    assert "attempt 1 was superseded by attempt 2" in stale.kill()


@pytest.mark.heavy
def test_a_superseded_attempt_that_overwrites_the_lease_wins_nothing(
    tmp_path: Path, hold: Callable
) -> None:
    old = Fence.take(tmp_path, 1.0, "first")
    old.release()
    stale = (tmp_path / "attempt.json").read_text()
    assert json.loads(stale)["released"]
    fence = Fence.take(tmp_path, 3.0, "second")
    (tmp_path / "attempt.json").write_text(stale)  # it was stopped right before its rename
    fence.check()
    with pytest.raises(Fenced):
        old.check()
    third = hold(tmp_path, "third", seconds=3.0)
    assert third.read() == ""
    assert "on second (attempt 2" in third.process.communicate()[1]
    assert lease(tmp_path)["attempt"] == 2
    fence.release()


@pytest.mark.heavy
def test_an_attempt_that_died_before_its_first_lease_is_taken_over(
    tmp_path: Path, hold: Callable
) -> None:
    holder = hold(tmp_path, "first")
    assert holder.read() == "took 1"
    holder.kill()
    (tmp_path / "attempt.json").unlink()
    fence = Fence.take(tmp_path, 0.3, "second")
    assert fence.attempt == 2
    fence.release()


OTHER_LEASE = '{"attempt": %s, "host": "h", "pid": 1, "token": "", "boot": "", "lease_seconds": %s}'


@pytest.mark.parametrize(
    "text",
    [
        '{"attempt": ',
        "[" * 100_000,
        OTHER_LEASE % ('"9"', "1"),
        OTHER_LEASE % ("1", "Infinity"),
        None,  # a pipe, whose reader would wait for ever
    ],
)
def test_a_damaged_lease_only_costs_the_wait(tmp_path: Path, text: str | None) -> None:
    Fence.take(tmp_path, 0.3).release()
    for path in (tmp_path / "attempt.json", tmp_path / "attempts/000001"):
        path.unlink()
        os.mkfifo(path) if text is None else path.write_text(text)
    fence = Fence.take(tmp_path, 0.3)
    assert fence.attempt == 2
    fence.release()


@pytest.mark.heavy
@pytest.mark.parametrize("same_host", [True, False])
@pytest.mark.parametrize("before", ["nothing", "a dead attempt"])
def test_of_eight_processes_that_race_exactly_one_wins(
    tmp_path: Path, hold: Callable, same_host: bool, before: str
) -> None:
    if before == "a dead attempt":
        dead = hold(tmp_path, "dead")
        assert dead.read() == "took 1"
        dead.kill()
    number = len(attempts(tmp_path)) + 1 if before == "a dead attempt" else 1
    racers = [hold(tmp_path, HOST if same_host else f"host{i}", seconds=3.0) for i in range(8)]
    answers = [racer.read() for racer in racers]
    assert sorted(answers) == [""] * 7 + [f"took {number}"]
    (winner,) = [racer for racer, answer in zip(racers, answers, strict=True) if answer]
    for loser in racers:
        if loser is not winner:
            assert "is being trained by process" in loser.process.communicate()[1]
            assert loser.process.returncode == 1
    assert winner.ask("check") == "mine"
    assert attempts(tmp_path)[-1] == f"{number:06d}"
    assert len(attempts(tmp_path)) == number


@pytest.mark.heavy
def test_a_full_disk_while_renewing_is_logged_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fence = Fence.take(tmp_path, 0.3)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("trainer.run.lease.write_text", full)
        time.sleep(0.3)
    assert "cannot renew the lease ([Errno 28]" in caplog.text
    renewed = lease(tmp_path)["renewed"]
    time.sleep(0.3)
    assert lease(tmp_path)["renewed"] > renewed
    fence.release()


def test_a_file_system_without_locks_relies_on_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("trainer.run.lease.fcntl.flock", no_locks)
    first = Fence.take(tmp_path, 0.6)
    assert "Relying on its lease alone" in caplog.text
    with pytest.raises(ValueError, match="attempt 1"):
        Fence.take(tmp_path, 0.6)
    first.check()
    first.release()
