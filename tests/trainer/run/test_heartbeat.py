"""A run that stands still says which rank holds it up: shown with processes that really hang."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer.run import heartbeat
from trainer.run.heartbeat import STALLED, Heartbeat, read_heartbeats
from trainer.run.suspects import find_suspects, turn_of

WORLD = 3
BEAT, STALL = 0.4, 1.5
# A rank of a run of three: steps end together, as a collective would make them.
RANK = """
import logging, sys, time
from pathlib import Path
from trainer.run.heartbeat import Heartbeat

logging.basicConfig(format="%(message)s")
folder, rank, plan = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
heart = Heartbeat(folder, rank, WORLD, BEAT, STALL)
heart.start()

def arrive(step):
    (folder / f"at-{step}-{rank}").touch()
    while not all((folder / f"at-{step}-{r}").exists() for r in range(WORLD)):
        time.sleep(0.01)

for step in range(6):
    heart.advance(step, "read")
    if plan == "reads" and rank == 1 and step == 4:
        time.sleep(60)
    if plan == "slow" and rank == 1:
        time.sleep(STALL * 0.5)
    heart.advance(step, "forward")
    if plan == "waits" and step == 4:
        time.sleep(60)
    if plan == "signal" and rank == 1 and step == 4:
        print("here", flush=True)
        time.sleep(60)
    arrive(step)
    if plan == "behind" and rank == 1 and step == 3:
        time.sleep(60)
heart.stop()
"""


class Ranks:
    """Three processes that train together."""

    def __init__(self, folder: Path, plan: str) -> None:
        self.folder = folder
        code = RANK
        for name, value in {"WORLD": WORLD, "BEAT": BEAT, "STALL": STALL}.items():
            code = code.replace(name, str(value))
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(folder), str(rank), plan],
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for rank in range(WORLD)
        ]

    def wait(self, *ranks: int) -> tuple[list[int], list[str]]:
        """Wait for some ranks and return their exit statuses and what they wrote to stderr."""
        errors = [self.processes[rank].communicate(timeout=300)[1] for rank in ranks]
        return [self.processes[rank].returncode for rank in ranks], errors

    def close(self) -> None:
        """Kill what is left."""
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def ranks(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ranks]:
    """Return three processes that follow the plan of the test's parameter."""
    started = Ranks(tmp_path, request.param)
    yield started
    started.close()


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "stalled.json").read_text())


@pytest.mark.heavy
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
@pytest.mark.parametrize("ranks", ["signal"], indirect=True)
def test_a_stopped_or_killed_rank_is_named_and_the_others_leave(ranks: Ranks, how: int) -> None:
    victim = ranks.processes[1]
    assert victim.stdout is not None
    assert victim.stdout.readline() == "here\n"
    time.sleep(2 * BEAT)  # its step is in its file
    os.kill(victim.pid, how)
    started = time.monotonic()
    statuses, errors = ranks.wait(0, 2)
    # The others came to wait up to two beats before the victim died; a second for a busy machine.
    assert time.monotonic() - started < STALL + 3 * BEAT + 1
    assert statuses == [STALLED, STALLED]
    who = f"rank 1 ({socket.gethostname()}, {victim.pid}) gives no sign of life; "
    for error in errors:
        assert who + "last at step 4 in forward" in error
        assert ", in arrive" in error  # where the main thread hung
    found = report(ranks.folder)
    assert [(s["rank"], s["step"], s["pid"]) for s in found["suspects"]] == [(1, 4, victim.pid)]
    assert found["noticed_by"]["rank"] in (0, 2)
    assert found["step"] == 4
    assert found["summary"] == found["suspects"][0]["reason"]


@pytest.mark.heavy
@pytest.mark.parametrize("ranks", ["behind"], indirect=True)
def test_a_rank_that_beats_but_is_behind_is_named(ranks: Ranks) -> None:
    statuses, errors = ranks.wait(0, 1, 2)
    assert statuses == [STALLED] * 3
    found = report(ranks.folder)
    assert [suspect["rank"] for suspect in found["suspects"]] == [1]
    assert found["summary"] == "rank 1 is behind: step 3 in forward, others at 4"
    assert all(found["summary"] in error for error in errors)


@pytest.mark.heavy
@pytest.mark.parametrize("ranks", ["reads"], indirect=True)
def test_ranks_at_the_same_step_are_told_apart_by_their_phases(ranks: Ranks) -> None:
    assert ranks.wait(0, 1, 2)[0] == [STALLED] * 3
    found = report(ranks.folder)
    assert found["suspects"] == []
    assert found["summary"] == "all ranks wait at step 4 in read (rank 1), forward (rank 0, 2)"


@pytest.mark.heavy
@pytest.mark.parametrize("ranks", ["waits"], indirect=True)
def test_when_all_wait_at_the_same_place_nobody_is_blamed(ranks: Ranks) -> None:
    assert ranks.wait(0, 1, 2)[0] == [STALLED] * 3
    found = report(ranks.folder)
    assert (found["suspects"], found["summary"]) == ([], "all ranks wait at step 4 in forward")


@pytest.mark.heavy
@pytest.mark.parametrize("ranks", ["slow"], indirect=True)
def test_nobody_is_blamed_while_steps_are_slow_but_end(ranks: Ranks) -> None:
    statuses, errors = ranks.wait(0, 1, 2)
    assert (statuses, errors) == ([0] * 3, [""] * 3)
    assert not (ranks.folder / "stalled.json").exists()
    signs = read_heartbeats(ranks.folder)
    assert [(s["rank"], s["step"], s["phase"]) for s in signs] == [
        (rank, 5, "ended") for rank in range(WORLD)
    ]
    assert [s["pid"] for s in signs] == [process.pid for process in ranks.processes]


def start(folder: Path, stall: float = 0.3, **kwargs: Any) -> tuple[Heartbeat, list[float]]:
    """Start the only rank of a run; return it and the times at which it would have left."""
    left: list[float] = []
    heart = Heartbeat(folder, 0, 1, 0.1, stall, lambda: left.append(time.monotonic()), **kwargs)
    heart.start()
    return heart, left


@pytest.mark.heavy
def test_a_sign_of_life_says_where_a_rank_is_and_changes_with_every_beat(tmp_path: Path) -> None:
    heart, _ = start(tmp_path, stall=0)
    heart.advance(17, "backward")
    time.sleep(0.3)
    (first,) = read_heartbeats(tmp_path)
    time.sleep(0.3)
    (second,) = read_heartbeats(tmp_path)
    heart.stop()
    keys = ("rank", "step", "phase", "pid", "host")
    assert [first[k] for k in keys] == [0, 17, "backward", os.getpid(), socket.gethostname()]
    assert second["beat"] > first["beat"]
    (last,) = read_heartbeats(tmp_path)
    assert (last["step"], last["phase"]) == (17, "ended")
    assert os.listdir(tmp_path / "heartbeats") == ["rank-00000.json"]


@pytest.mark.heavy
def test_no_stall_seconds_means_no_watchdog(tmp_path: Path) -> None:
    heart, left = start(tmp_path, stall=0)
    time.sleep(0.8)
    heart.stop()
    assert left == []


@pytest.mark.heavy
def test_loading_and_starting_may_last_longer_than_a_step(tmp_path: Path) -> None:
    heart, left = start(tmp_path, start_seconds=60.0)
    time.sleep(1)
    assert left == []
    heart.advance(0, "forward")
    while not left:
        time.sleep(0.05)
    heart.stop()


@pytest.mark.heavy
def test_moving_on_keeps_the_watchdog_quiet(tmp_path: Path) -> None:
    heart, left = start(tmp_path, stall=1.0)
    for step in range(20):
        heart.advance(step, "forward")
        time.sleep(0.1)
    heart.stop()
    assert left == []


@pytest.mark.heavy
def test_a_full_disk_does_not_make_a_rank_blame_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heart, left = start(tmp_path)
    write_text = Path.write_text

    def full(path: Path, *args: Any, **kwargs: Any) -> int:
        if tmp_path in path.parents:
            raise OSError(28, "No space left on device")
        return write_text(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        while not left:
            time.sleep(0.05)
        heart.stop()
    assert "all ranks wait at step 0 in start" in caplog.text
    assert "stalled.json: cannot be written ([Errno 28]" in caplog.text
    assert caplog.text.count("Others may blame us") == 1


@pytest.mark.heavy
def test_a_report_that_hangs_does_not_keep_the_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heartbeat, "_report", lambda *args: time.sleep(60))
    heart, left = start(tmp_path)
    time.sleep(2)
    heart.stop()
    assert left


@pytest.mark.heavy
def test_a_report_of_an_earlier_attempt_is_replaced_but_the_first_of_this_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    path = tmp_path / "stalled.json"
    path.write_text("{}")
    left: list[int] = []
    hearts = [
        Heartbeat(tmp_path, rank, 3, 0.1, 0.3 * rank, lambda r=rank: left.append(r))
        for rank in (1, 2)
    ]
    for heart in hearts:
        heart.start()
    assert path.read_text() == "{}"
    while 2 not in left:
        time.sleep(0.05)
    for heart in hearts:
        heart.stop()
    found = report(tmp_path)
    assert found["noticed_by"]["rank"] == 1
    assert found["summary"] == "rank 0 never gave a sign of life"
    Heartbeat(tmp_path, 0, 3, 60, 0).start()
    assert not path.exists()


@pytest.mark.heavy
def test_a_rank_that_noticed_first_and_left_is_not_blamed_by_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Heartbeat(tmp_path, 1, 2, 0.1, 0.3, lambda: first._stopping.set())  # as _exit would
    left: list[bool] = []
    second = Heartbeat(tmp_path, 0, 2, 0.1, 1.2, lambda: left.append(True))
    second.start()
    first.start()
    while not left:
        time.sleep(0.05)
    second.stop()
    found = report(tmp_path)
    assert found["noticed_by"]["rank"] == 1
    assert caplog.text.count("all ranks wait at step 0 in start") == 2
    assert "sign of life" not in caplog.text


@pytest.mark.heavy
def test_a_process_that_was_itself_stopped_blames_nobody_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from trainer.run.heartbeat import Heartbeat; "
        "import logging; logging.basicConfig(); "
        "heart = Heartbeat(Path(sys.argv[1]), 0, 2, 0.2, 2.0); heart.start(); "
        "print('here', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(3)
        os.kill(process.pid, signal.SIGCONT)
        woken = time.monotonic()
        process.wait(timeout=300)
        assert 2.0 <= time.monotonic() - woken < 5
        assert process.returncode == STALLED
        assert process.stderr is not None
        error = process.stderr.read()
        assert "rank 0 was itself stopped for" in error
        assert "rank 1 never gave a sign of life" in error
    finally:
        process.kill()
        process.communicate()


def test_four_ranks_far_apart_look_at_everybody_and_the_others_at_these() -> None:
    turns = {rank: turn_of(rank, 1024) for rank in range(1024)}
    everybody = [rank for rank, (_, watched) in turns.items() if len(watched) == 1024]
    assert sorted(everybody, key=lambda rank: turns[rank][0]) == [0, 512, 256, 768]
    assert turns[5] == (4, [0, 5, 256, 512, 768])
    assert [turn_of(rank, 3)[0] for rank in range(3)] == [0, 1, 2]
    assert turn_of(0, 1) == (0, range(1))


@pytest.mark.heavy
def test_a_stall_of_many_ranks_is_read_by_one_and_told_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world, left, read = 24, [], []
    read_signs = heartbeat._read_signs

    def counted(paths: list[Path], tell: Any) -> list[dict[str, Any]]:
        read.extend(paths)
        return read_signs(paths, tell)

    def leave(rank: int) -> None:
        hearts[rank]._stopping.set()
        left.append(rank)

    monkeypatch.setattr(heartbeat, "_read_signs", counted)
    hearts = [
        Heartbeat(tmp_path, rank, world, 0.3, 1.0, lambda r=rank: leave(r), record=str)
        for rank in range(world)
    ]
    for heart in hearts[1:]:  # rank 0, whose turn is the first, never starts
        heart.start()
    while len(left) < world - 1:
        time.sleep(0.05)
    found = report(tmp_path)
    assert found["summary"] == "rank 0 never gave a sign of life"
    assert found["noticed_by"]["rank"] in (12, 6, 18)
    # Two looks of one rank at those that there are; of all three on a machine that is late.
    assert 2 * (world - 1) <= len(read) <= 3 * 2 * (world - 1)
    assert caplog.text.count("rank 0 never gave a sign of life") == world - 1
    assert len(list((tmp_path / "stalled").iterdir())) == world - 1


def test_unreadable_signs_are_left_out_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_heartbeats(tmp_path) == []
    start(tmp_path, stall=0)[0].stop()
    for rank, text in enumerate(['{"rank": ', "[]", '{"rank": 3}'], start=1):
        (tmp_path / f"heartbeats/rank-{rank:05d}.json").write_text(text)
    assert [sign["rank"] for sign in read_heartbeats(tmp_path)] == [0]
    assert caplog.text.count("cannot be read") == 3
    assert "lacks beat, host" in caplog.text


def signs(steps: list[int], beat: int, phases: list[str] | None = None) -> dict[int, dict]:
    """Return the signs of life of a world."""
    phases = phases or ["forward"] * len(steps)
    fixed = {"host": "node", "beat": beat, "noticed": False, "written": float(beat)}
    return {
        rank: fixed | {"rank": rank, "pid": 100 + rank, "step": step, "phase": phase}
        for rank, (step, phase) in enumerate(zip(steps, phases, strict=True))
    }


def test_the_rank_at_the_lowest_step_is_behind() -> None:
    steps = [17, 17, 16, 17]
    suspects, summary = find_suspects(signs(steps, 1), signs(steps, 4), range(4))
    assert [suspect.rank for suspect in suspects] == [2]
    assert summary == "rank 2 is behind: step 16 in forward, others at 17"


def test_a_silent_rank_counts_before_one_that_is_behind() -> None:
    before, after = signs([17, 16, 17], 1), signs([17, 16, 17], 9)
    after[2] = before[2]
    suspects, summary = find_suspects(before, after, range(3))
    assert [suspect.rank for suspect in suspects] == [2]
    assert summary == (
        "rank 2 (node, 102) gives no sign of life; last at step 17 in forward, 8 s ago"
    )


def test_a_rank_that_noticed_the_stall_and_left_is_not_silent() -> None:
    before, after = signs([17] * 3, 1), signs([17] * 3, 9)
    before[1]["noticed"] = True
    after[1] = before[1]
    assert find_suspects(before, after, range(3)) == ([], "all ranks wait at step 17 in forward")


def test_a_rank_that_ended_while_others_wait_is_named() -> None:
    before, after = signs([17] * 2, 1), signs([17] * 2, 9, ["forward", "ended"])
    suspects, summary = find_suspects(before, after, range(2))
    assert [suspect.rank for suspect in suspects] == [1]
    assert summary == "rank 1 (node, 101) has ended at step 17, 0 s ago"


def test_ranks_of_an_earlier_larger_attempt_are_ignored() -> None:
    old = signs([3] * 8, 1)
    summary = find_suspects(old | signs([17] * 4, 2), old | signs([17] * 4, 5), range(4))[1]
    assert summary == "all ranks wait at step 17 in forward"


def test_many_waiting_ranks_are_told_in_ranges_with_the_rare_phase_first() -> None:
    phases = ["forward"] * 512 + ["backward"] * 500 + ["read"] + ["backward"] * 11
    steps = [7] * 1024
    assert find_suspects(signs(steps, 1, phases), signs(steps, 4, phases), range(1024))[1] == (
        "all ranks wait at step 7 in read (rank 1012), "
        "backward (rank 512-1011, 1013-1023), forward (rank 0-511)"
    )


def test_the_module_does_not_import_torch() -> None:
    code = "import sys, trainer.run.heartbeat, trainer.run.lease; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0
