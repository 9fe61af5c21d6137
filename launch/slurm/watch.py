"""Run a list of jobs through the queue and return their outcomes, as ``launch.local`` does.

A watcher that is stopped leaves the jobs in the queue; started again, it finds them there.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.words import counted
from launch.config import ClusterConfig
from launch.local.process import LOG_FILE, Job, read_done, tail_text
from launch.local.progress import Progress
from launch.local.run import Outcome, Status, catch_signals
from launch.run_folder.records import read_launches
from launch.slurm import commands
from launch.slurm.accounting import past_jobs
from launch.slurm.commands import QueueEntry, SlurmError
from launch.slurm.messages import read_messages
from launch.slurm.pending import describe_pending, is_held
from launch.slurm.room import Submission
from launch.slurm.submit import entry_of

# Polls for which a run may be in neither queue nor done: a file server shows its result later.
_MISSING_POLLS = 3


@dataclass
class _Watched:
    job: Job
    flops_before: float
    flops: float = 0.0
    submitted: bool = False
    running: bool = False
    held: bool = False
    missing: int = 0
    outcome: Outcome | None = None


def run_in_queue(
    title: str,
    jobs: Sequence[Job],
    cluster: ClusterConfig,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Outcome]:
    """Submit what is missing and wait until all have ended; outcomes in the order of ``jobs``.

    SIGINT or SIGTERM ends the waiting, not the jobs: those that are not done count as interrupted.
    Runs for which the queue has no room wait here, and are submitted as it empties.
    Raises ValueError for what cannot be submitted, SlurmError when the controller is away while
    submitting for the first time; afterwards it is waited for.
    """
    watcher = _Watcher(title, jobs, cluster, on_progress)
    with catch_signals(watcher.stop):
        return watcher.run()


class _Watcher:
    def __init__(
        self,
        title: str,
        jobs: Sequence[Job],
        cluster: ClusterConfig,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._cluster, self._on_progress = cluster, on_progress
        self._runs = [_Watched(job, read_done(job)) for job in jobs]
        self._begun, self._stopped, self._away = time.monotonic(), False, False
        self._submission = Submission(title, jobs, cluster)

    def stop(self) -> None:
        """End the waiting; runs inside a signal handler."""
        self._stopped = True

    def run(self) -> list[Outcome]:
        """Submit, then look at the queue until everything has ended."""
        self._submit()
        while not self._stopped and any(run.outcome is None for run in self._runs):
            self._go_on()
            self._report()
            time.sleep(self._cluster.poll_seconds)
        if self._stopped:
            self._report("stopped watching: the queue keeps its jobs; kinescale cancel ends them")
        return [r.outcome or Outcome(r.job.name, Status.interrupted) for r in self._runs]

    def _submit(self) -> None:
        """Submit what the queue has room for, and say so."""
        had_room = not self._submission.waits
        found = {submitted.run_dir.resolve(): submitted for submitted in self._submission.advance()}
        for run in self._runs:
            if submitted := found.get(run.job.run_dir.resolve()):
                run.submitted = True
                if not submitted.job:
                    run.outcome = Outcome(run.job.name, Status.skipped)
        if found:
            fresh = sum(submitted.fresh for submitted in found.values())
            there = sum(bool(s.job) and not s.fresh for s in found.values())
            notes = sorted({submitted.note for submitted in found.values() if submitted.note})
            told = [f"submitted {counted(fresh, 'run')}, in the queue already: {there}", *notes]
            self._report("; ".join(told))
        if had_room and self._submission.num_waiting:
            self._report(self._submission.describe())

    def _go_on(self) -> None:
        try:
            self._submit()
            entries = commands.queue()
        except SlurmError as error:
            if not self._away:
                self._report(f"{error}; waiting for it")
            self._away = True
            return
        self._away = False
        for run in self._runs:
            if run.outcome is None and run.submitted:
                self._settle(run, entry_of(run.job.run_dir, entries))

    def _settle(self, run: _Watched, entry: QueueEntry | None) -> None:
        job = run.job
        run.running = entry is not None and entry.state in ("RUNNING", "COMPLETING")
        # Looked at after the queue: a run that ends in between has its marker by now.
        if job.done_marker.exists():
            run.outcome = Outcome(job.name, Status.done, 0, *_spent(job.run_dir))
        elif entry is None:
            run.missing += 1
            if run.missing >= _MISSING_POLLS:
                run.outcome = _failed(job)
                self._report(f"{job.name}: FAILED, {run.outcome.reason}")
        else:
            run.missing = 0
            held = is_held(entry.reason)
            if held and not run.held:
                why = describe_pending(entry.reason)
                self._report(f"{job.name}: job {entry.job} waits for ever: {why}")
            run.held = held

    def _report(self, message: str = "") -> None:
        if self._on_progress is not None:
            self._on_progress(self._progress(message))

    def _progress(self, message: str) -> Progress:
        settled = total = fresh = 0.0
        for run in self._runs:
            cost = run.job.cost
            run.flops = max(run.flops, read_done(run.job))
            flops = cost if run.outcome is not None else run.flops
            total, settled = total + cost, settled + flops
            if run.outcome is None or run.outcome.status is Status.done:
                fresh += max(0.0, flops - min(run.flops_before, cost))
        elapsed = time.monotonic() - self._begun
        statuses = [run.outcome.status for run in self._runs if run.outcome is not None]
        return Progress(
            fraction=settled / total if total else 1.0,
            num_jobs=len(self._runs),
            num_done=sum(status in (Status.done, Status.skipped) for status in statuses),
            num_running=sum(run.running for run in self._runs),
            num_failed=statuses.count(Status.failed),
            elapsed_seconds=elapsed,
            eta_seconds=(total - settled) * elapsed / fresh if fresh else None,
            message=message,
        )


def _spent(run_dir: Path) -> tuple[int, float]:
    """Return the number of attempts at a run and the seconds they took."""
    attempts, seconds, begun = 0, 0.0, None
    for record in read_launches(run_dir):
        if record["event"] == "start":
            attempts, begun = attempts + 1, record["time"]
        elif begun is not None:
            seconds, begun = seconds + record["time"] - begun, None
    return attempts, seconds


def _failed(job: Job) -> Outcome:
    records = read_launches(job.run_dir)
    ends = [r for r in records if r["event"] == "end"]
    if not records:
        why = _remembered(job.run_dir) or read_messages(job.run_dir, 1)
        reason = f"left the queue before it started{': ' * bool(why)}{why}"
    elif records[-1]["event"] == "start" or not ends:
        why = _remembered(job.run_dir) or "cancelled, or its node was lost"
        reason = f"left the queue while it ran: {why}"
    else:
        reason = f"{ends[-1].get('outcome')}: {ends[-1].get('reason')}"
    tail = tail_text(job.run_dir / LOG_FILE)
    return Outcome(job.name, Status.failed, None, *_spent(job.run_dir), reason, tail)


def _remembered(run_dir: Path) -> str:
    """Return how accounting says that a run's last job ended, '' where it does not."""
    past = (past_jobs([run_dir]) or {}).get(run_dir)
    return past.describe() if past is not None else ""
