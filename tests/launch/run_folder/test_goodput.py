"""Wall time is attributed as a person would, from records written by hand."""

import pytest

from launch.run_folder.goodput import account


def timeline(attempt: int, started: float, first: int, last: int, moved: float, **seconds: float):
    """Return a timeline; seconds by phase, with underscores for spaces."""
    named = {phase.replace("_", " "): spent for phase, spent in seconds.items()}
    return {"attempt": attempt, "started": started, "moved": moved, "written": moved + 1,
            "first_step": first, "step": last, "seconds": named}  # fmt: skip


def start(time: float, submitted: float = 0.0, **fields: object) -> dict:
    return {"event": "start", "time": time, "submitted": submitted} | fields


def end(time: float, outcome: str) -> dict:
    return {"event": "end", "time": time, "outcome": outcome}


def test_a_lost_node_is_detection_requeue_start_load_and_repeated_steps():
    launches = [start(110.0, 100.0), start(300.0, 260.0), end(420.0, "done")]
    timelines = [
        timeline(1, 120.0, 0, 100, 240.0, start=10, forward_and_backward=100, checkpoint=2),
        timeline(2, 310.0, 80, 160, 415.0, start=10, load=5, forward_and_backward=80, checkpoint=1),
    ]
    found = account(launches, timelines, 0.0)
    assert found.lost == {
        "queue": 10.0,  # submitted at 100, started at 110
        "detect": 20.0,  # moved last at 240, queued again at 260
        "requeue": 40.0,
        "repeat": pytest.approx(20.0),  # 20 of 100 steps that took 100 s
        "load": 5.0,
        "save": 3.0,
        "end": 5.0,
        "start": pytest.approx(150 - 100 - 2 - 20 + 120 - 80 - 1 - 5 - 5),
    }
    assert found.useful == pytest.approx(160.0)
    assert found.wall == 320.0
    assert found.share == pytest.approx(0.5)
    assert sum(found.lost.values()) + found.useful == pytest.approx(found.wall)


def test_a_restart_in_place_waits_for_nothing_but_its_pause():
    launches = [start(10.0), end(60.0, "failed"), start(62.0, in_place=True), end(100.0, "done")]
    timelines = [
        timeline(1, 11.0, 0, 10, 55.0, start=4, forward_and_backward=40),
        timeline(2, 63.0, 10, 20, 99.0, start=4, forward_and_backward=30),
    ]
    found = account(launches, timelines, 0.0)
    assert found.lost["requeue"] == 2.0
    assert found.lost["detect"] == 5.0
    assert found.lost["repeat"] == 0.0
    assert found.useful == 70.0


def test_a_run_without_a_launcher_is_measured_from_its_own_word():
    found = account([], [timeline(1, 50.0, 0, 9, 95.0, start=5, data=10, update=30)], 0.0)
    assert found.wall == 46.0
    assert found.useful == 40.0
    assert found.lost["start"] == pytest.approx(5.0)
    assert found.told


def test_a_run_that_has_not_begun_has_no_goodput():
    assert account([], [], 0.0).share is None
    running = account([start(10.0, 4.0)], [], now=30.0)
    assert running.lost["queue"] == 6.0
    assert running.lost["start"] == 20.0
    assert running.share == 0.0
    assert not running.told


def test_clocks_that_disagree_never_give_negative_seconds():
    launches = [start(10.0, 12.0), start(9.0, 8.0), end(8.0, "done")]
    found = account(launches, [timeline(1, 11.0, 0, 5, 99.0, start=1, data=2)], 0.0)
    assert min(found.lost.values()) >= 0.0
