"""launch.local.eta: speeds that are learned, and the time that is left by them."""

import csv
import itertools
import random
from pathlib import Path

import pytest

from launch.local.eta import Amount, Observation, Speed, Track, learn_speed, makespan, seconds_left

# As in the demo on two cores.
REAL = Speed(start=7.0, end=3.0, job=2.0, token=15e-6, flop=3e-11)
SMALL, LARGE = Amount(1, 8.4e6, 2.0e12), Amount(1, 1.6e6, 2.0e12)
PILOT = [Amount(1, 7e5, 7e10), Amount(1, 1.6e5, 7e10)]


def ended(work: Amount) -> Observation:
    return Observation(REAL.steps(work), work, REAL.start, REAL.end)


def took(work: Amount) -> float:
    return REAL.start + REAL.steps(work) + REAL.end


def test_jobs_of_different_shapes_tell_what_goes_by_tokens_and_what_by_flops():
    speed = learn_speed([ended(work) for work in (SMALL, LARGE, Amount(1, 1e6, 1e11), *PILOT)])
    assert speed is not None
    assert (speed.start, speed.end) == (7.0, 3.0)
    assert speed.token == pytest.approx(REAL.token, rel=0.05)
    assert speed.flop == pytest.approx(REAL.flop, rel=0.05)


def test_before_a_second_shape_was_seen_half_of_the_time_goes_by_tokens():
    speed = learn_speed([Observation(100.0, SMALL)])
    assert speed is not None
    assert speed.token * SMALL.tokens == pytest.approx(50.0, rel=0.05)
    assert speed.flop * SMALL.flops == pytest.approx(50.0, rel=0.05)


def test_nothing_seen_is_no_time():
    assert learn_speed([]) is None
    assert seconds_left([Track(SMALL, 1)], [], 2, now=5.0) is None


def test_jobs_with_equal_flops_get_their_own_times():
    """The mean rate of the first two runs would say the same of all four."""
    tracks = [Track(work, 1) for work in (SMALL, SMALL, LARGE, LARGE)]
    wanted = took(SMALL) + took(LARGE)
    for track in tracks[:2]:
        track.start(0.0)
        track.advance(7.0, 1e-4)
        track.advance(60.0, 1e-4 + 53 / REAL.steps(SMALL))
    pilot = [ended(work) for work in PILOT]
    assert seconds_left(tracks, pilot, 2, now=60.0) == pytest.approx(wanted - 60, rel=0.1)


def test_a_resumed_job_and_a_retry_count_what_they_do_themselves():
    job = Track(LARGE, 1, done=0.5)
    job.start(100.0)
    job.advance(105.0, 0.4)  # the retry is behind what was shown
    assert job.seen() is None
    job.advance(120.0, 0.6)
    job.advance(140.0, 0.8)
    seen = job.end(150.0)
    assert seen == Observation(20.0, LARGE.share(0.8 - 0.6), start=20.0, end=10.0)
    assert job.begun is None


def test_a_job_that_tells_nothing_counts_as_a_whole():
    job = Track(Amount(1, 0.0, 5.0), 1)
    job.start(100.0)
    assert job.end(130.0) == Observation(30.0, Amount(1, 0.0, 5.0))
    left = seconds_left([Track(Amount(1, 0.0, 5.0), 1)], [Observation(30.0, job.work)], 2, now=0.0)
    assert left == pytest.approx(30.0, rel=0.01)


def test_the_time_left_is_that_of_dealing_jobs_to_slots():
    assert makespan([(5.0, 1), (1.0, 1)], [(4.0, 1), (1.0, 1)], 2) == 6.0
    assert makespan([(3.0, 1)], [(2.0, 4), (1.0, 1)], 2) == 5.0  # the wide one waits, then is alone
    assert makespan([], [], 2) == 0.0
    rng = random.Random(0)
    for slots, count in itertools.product((1, 2, 3), (1, 4, 7)):
        jobs = [(rng.uniform(1, 9), 1) for _ in range(count)]
        free = [0.0] * slots  # the next one goes where it can begin first
        for seconds, _ in jobs:
            first = free.index(min(free))
            free[first] += seconds
        assert makespan([], jobs, slots) == pytest.approx(max(free))


# Seconds of a run of the demo beside its steps: 24 runs of two at a time took 13 min 41 s (README).
START, VALIDATION, END = 8.0, 3.0, 4.0
DEMO = Path(__file__).parents[3] / "docs/studies/demo/runs.csv"


def recorded(phase: str) -> list[tuple[Track, float]]:
    """Return the jobs of a phase of the demo in their order, with the seconds of their steps."""
    with DEMO.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == phase]
    budget = {row["name"]: float(row["budget"]) for row in rows}
    rows.sort(key=lambda row: -budget[row["name"]])
    return [
        # The planned amount, by a clip that stands for the data, is a few per cent off.
        (
            Track(Amount(1, 0.96 * float(row["tokens"]), budget[row["name"]]), 1),
            float(row["seconds"]),
        )
        for row in rows
    ]


def replay(
    jobs: list[tuple[Track, float]], seen: list[Observation], slots: int = 2
) -> list[tuple[float, float | None, float]]:
    """Carry jobs out by the record; return (seconds, ETA, the mean rate's ETA) every 2 s."""
    told, now, ends = [], 0.0, dict.fromkeys(range(len(jobs)), 0.0)
    while not all(track.over for track, _ in jobs):
        running = [i for i, (t, _) in enumerate(jobs) if t.begun is not None]
        for i, (track, seconds) in enumerate(jobs):
            if track.begun is None and not track.over and len(running) < slots:
                track.start(now)
                running.append(i)
                ends[i] = now + START + seconds + 3 * VALIDATION + END
            if track.begun is not None:
                # Validations stand at thirds of the run.
                spent = now - track.begun - START
                part = max(0.0, spent / (seconds + 3 * VALIDATION))
                track.advance(now, min(part, 1.0))
                if now >= ends[i]:
                    seen.append(track.end(now))
                    track.over = True
        whole = sum(t.work.flops for t, _ in jobs)
        done = sum(t.work.flops * (1.0 if t.over else t.done) for t, _ in jobs)
        mean = now * (whole - done) / done if done else 0.0
        told.append((now, seconds_left([t for t, _ in jobs], seen, slots, now), mean))
        now += 2.0
    return told


def test_the_demo_s_eta_is_within_30_per_cent_from_its_second_minute_on():
    seen: list[Observation] = []
    replay(recorded("pilot"), seen)
    told = replay(recorded("grid"), seen)
    total = told[-1][0]
    assert total > 600
    for now, eta, _ in told:
        left = total - now
        if now >= 120 and left > 60:
            assert eta == pytest.approx(left, rel=0.3)
    # By the mean rate, as it was, the end moved to and fro.
    ends = [now + mean for now, _, mean in told if 120 <= now < total - 60]
    assert max(ends) / min(ends) > 1.3
