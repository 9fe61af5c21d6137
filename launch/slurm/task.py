"""The supervisor of one run on its first node: start the ranks, judge their end, go on or stop.

usage (by the script of a submission): python -m launch.slurm.task FOLDER

    done -> 0    told to stop -> queue again, or leave it to the chain    failed -> start again here
    stalled -> queue again without the nodes to blame                     too often -> give up

It uses the standard library alone. What a run has done is read from its folder: exit statuses do
not survive srun, which reports a stopped run as 75, 143 or 1, depending on who ended first.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from launch.run_folder.records import (
    CANCELLED_FILE,
    SUBMISSION_FILE,
    append_launch,
    checkpoint_mark,
    newest_attempt,
    read_json,
    read_launches,
)
from launch.slurm import job as jobs
from launch.slurm.port import hold_port
from launch.slurm.verdict import (
    GIVE_UP,
    Ending,
    Signs,
    blamed_nodes,
    ended_attempt,
    is_fresh,
    judge,
    num_failures,
)

_POLL_SECONDS = 0.5
_ASK_SECONDS = 5.0
_CLOCK_SECONDS = 10.0
_LOG = "log.txt"
# Our own file: some 600 bytes for each run of an array, of which SLURM allows millions.
_PLAN_BYTES = 1 << 32
# Longer than KillWait of any sane site: requeued, the supervisor waits here to be ended.
_AFTER_REQUEUE_SECONDS = 300.0


class Supervisor:
    """One run of a submission in this job."""

    def __init__(self, plan: dict[str, Any], index: int) -> None:
        self.plan, self.task, self.index = plan, plan["tasks"][index], index
        self.run_dir = Path(self.task["run_dir"])
        self.done_marker = Path(self.task["done_marker"])
        self.job = jobs.job_id(os.environ)
        self.told_to_stop = self.terminated = False
        self._forwarded, self._standing = False, 0
        signal.signal(signal.SIGUSR1, self._note_stop)
        signal.signal(signal.SIGTERM, self._note_end)

    def run(self) -> int:
        """Carry the run as far as this job can; return the job's exit status."""
        if reason := self._why_not():
            say(f"{self.job}: nothing to do: {reason}")
            return 0
        in_place = False
        while True:
            started, mark = time.time(), checkpoint_mark(self.run_dir)
            code = self._attempt(in_place)
            look = self._ask_controller()
            if look is None:
                return 0  # an orphan: whoever replaced it writes from now on
            ending = self._ending(code, started, look)
            failures = self._count(mark)
            action = judge(ending, failures, self.plan["retries"], self.plan["chain"])
            say(f"{self.job}: {ending.outcome} after {time.time() - started:.0f} s"
                f"{': ' * bool(ending.reason)}{ending.reason}; {action}")  # fmt: skip
            self._record("end", outcome=ending.outcome, reason=ending.reason, next=action)
            if action == "restart":
                time.sleep(self._backoff(failures))
                if self.terminated or self.told_to_stop:
                    return self._requeue(0.0, [])
                in_place = True
                continue
            if action == "requeue":
                nodes = ending.blamed if self.plan["exclude_suspects"] else []
                wait = 0.0 if ending.outcome == "stopped" else self._backoff(failures)
                return self._requeue(wait, nodes)
            return ending.status if action == GIVE_UP else 0

    def _why_not(self) -> str:
        """Return why the run must not be started by this job, or ''."""
        if self.done_marker.exists():
            return f"{self.done_marker.name} is there"
        if (self.run_dir / CANCELLED_FILE).exists():
            return "it was cancelled"
        about = read_json(self.run_dir / SUBMISSION_FILE)
        if about.get("job_name", self.plan["job_name"]) != self.plan["job_name"]:
            return f"it belongs to the later submission {about['job_name']}"
        return ""

    def _attempt(self, in_place: bool) -> int:
        """Start the ranks and wait for their end; return srun's status."""
        before = read_launches(self.run_dir)
        look = jobs.view(self.job)
        ended = ended_attempt(before, self.job, jobs.view)
        self._record(
            "start",
            restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            in_place=in_place,
            nodes=os.environ.get("SLURM_JOB_NODELIST", ""),
            processes=self.plan["processes"],
            submitted=look.submitted,
            attempt=newest_attempt(self.run_dir),
        )
        port, held = hold_port(int(os.environ["SLURM_JOB_ID"]))
        with held:
            return self._run_ranks(port, ended)

    def _ask_controller(self) -> jobs.JobView | None:
        """Return what the controller says of this job, or None where another start replaced it.

        A supervisor on a node that was cut off outlives its job. It must neither start ranks nor
        write, so one that gets no answer waits for it. A finished run needs none: its end is noted
        at once, before a controller that comes back with an older state ends this job.
        """
        own = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        told = False
        while not self.done_marker.exists():
            look = jobs.view(self.job)
            if look.state:
                return look if look.restarts == own else None
            if not told:
                say(f"{self.job}: the controller does not answer; waiting for it")
            told = True
            time.sleep(_ASK_SECONDS)
        return jobs.JobView()

    def _run_ranks(self, port: int, ended: int) -> int:
        container = self.plan["container"]
        command = ["srun", *self.plan["srun"], *container, self.plan["rank_python"]]
        command += ["-m", "launch.slurm.rank", self.plan["starter"], *self._program()]
        settings = {
            "MASTER_ADDR": os.environ.get("SLURMD_NODENAME", "127.0.0.1"),
            "MASTER_PORT": str(port),
            "KINESCALE_ENDED_ATTEMPTS": str(ended),
            "KINESCALE_PER_NODE": os.environ.get("SLURM_NTASKS_PER_NODE", "1").split("(")[0],
        }
        say(f"{self.job} on {os.environ.get('SLURM_JOB_NODELIST')}: {self.task['argv']}")
        environ = {**os.environ, **settings}
        if container:
            # Else what the image sets goes first. Not as arguments, which other users can see.
            kept = [name for name in (*self.plan["container_names"], *settings) if name in environ]
            environ |= {f"APPTAINERENV_{name}": environ[name] for name in kept}
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environ)
        watch = _Watch(self.run_dir, self.plan["silent_seconds"])
        self._forwarded, deadline = False, float("inf")
        while True:
            try:
                return child.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            if self.told_to_stop and not self._forwarded:
                self._forwarded = True
                child.send_signal(signal.SIGUSR1)  # srun passes it on; SIGTERM would end the step
                deadline = time.monotonic() + self.plan["grace_seconds"]
            if watch.is_silent() or time.monotonic() > deadline:
                say(f"{self.job}: ends the ranks")
                child.terminate()
                deadline = float("inf")

    def _program(self) -> list[str]:
        program = list(self.task["argv"])
        # In a container the interpreter has another path.
        return [self.plan["rank_python"], *program[1:]]

    def _ending(self, code: int, begun: float, look: jobs.JobView) -> Ending:
        """Say how the attempt ended, by what it left behind."""
        stalled = read_json(self.run_dir / "stalled.json")
        fresh = is_fresh(self.run_dir / "stalled.json", begun)
        refused = self.run_dir / "refused.json"
        return Ending.of(
            Signs(
                code=code,
                done=self.done_marker.exists(),
                cancelled=(self.run_dir / CANCELLED_FILE).exists(),
                told_to_stop=self.told_to_stop,
                saved=is_fresh(self.run_dir / "stopped.json", begun),
                stalled=str(stalled.get("summary", "")) if fresh else "",
                blamed=blamed_nodes(stalled) if fresh else [],
                refused=str(read_json(refused).get("reason", "")) * is_fresh(refused, begun),
                state=look.state,
                # Not an earlier preemption of this job; clocks of node and controller may differ.
                preempted=look.preempted > begun - _CLOCK_SECONDS,
            )
        )

    def _count(self, mark: str) -> int:
        """Return how many attempts in a row, this one included, made no new checkpoint.

        mark: the checkpoint that the attempt began with. Other jobs' attempts are known from
        launches.jsonl, and our own also where a full disk kept them out of it.
        """
        now = checkpoint_mark(self.run_dir)
        self._standing = self._standing + 1 if now == mark else 0
        known = num_failures(read_launches(self.run_dir), self.plan["job_name"], now)
        return max(self._standing, known)

    def _backoff(self, failures: int) -> float:
        return self.plan["backoff_seconds"] * 2.0 ** max(0, failures - 1)

    def _requeue(self, seconds: float, exclude: list[str]) -> int:
        """Queue the job again and wait to be ended; return an exit status where that fails."""
        # Before the commands start, which inherit it: SLURM sends SIGTERM to all of us.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if reason := jobs.requeue(self.job, seconds, exclude):
            say(f"{self.job}: cannot be queued again: {reason}")
            self._record("end", outcome="failed", reason=reason, next=GIVE_UP)
            return os.EX_TEMPFAIL
        time.sleep(_AFTER_REQUEUE_SECONDS)
        return os.EX_TEMPFAIL

    def _record(self, event: str, **fields: Any) -> None:
        """Write to launches.jsonl; a full disk must not end a run."""
        fields |= {"job": self.job, "job_name": self.plan["job_name"]}
        try:
            append_launch(self.run_dir, event, **fields, checkpoint=checkpoint_mark(self.run_dir))
        except OSError as error:
            say(f"launches.jsonl: cannot be written ({error})")

    def _note_stop(self, number: int, frame: FrameType | None) -> None:
        self.told_to_stop = True

    def _note_end(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True


class _Watch:
    """Tell when a run's ranks, having begun to give signs of life, give none any more."""

    def __init__(self, run_dir: Path, seconds: float) -> None:
        self._folder, self._seconds = run_dir / "heartbeats", seconds
        self._first = self._last = self._look()
        self._since = time.monotonic()

    def is_silent(self) -> bool:
        """Look; the files' own clocks are not compared with ours."""
        now, found = time.monotonic(), self._look()
        if found != self._last:
            self._last, self._since = found, now
        begun = self._last != self._first
        return begun and 0 < self._seconds < now - self._since

    def _look(self) -> frozenset[tuple[str, int]]:
        try:
            with os.scandir(self._folder) as files:
                return frozenset((f.name, f.stat().st_mtime_ns) for f in files)
        except OSError:
            return frozenset()


def say(text: str) -> None:
    """Print a line into the run's log."""
    try:
        print(f"[launch] {time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)
    except OSError:  # the disk is full
        return


def main(argv: list[str]) -> int:
    """Supervise the run that this job, or this task of an array, is for."""
    plan = read_json(Path(argv[0]) / "plan.json", limit=_PLAN_BYTES)
    if not plan:
        print(f"{argv[0]}/plan.json: cannot be read", file=sys.stderr)
        return 1
    index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    run_dir = Path(plan["tasks"][index]["run_dir"])
    log = os.open(run_dir / _LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return Supervisor(plan, index).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
