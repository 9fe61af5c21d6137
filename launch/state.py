"""What a run is doing, from its folder and the queue; reads only."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.local.process import METRICS_FILE, tail_text
from launch.run_folder.goodput import measure
from launch.run_folder.records import CANCELLED_FILE, read_json, read_launches
from launch.run_folder.runs import RESULT_FILE, RunFolder
from launch.slurm.accounting import PastJob
from launch.slurm.commands import QueueEntry
from launch.slurm.submit import entry_of
from trainer.run.heartbeat import read_heartbeats

if TYPE_CHECKING:
    from launch.planner.machine import MachineConfig

# Three beats of faults.beat_seconds' default, and a slow file server.
_FRESH_SECONDS = 30.0
# What is said where a folder does not tell how its run ended; accounting may.
_LOST = "ended without a word: its node was lost, or it was killed"
_NO_SIGN = "gives no sign of life"


@dataclass
class RunState:
    """One line of the table.

    state: done, diverged, running, stalled, waiting, held, stopped, failed, cancelled or new.
    reason: why it waits, failed, or who holds it up. job: in the queue. nodes: where.
    goodput, lost_seconds: see goodput.py. device_hours: processes times hours held; cost: at the
    cluster's price, None without one. eta_seconds: at the speed of the last logged step. mfu: model
    FLOPs over what the processes' devices can do at most, None where the machine is not known.
    """

    name: str
    state: str = "new"
    reason: str = ""
    job: str = ""
    nodes: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
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
        """Return it as JSON."""
        return asdict(self)


def state_of(
    run: RunFolder,
    entries: Sequence[QueueEntry] | None,
    price: float = 0.0,
    now: float | None = None,
    machine: "MachineConfig | None" = None,
    past: PastJob | None = None,
) -> RunState:
    """Read a run's state.

    entries: the queue; None where it is not known or there is none. price: of a process an hour.
    past: what accounting remembers of its last job, which tells how a run without a word ended.
    machine: whose peak MFU is a share of. Raises ValueError where it has none for the precision.
    """
    now = time.time() if now is None else now
    found = RunState(run.name)
    _add_progress(found, run.path)
    launches = read_launches(run.path)
    entry = entry_of(run.path, entries or [])
    if entry is not None:
        found.job, found.nodes = entry.job, entry.nodes
    _judge(found, run.path, launches, entry, entries is not None, now)
    if past is not None and entry is None and found.state in ("failed", "new"):
        _add_past(found, past)
    goodput = measure(run.path, now if found.state in ("running", "stalled") else 0.0)
    found.goodput, found.lost_seconds = goodput.share, goodput.lost
    parallel = read_yaml(run.path / "config.yaml").get("parallel", {})
    processes = _processes(parallel, launches)
    if machine is not None and found.teraflops_per_second is not None:
        peak = processes * machine.peak(str(parallel.get("precision", "fp32")))
        found.mfu = found.teraflops_per_second * 1e12 / peak
    found.device_hours = processes * goodput.computing / 3600
    found.cost = price * found.device_hours if price else None
    starts = sum(r["event"] == "start" for r in launches)
    found.attempts = starts or len(list((run.path / "attempts").glob("[0-9]*")))
    return found


def _add_progress(found: RunState, path: Path) -> None:
    """Add what the last lines of metrics.jsonl and the frozen config say."""
    lines = _records(tail_text(path / METRICS_FILE, 50))
    for record in lines:
        found.step = record.get("step", found.step)
        found.loss = record.get("train_loss", found.loss)
        found.tokens_per_second = record.get("tokens_per_second", found.tokens_per_second)
    result = read_json(path / RESULT_FILE)
    found.step = result.get("steps", found.step)
    found.loss = result.get("loss", found.loss)
    speeds = [r for r in lines if r.get("seconds")]
    if not speeds:
        return
    last = speeds[-1]
    if last.get("flops"):  # of small networks nobody counts them
        found.teraflops_per_second = last["flops"] / last["seconds"] / 1e12
    found.steps = max(result.get("steps", 0), _planned_steps(path, last))
    left = max(found.steps - last["step"], 0)
    found.eta_seconds = left * last["seconds"] / max(last["step"], 1) if found.steps else None


def _planned_steps(path: Path, last: dict[str, Any]) -> int:
    """Return how many steps a run has in all, by its horizon and what a step has cost so far.

    A small network's run states its steps; 0 where nothing does.
    """
    config = read_yaml(path / "config.yaml")
    horizon = config.get("horizon", {})
    if steps := horizon.get("steps") or config.get("steps"):
        return int(steps)
    for key in ("flops", "tokens"):
        if horizon.get(key) and last.get(key):
            return round(last["step"] * horizon[key] / last[key])
    return 0


def _judge(
    found: RunState,
    path: Path,
    launches: Sequence[dict[str, Any]],
    entry: QueueEntry | None,
    asked: bool,
    now: float,
) -> None:
    """Set state and reason."""
    result, stalled = read_json(path / RESULT_FILE), read_json(path / "stalled.json")
    if result:
        diverged = result.get("status") == "diverged"
        found.state, found.reason = ("diverged", result["reason"]) if diverged else ("done", "")
        found.eta_seconds = None
        return
    beats = read_heartbeats(path)
    alive = any(now - b["written"] < _FRESH_SECONDS and b["phase"] != "ended" for b in beats)
    if entry is not None and entry.state == "PENDING":
        held = entry.reason.startswith("JobHeld") or entry.reason == "DependencyNeverSatisfied"
        found.state, found.reason = ("held" if held else "waiting"), entry.reason
    elif entry is not None or (alive and not (asked and launches)):
        found.state, found.reason = "running", _lagging(beats)
        if stalled.get("summary"):
            found.state, found.reason = "stalled", stalled["summary"]
    elif (path / CANCELLED_FILE).exists():
        found.state = "cancelled"
    elif (path / "stopped.json").exists():
        found.state, found.reason = "stopped", "saved; the same submission continues it"
    elif beats or launches:
        found.state, found.reason = "failed", stalled.get("summary", "") or _last_reason(launches)


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
    return str(ends[-1].get("reason", "")) if ends else _NO_SIGN


def _lagging(beats: Sequence[dict[str, Any]]) -> str:
    """Name the ranks whose step is behind that of the others; collectives allow one step."""
    steps = [b["step"] for b in beats if b["phase"] not in ("start", "load", "ended")]
    if not steps or max(steps) - min(steps) < 2:
        return ""
    slow = [b for b in beats if b["step"] == min(steps)]
    names = ", ".join(f"rank {b['rank']} on {b['host']}" for b in slow[:3])
    return f"{names}: at step {min(steps)}, others at {max(steps)}"


def _processes(parallel: dict[str, Any], launches: Sequence[dict[str, Any]]) -> int:
    counts = [r["processes"] for r in launches if r.get("processes")]
    return int(counts[-1]) if counts else int(parallel.get("processes", 1))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a frozen config as plain values; {} if it cannot be read."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        found = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, YAMLError, OmegaConfBaseException):
        return {}
    return {str(k): v for k, v in found.items()} if isinstance(found, dict) else {}


def _records(text: str) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found
