"""launch.local.run with real, tiny child processes."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launch.config import ClusterConfig
from launch.local.process import end_processes, read_done, read_flops
from launch.local.run import (
    Job,
    Progress,
    ProgressPrinter,
    Status,
    available_cores,
    describe_failures,
    run_jobs,
)
from launch.run_folder.runs import RunFolder
from launch.state import state_of
from launch.submit import find_jobs

FINISH = "import pathlib; pathlib.Path('{run_dir}/result.json').write_text('{{}}')"
# Writes its start and end, so that overlaps can be counted afterwards.
TIMED = """
import pathlib, time
begin = time.time(); time.sleep({seconds}); end = time.time()
pathlib.Path('{run_dir}/times').write_text(f'{{begin}} {{end}}')
pathlib.Path('{run_dir}/result.json').write_text('{{}}')
"""
# A trainer in small: counts steps from its checkpoint on, saves on SIGTERM, finishes after 40.
TRAINER = """
import json, pathlib, signal, sys, time
run_dir = pathlib.Path('{run_dir}')
checkpoint = run_dir / 'checkpoint'
step = int(checkpoint.read_text()) if checkpoint.exists() else 0
(run_dir / 'starts').open('a').write(f'{{step}} ')
def save(*_):
    checkpoint.write_text(str(step)); print('saved', step); sys.exit(143)
signal.signal(signal.SIGTERM, save)
(run_dir / 'ready').touch()
while step < 40:
    step += 1
    with (run_dir / 'metrics.jsonl').open('a') as file:
        file.write(json.dumps({{'step': step, 'flops': step * 1e9}}) + '\\n')
    time.sleep({seconds})
(run_dir / 'result.json').write_text('{{}}')
"""
STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen(
    [sys.executable, '-c', 'import signal, time; signal.signal(15, 1); time.sleep(60)'],
    start_new_session=True,
)
pathlib.Path('{run_dir}/pids').write_text(f'{{__import__("os").getpid()}} {{worker.pid}}')
time.sleep(60)
"""
# The launcher itself as a process, so that it can be interrupted and killed.
LAUNCHER = """
import pathlib, sys
from launch.local.run import Job, run_jobs
jobs = []
for name in {names}:
    run_dir = pathlib.Path({root!r}) / name
    argv = [sys.executable, '-c', (run_dir / 'program.py').read_text()]
    jobs.append(Job(name, run_dir, argv, 1, 4e10, run_dir / 'result.json'))
outcomes = run_jobs(jobs, 2, poll_seconds=0.02, grace_seconds={grace})
print(*(f'{{outcome.name}}={{outcome.status}}' for outcome in outcomes))
"""


def make_job(root, name, program, num_processes=1, cost=1.0, **values):
    run_dir = root / name
    run_dir.mkdir(parents=True, exist_ok=True)
    source = program.format(run_dir=run_dir, **values)
    (run_dir / "program.py").write_text(source)
    argv = [sys.executable, "-S", "-c", source]
    return Job(name, run_dir, argv, num_processes, cost, run_dir / "result.json")


def run(jobs, slots=2, **options):
    return run_jobs(jobs, slots, poll_seconds=0.02, **options)


@pytest.fixture
def start_launcher():
    """Yield a function that starts the launcher as a process; none of them outlives its test."""
    launchers = []

    def start(root, names, grace=5.0):
        source = LAUNCHER.format(names=names, root=str(root), grace=grace)
        argv = [sys.executable, "-c", source]
        launchers.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        return launchers[-1]

    yield start
    for launcher in launchers:
        with launcher:
            launcher.kill()


def wait_for(path: Path, seconds: float = 10.0) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and (path.name == "ready" or path.read_text()):
            return path.read_text()
        time.sleep(0.01)
    raise AssertionError(f"{path} did not appear")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_dead(pids: list[int], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(is_alive(pid) for pid in pids)


@pytest.mark.heavy
def test_slots_are_used_and_never_exceeded_and_the_costliest_starts_first(tmp_path):
    costs = {"small": 1.0, "wide": 3.0, "large": 9.0, "middle": 5.0}
    jobs = [
        make_job(tmp_path, name, TIMED, 2 if name == "wide" else 1, cost, seconds=0.15)
        for name, cost in costs.items()
    ]
    outcomes = run(jobs)
    assert [outcome.status for outcome in outcomes] == [Status.done] * 4
    assert [outcome.name for outcome in outcomes] == list(costs)
    spans = {
        job.name: tuple(map(float, (job.run_dir / "times").read_text().split())) for job in jobs
    }
    first_two = sorted(spans, key=lambda name: spans[name][0])[:2]
    assert set(first_two) == {"large", "middle"}
    for moment, _ in spans.values():
        used = sum(
            job.num_processes for job in jobs if spans[job.name][0] <= moment < spans[job.name][1]
        )
        assert used <= 2
    assert spans["large"][0] < spans["middle"][1]
    assert spans["middle"][0] < spans["large"][1]


def test_a_job_wider_than_all_slots_runs_alone_and_says_so(tmp_path):
    seen: list[Progress] = []
    jobs = [
        make_job(tmp_path, "wide", TIMED, 4, 2.0, seconds=0.05),
        make_job(tmp_path, "narrow", TIMED, 1, 1.0, seconds=0.05),
    ]
    outcomes = run(jobs, slots=1, on_progress=seen.append)
    assert {outcome.status for outcome in outcomes} == {Status.done}
    assert max(progress.num_running for progress in seen) == 1
    assert any(
        "wide: takes 4 processes of 1 slot: it runs alone" in progress.message for progress in seen
    )


def test_a_finished_job_is_not_started_again(tmp_path):
    job = make_job(tmp_path, "run", FINISH)
    assert run([job])[0].status is Status.done
    outcome = run([job])[0]
    assert (outcome.status, outcome.attempts) == (Status.skipped, 0)
    assert (job.run_dir / "log.txt").read_text().count("attempt") == 1


def test_a_failure_carries_its_log_and_the_others_go_on(tmp_path):
    bad = make_job(tmp_path, "bad", "print('reading'); raise OSError('disk on fire')", cost=9.0)
    good = make_job(tmp_path, "good", FINISH)
    outcomes = run([bad, good], slots=1)
    assert [outcome.status for outcome in outcomes] == [Status.failed, Status.done]
    assert (outcomes[0].attempts, outcomes[0].returncode) == (2, 1)
    assert "disk on fire" in outcomes[0].log_tail
    text = describe_failures(outcomes)
    assert "1 of 2 jobs failed" in text
    assert "bad (2 attempts): exited 1" in text
    assert describe_failures(outcomes[1:]) == ""


def test_a_retry_resumes_from_the_checkpoint(tmp_path):
    crash = TRAINER.replace(
        "    time.sleep", "    if step == 15 and len((run_dir / 'starts').read_text()) < 3:\n"
        "        checkpoint.write_text('10'); raise SystemExit('node lost')\n    time.sleep", 1,
    )  # fmt: skip
    job = make_job(tmp_path, "run", crash, cost=4e10, seconds=0.005)
    seen: list[Progress] = []
    outcome = run([job], on_progress=seen.append)[0]
    assert (outcome.status, outcome.attempts) == (Status.done, 2)
    assert (job.run_dir / "starts").read_text().split() == ["0", "10"]
    assert any("starts again" in progress.message for progress in seen)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_a_killed_job_and_one_without_its_marker_are_failures(tmp_path):
    jobs = [
        make_job(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"),
        make_job(tmp_path, "silent", "pass"),
        Job("missing", tmp_path / "missing", ["/no/such/program"], 1, 1.0, tmp_path / "never"),
    ]
    outcomes = run(jobs, retries=0)
    assert [outcome.attempts for outcome in outcomes] == [1, 1, 1]
    assert outcomes[0].reason == "killed by SIGKILL"
    assert outcomes[1].reason == "exited 0 without result.json"
    assert {outcome.status for outcome in outcomes} == {Status.failed}
    assert "/no/such/program" in outcomes[2].log_tail


def test_threads_and_variables_reach_the_job(tmp_path):
    program = FINISH + "; import os; print(*[os.environ[n + '_NUM_THREADS'] for n in"
    program += " ('OMP', 'MKL', 'OPENBLAS')], os.environ['EXTRA'], os.getsid(0) == os.getpid())"
    job = make_job(tmp_path, "run", program)
    run([job], env={"EXTRA": "yes"}, threads_per_process=3)
    assert (job.run_dir / "log.txt").read_text().splitlines()[-1] == "3 3 3 yes True"


@pytest.mark.heavy
def test_ctrl_c_lets_runs_save_and_the_next_launch_continues(tmp_path, start_launcher):
    names = ["a", "b", "c"]
    jobs = [make_job(tmp_path, name, TRAINER, cost=4e10, seconds=0.05) for name in names]
    launcher = start_launcher(tmp_path, names)
    for name in names[:2]:
        wait_for(tmp_path / name / "ready")
    launcher.send_signal(signal.SIGINT)
    output, _ = launcher.communicate(timeout=300)
    assert output.split() == ["a=interrupted", "b=interrupted", "c=not_started"]
    assert launcher.returncode == 0
    assert "saved" in (tmp_path / "a" / "log.txt").read_text()
    outcomes = run([*jobs[:2]], slots=2)
    assert {outcome.status for outcome in outcomes} == {Status.done}
    begun, resumed = (tmp_path / "a" / "starts").read_text().split()
    assert begun == "0"
    assert int(resumed) >= 1


@pytest.mark.heavy
def test_a_run_that_ignores_sigterm_is_killed_with_all_its_workers(tmp_path, start_launcher):
    make_job(tmp_path, "stubborn", STUBBORN)
    launcher = start_launcher(tmp_path, ["stubborn"], grace=0.3)
    pids = [int(pid) for pid in wait_for(tmp_path / "stubborn" / "pids").split()]
    launcher.send_signal(signal.SIGTERM)
    output, _ = launcher.communicate(timeout=300)
    assert output.split() == ["stubborn=interrupted"]
    assert wait_dead(pids, 0.5)


def test_runs_save_and_end_when_the_launcher_is_killed(tmp_path, start_launcher):
    make_job(tmp_path, "run", TRAINER, cost=4e10, seconds=0.2)
    launcher = start_launcher(tmp_path, ["run"])
    wait_for(tmp_path / "run" / "ready")
    launcher.kill()
    launcher.communicate()
    assert int(wait_for(tmp_path / "run" / "checkpoint")) >= 1


@pytest.mark.heavy
def test_orphans_of_a_killed_launcher_end_before_the_run_starts_again(tmp_path, start_launcher):
    job = make_job(tmp_path, "run", STUBBORN)
    launcher = start_launcher(tmp_path, ["run"])
    pids = [int(pid) for pid in wait_for(job.run_dir / "pids").split()]
    launcher.kill()
    launcher.communicate()
    assert all(is_alive(pid) for pid in pids)
    outcome = run([make_job(tmp_path, "run", FINISH)], grace_seconds=0.2)[0]
    assert outcome.status is Status.done
    assert wait_dead(pids, 0.5)
    assert "ended 2 processes of a dead launcher" in (job.run_dir / "log.txt").read_text()


def test_two_launchers_do_not_share_a_run(tmp_path, start_launcher):
    job = make_job(tmp_path, "run", TRAINER, cost=4e10, seconds=0.2)
    launcher = start_launcher(tmp_path, ["run"])
    wait_for(job.run_dir / "ready")
    outcome = run([job])[0]
    launcher.send_signal(signal.SIGINT)
    assert launcher.communicate(timeout=300)[0].split() == ["run=interrupted"]
    assert outcome.status is Status.failed
    assert "another launcher is running it" in outcome.reason


@pytest.mark.heavy
def test_an_error_in_the_callback_leaves_no_process(tmp_path):
    job = make_job(tmp_path, "run", STUBBORN)

    def explode(progress: Progress) -> None:
        if (job.run_dir / "pids").exists():
            raise RuntimeError("callback")

    with pytest.raises(RuntimeError, match="callback"):
        run([job], on_progress=explode)
    pids = [int(pid) for pid in wait_for(job.run_dir / "pids").split()]
    assert wait_dead(pids, 0.5)


def test_progress_follows_flops_and_gives_an_eta(tmp_path):
    seen: list[Progress] = []
    job = make_job(tmp_path, "run", TRAINER, cost=4e10, seconds=0.01)
    run([job], on_progress=seen.append)
    middle = [progress for progress in seen if 0.3 < progress.fraction < 0.7]
    assert middle
    assert all(progress.eta_seconds is not None for progress in middle)
    rest = seen[-1].elapsed_seconds - middle[0].elapsed_seconds
    assert middle[0].eta_seconds == pytest.approx(rest, abs=1.5)
    assert seen[-1].fraction == 1.0


def test_flops_survive_a_half_written_line(tmp_path):
    lines = [{"step": 1, "flops": 5e9}, {"step": 1, "val_loss": 0.3}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    assert read_flops(tmp_path) == 0.0
    (tmp_path / "metrics.jsonl").write_text(text + '[1]\n{"step": 2, "flo')
    assert read_flops(tmp_path) == 5e9


def test_plain_progress_is_a_line_now_and_then_and_every_event():
    stream = io.StringIO()
    with ProgressPrinter("study", stream, every_seconds=3600.0) as printer:
        printer(Progress(0.43, 25, 12, 2, 0, 60.0, 312.0))
        printer(Progress(0.44, 25, 12, 2, 0, 61.0, 311.0, message="a: it starts again"))
        printer(Progress(1.0, 25, 24, 0, 1, 3700.0, 0.0))
    assert stream.getvalue().splitlines() == [
        "[study] 43 % 12/25 runs, 2 running, ETA 05:12",
        "[study] a: it starts again",
        "[study] 100 % 24/25 runs, 0 running, 1 FAILED, took 1:01:40",
    ]


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with ProgressPrinter("study", stream) as printer:
        printer(Progress(0.5, 4, 2, 1, 0, 10.0, None, message="[b] kept as it is"))
    assert "2/4 runs, 1 running, ETA --:--" in stream.getvalue()
    assert "[b] kept as it is" in stream.getvalue()


def test_bad_jobs_and_settings_say_what_is_allowed(tmp_path):
    job = make_job(tmp_path, "run", FINISH)
    with pytest.raises(ValueError, match="must belong to one job"):
        run([job, job])
    with pytest.raises(ValueError, match="num_processes=0"):
        run([make_job(tmp_path, "none", FINISH, 0)])
    with pytest.raises(ValueError, match="slots=-1"):
        run([job], slots=-1)
    for key in ("slots", "threads_per_process", "grace_seconds", "retries"):
        with pytest.raises(ValueError, match=f"cluster.{key}=-1: must be"):
            ClusterConfig(**{key: -1})
    assert ClusterConfig().slots == 0
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_no_jobs_is_no_work():
    assert run_jobs([]) == []
    assert describe_failures([]) == ""


def test_a_run_of_tokens_or_steps_is_as_far_as_its_horizon_says(tmp_path):
    record = {"step": 5, "tokens": 200, "flops": 1e15}
    for goal, part in ((("tokens", 1000.0), 0.2), (("step", 10.0), 0.5), (("flops", 4e15), 0.25)):
        job = replace(make_job(tmp_path, goal[0], FINISH), goal=goal)
        (job.run_dir / "metrics.jsonl").write_text(json.dumps(record) + "\n")
        assert read_done(job) == pytest.approx(part * job.cost)
    assert read_done(replace(job, goal=("flops", 0.0), cost=2e15)) == 1e15
    (job.run_dir / "config.yaml").write_text("horizon: {tokens: 1000}\n")
    assert [read_done(found) for found in find_jobs([str(job.run_dir)])] == [0.2]


def test_what_a_user_must_mend_is_not_tried_again(tmp_path):
    job = make_job(tmp_path, "run", "raise SystemExit(2)")
    (outcome,) = run([job], retries=3)
    assert (outcome.status, outcome.attempts, outcome.reason) == (Status.failed, 1, "exited 2")


def test_a_run_that_failed_here_is_said_to_have_failed(tmp_path):
    job = make_job(tmp_path, "run", "raise SystemExit(3)")
    (job.run_dir / "config.yaml").write_text("name: run\n")
    assert run([job], retries=1)[0].status is Status.failed
    found = state_of(RunFolder("run", job.run_dir), [])
    assert (found.state, found.reason, found.attempts) == ("failed", "exited 3", 2)
    make_job(tmp_path, "run", FINISH)
    run([make_job(tmp_path, "run", FINISH)])
    assert state_of(RunFolder("run", job.run_dir), []).state == "done"


@pytest.mark.heavy
def test_a_run_without_a_sign_of_life_yet_runs_while_its_process_lives(tmp_path, start_launcher):
    job = make_job(tmp_path, "run", STUBBORN)
    (job.run_dir / "config.yaml").write_text("name: run\n")
    launcher = start_launcher(tmp_path, ["run"], grace=0.2)
    wait_for(job.run_dir / "launches.jsonl")  # which may come after the process' first words
    wait_for(job.run_dir / "pids")
    assert state_of(RunFolder("run", job.run_dir), []).state == "running"
    launcher.kill()
    launcher.communicate()
    end_processes(str(job.run_dir.resolve()), 0.0)
    lost = state_of(RunFolder("run", job.run_dir), [])
    assert lost.state == "failed"
    assert "without a word" in lost.reason


def test_a_cancelled_run_is_not_tried_again_until_it_is_asked_for(tmp_path):
    job = make_job(tmp_path, "run", "import pathlib\n"
        "pathlib.Path('{run_dir}/cancelled.json').touch()\nraise SystemExit(75)")  # fmt: skip
    (outcome,) = run([job], retries=3)
    assert (outcome.status, outcome.attempts) == (Status.interrupted, 1)
    assert run([make_job(tmp_path, "run", FINISH)])[0].status is Status.done
    assert not (job.run_dir / "cancelled.json").exists()
