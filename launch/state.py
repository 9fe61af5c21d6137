"""What a run is doing, from its folder and the queue; reads only."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from data.files import finite
from launch.local.process import METRICS_FILE
from launch.run_folder.goodput import measure
from launch.run_folder.pace import pace_of
from launch.run_folder.reader import Facts, FolderReader
from launch.run_folder.records import CANCELLED_FILE, is_alive, newest_attempt, read_launches
from launch.run_folder.runs import CONFIG_FILE, RESULT_FILE, RunFolder
from launch.slurm.accounting import PastJob
from launch.slurm.commands import QueueEntry
from launch.slurm.pending import describe_pending, is_held
from launch.slurm.submit import entry_of
from trainer.run.heartbeat import read_heartbeats

if TYPE_CHECKING:
    from launch.planner.machine import MachineConfig

# By so much the clocks of two hosts may differ.
_CLOCK_SECONDS = 60.0
# Some beats of faults.beat_seconds' default, and a slow file server.
_FRESH_SECONDS = 30.0 + _CLOCK_SECONDS
# By the one clock of the file server: so much older than the newest sign, a sign is no news.
_SILENT_SECONDS = 30.0
# A sign's step is looked up before its file gets its moment.
_WRITE_SECONDS = 0.25
_MOST_FLOPS = 1e40
_MOST_ETA = 1e10
_MOST_PROBLEMS = 3
# What is said where a folder does not tell how its run ended; accounting may.
_LOST = "ended without a word: its node was lost, or it was killed"
_NO_SIGN = "gives no sign of life"


@dataclass
class RunState:
    """One line of the table.

    state: done, diverged, running, stalled, waiting, held, stopped, failed, cancelled or new.
    reason: why it waits, failed, or who holds it up. job: in the queue. nodes: where.
    goodput, lost_seconds: see goodput.py. device_hours: processes times hours held; cost: at the
    cluster's price, None without one. step_seconds, tokens_per_second, teraflops_per_second: over
    the last window of its metrics; times_slower: than the median of its windows, None where that is
    little. eta_seconds: at that median. mfu: model FLOPs over what the processes' devices can do
    at most, None where the machine is not known.
    """

    name: str
    state: str = "new"
    reason: str = ""
    job: str = ""
    nodes: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    step_seconds: float | None = None
    times_slower: float | None = None
    tokens_per_second: float | None = None
    teraflops_per_second: float | None = None
    mfu: float | None = None
    eta_seconds: float | None = None
    attempts: int = 0
    goodput: float | None = None
    lost_seconds: dict[str, float] = field(default_factory=dict)
    device_hours: float = 0.0
    cost: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON that every parser takes: finite numbers, whole characters."""
        values: dict[str, Any] = finite(asdict(self))
        texts = {k: _whole(v) for k, v in values.items() if isinstance(v, str)}
        return values | texts


def _whole(text: str) -> str:
    """Return a text without half characters, which a file's name or JSON may hold."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def state_of(
    run: RunFolder,
    entries: Sequence[QueueEntry] | None,
    price: float = 0.0,
    now: float | None = None,
    machine: "MachineConfig | None" = None,
    past: PastJob | None = None,
) -> RunState:
    """Read a run's state, whatever lies in its folder: what cannot be read, the reason says.

    entries: the queue; None where it is not known or there is none. price: of a process an hour.
    past: what accounting remembers of its last job, which tells how a run without a word ended.
    machine: whose peak MFU is a share of; one without a figure for the precision gives none.
    """
    now = time.time() if now is None else now
    found, reader = RunState(run.name), FolderReader(run.path)
    config = reader.read(CONFIG_FILE) or _no_config(reader)
    result = reader.read(RESULT_FILE)
    speed = _add_progress(found, reader, config, result)
    launches = read_launches(run.path, reader.note)
    processes = _processes(config, launches)
    entry = entry_of(run.path, entries or [])
    if entry is not None:
        found.job, found.nodes = entry.job, entry.nodes
    if result is not None:
        _conclude(found, result)
    else:
        beats = read_heartbeats(run.path, reader.note)
        signs = _Signs(launches, beats, processes, speed, now)
        _judge(found, reader, signs, entry, entries is not None)
    if past is not None and entry is None and found.state in ("failed", "new"):
        _add_past(found, past)
    goodput = measure(run.path, now if found.state in ("running", "stalled") else 0.0, reader.note)
    if goodput.told or not found.step:  # else its steps were made, and nobody told how
        found.goodput, found.lost_seconds = goodput.share, goodput.lost
    if found.teraflops_per_second is not None:
        _add_mfu(found, reader, config, machine, processes)
    found.device_hours = processes * goodput.computing / 3600
    found.cost = price * found.device_hours if price else None
    starts = sum(r["event"] == "start" for r in launches)
    found.attempts = starts or newest_attempt(run.path)
    found.reason = "; ".join(filter(None, [found.reason, *_shown(reader.problems)]))
    return found


def _no_config(reader: FolderReader) -> Facts:
    """Return an empty config, and note where there is none."""
    if not reader.problems:
        reader.note(f"{CONFIG_FILE}: is missing")
    return Facts({}, f"{CONFIG_FILE}: ", reader.note)


def _shown(problems: Sequence[str]) -> list[str]:
    more = len(problems) - _MOST_PROBLEMS
    rest = [f"and {more} more"] if more > 0 else []
    return [*problems[:_MOST_PROBLEMS], *rest]


def _add_progress(
    found: RunState, reader: FolderReader, config: Facts, result: Facts | None
) -> float:
    """Add what the last lines of metrics.jsonl, the result and the config say.

    Returns how many steps a second the run has made at most of late, 0 where that is not known.
    """
    lines = reader.last_records(METRICS_FILE, 50)
    for record in lines:
        found.step = record.count("step") or found.step
        found.loss = _first(_loss(record, "train_loss"), found.loss)
    if result is not None:
        found.step = result.count("steps") or found.step
        found.loss = _first(_loss(result, "loss"), found.loss)
    pace = pace_of(lines)
    if not pace.step_seconds:
        return 0.0
    found.step_seconds = pace.step_seconds
    found.times_slower = None if result is not None else pace.slower
    found.tokens_per_second = pace.tokens_per_second
    if pace.flops_per_second is not None:
        found.teraflops_per_second = pace.flops_per_second / 1e12
    last = next(r for r in reversed(lines) if r.number("seconds"))
    found.steps = max(result.count("steps") if result else 0, _planned_steps(config, last))
    if found.steps:
        eta = max(found.steps - last.count("step"), 0) * (pace.usual or 0.0)
        found.eta_seconds = eta if eta < _MOST_ETA else None
    return pace.highest


def _first(new: float | None, old: float | None) -> float | None:
    return old if new is None else new


def _loss(record: Facts, key: str) -> float | None:
    return record.number(key, least=-1e300, most=1e300)


def _planned_steps(config: Facts, last: Facts) -> int:
    """Return how many steps a run has in all, by its horizon and what a step has cost so far.

    A small network's run states its steps; 0 where nothing does.
    """
    horizon = config.section("horizon")
    if steps := horizon.count("steps") or config.count("steps"):
        return steps
    for key in ("flops", "tokens"):
        whole, done = (f.number(key, most=_MOST_FLOPS) for f in (horizon, last))
        if whole and done and whole / done < 1e9:
            return round(last.count("step") * whole / done)
    return 0


@dataclass(frozen=True)
class _Signs:
    """What tells whether a run lives: its launches, its ranks' signs, and the moment.

    processes: of the present attempt; ranks beyond are of an earlier one. speed: steps a second.
    """

    launches: Sequence[dict[str, Any]]
    beats: Sequence[dict[str, Any]]
    processes: int
    speed: float
    now: float

    def alive(self, asked: bool) -> bool:
        """Tell whether the run lives. asked: whether the queue, where it is not, is known."""
        last = self.launches[-1] if self.launches else {}
        local = last.get("local") is True
        if asked and last and not local:
            return False
        # Of a run that ended, only what came clearly later is a sign: it was started by hand.
        since = last["time"] + _CLOCK_SECONDS if last.get("event") == "end" else 0.0
        fresh = any(
            max(self.now - _FRESH_SECONDS, since) < b["written"] and b["phase"] != "ended"
            for b in self.beats
        )
        if not local or last["event"] != "start":
            return fresh
        known = is_alive(last)
        return fresh or self.now - last["time"] < _FRESH_SECONDS if known is None else known

    def lagging(self) -> str:
        """Name the ranks that are behind the others; collectives allow one step.

        Signs are of different moments, and a fast run makes many steps between two of them. So
        only a rank is behind whose sign is not older than one with a higher step.
        """
        beats = [b for b in self.beats if b["rank"] < self.processes or self.processes < 2]
        beats = [b for b in beats if b["phase"] not in ("start", "load", "ended")]
        if not beats:
            return ""
        newest, furthest = max(b["written"] for b in beats), max(b["step"] for b in beats)
        slack = 1 + self.speed * _WRITE_SECONDS
        slow = [b for b in beats if b["step"] < _reached(beats, b["written"]) - slack]
        silent = [b for b in beats if b["written"] < newest - _SILENT_SECONDS]
        if silent:
            seconds = newest - min(b["written"] for b in silent)
            return f"{_ranks(silent)}: no sign of life for {seconds:.0f} s, others give them"
        if not slow:
            return ""
        lowest = min(b["step"] for b in slow)
        return f"{_ranks(slow)}: at step {lowest}, others at {furthest}"


def _reached(beats: Sequence[dict[str, Any]], moment: float) -> int:
    """Return the highest step that a rank was at up to a moment, by the file server's clock."""
    return max(b["step"] for b in beats if b["written"] <= moment)


def _ranks(beats: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"rank {b['rank']} on {b['host']}" for b in beats[:3])


def _conclude(found: RunState, result: Facts) -> None:
    """Set the state of a run that has its result."""
    diverged = result.text("status") == "diverged"
    found.state = "diverged" if diverged else "done"
    found.reason = result.text("reason") if diverged else ""
    found.eta_seconds = None


def _judge(
    found: RunState, reader: FolderReader, signs: _Signs, entry: QueueEntry | None, asked: bool
) -> None:
    """Set state and reason of a run without a result."""
    stalled = reader.read("stalled.json")
    summary = stalled.text("summary") if stalled else ""
    if entry is not None and entry.state == "PENDING":
        found.state = "held" if is_held(entry.reason) else "waiting"
        found.reason = describe_pending(entry.reason)
    elif entry is not None or signs.alive(asked):
        found.state, found.reason = "running", signs.lagging()
        if summary:
            found.state, found.reason = "stalled", summary
    elif reader.has(CANCELLED_FILE):
        found.state = "cancelled"
    elif reader.has("stopped.json"):
        found.state, found.reason = "stopped", "saved; the same submission continues it"
    elif signs.beats or signs.launches:
        found.state, found.reason = "failed", summary or _last_reason(signs.launches)


def _add_past(found: RunState, past: PastJob) -> None:
    """Let accounting tell the job, its node, and how it ended where the folder does not."""
    found.job, found.nodes = past.job, past.nodes
    if found.state == "new":  # not even its supervisor could write into the folder
        found.state = "cancelled" if past.state == "CANCELLED" else "failed"
    if found.reason in ("", _LOST, _NO_SIGN):
        found.reason = past.describe()


def _last_reason(launches: Sequence[dict[str, Any]]) -> str:
    ends = [r for r in launches if r["event"] == "end"]
    if launches and launches[-1]["event"] == "start":
        return _LOST
    return str(ends[-1].get("reason") or "") if ends else _NO_SIGN


def _add_mfu(
    found: RunState,
    reader: FolderReader,
    config: Facts,
    machine: "MachineConfig | None",
    processes: int,
) -> None:
    """Add MFU, by the machine's peak; where none is given, by what the run's config says."""
    precision = config.section("parallel").text("precision") or "fp32"
    peak = (config.section("log").number("device_teraflops") or 0.0) * 1e12 * processes
    try:
        peak = peak if machine is None else processes * machine.peak(precision)
    except ValueError as error:
        reader.note(f"no MFU: {error}")
        return
    if not peak:
        return
    found.mfu = (found.teraflops_per_second or 0.0) * 1e12 / peak


def _processes(config: Facts, launches: Sequence[dict[str, Any]]) -> int:
    counts = [int(r.get("processes") or 0) for r in launches]
    told = next((count for count in reversed(counts) if count), 0)
    return told or config.section("parallel").count("processes") or 1
