"""What a study's folder says about its runs now: plan.json, tails of metrics.jsonl, result.json.

A finished run is read once; of the others only the tail is read, and only after it has grown, so
that a study of hundreds of runs can be looked at every second.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from data.reading import parse_object, read_object, read_tail
from launch.local.process import METRICS_FILE
from sweeps.study.results import EXCLUDED_PHASES
from sweeps.study.spec import METRIC, Phase

TAIL_BYTES = 16_384  # some eighty records: the last validation and the speed of the last minutes
# A step of a large model with its validation can take minutes; beyond this nothing was written.
QUIET_SECONDS = 180.0


class State(StrEnum):
    """Where a run is.

    waiting: nothing was written. starting: an attempt began, no step yet. running: metrics grew
    lately. quiet: they did not; it is stopped, failed or slow. The rest is result.json's status.
    """

    waiting = "waiting"
    starting = "starting"
    running = "running"
    quiet = "quiet"
    finished = "finished"
    ended = "ended"  # with another status, as diverged


@dataclass(frozen=True)
class RunState:
    """One run now.

    fraction: of its budget (of its tokens or steps where it has none), None where unknown.
    loss: the last validation loss, None before the first. flops_per_second: of late;
    work_per_second: the same in the unit of its budget.
    idle_seconds: since its metrics grew. reason: result.json's, of a run that ended badly.
    arm: '' where the study has none.
    """

    name: str
    folder: str
    phase: str
    budget: float
    state: State = State.waiting
    step: int = 0
    fraction: float | None = 0.0
    loss: float | None = None
    train_loss: float | None = None
    tokens_per_second: float | None = None
    flops_per_second: float | None = None
    work_per_second: float | None = None
    eta_seconds: float | None = None
    attempts: int = 0
    params: int | None = None
    idle_seconds: float = 0.0
    reason: str = ""
    arm: str = ""


@dataclass(frozen=True)
class Best:
    """The best loss of a budget so far, over its finished points."""

    budget: float
    finished: int
    runs: int
    loss: float | None
    name: str
    params: int | None


@dataclass(frozen=True)
class StudyState:
    """A study now. eta_seconds: at the present speed of all running runs; None when none runs.

    unit: of its budgets, flops or steps.
    """

    folder: str
    runs: list[RunState]
    best: list[Best]
    fraction: float
    eta_seconds: float | None
    counts: dict[str, int]
    unit: str = "flops"

    @property
    def over(self) -> bool:
        """Whether every planned run has ended."""
        return all(r.state in (State.finished, State.ended) for r in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


class Watcher:
    """Read a study's folder again and again, each time only what has changed."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self.folder, self._now = folder, now
        self._plan: tuple[float, list[dict[str, Any]]] = (-1.0, [])
        self._ended: dict[str, RunState] = {}
        self._tails: dict[str, tuple[tuple[float, int], RunState]] = {}

    def look(self) -> StudyState:
        """Return the study as it is now.

        Raises:
            ValueError: there is no plan, or it is not one.
        """
        specs = self._specs()
        runs = [self._run(spec) for spec in specs]
        weights = [run.budget or 0.0 for run in runs]
        mean = sum(weights) / max(sum(w > 0 for w in weights), 1) or 1.0
        weights = [weight or mean / 100 for weight in weights]  # a twin is short
        total = sum(weights) or 1.0
        fraction = sum(w * (r.fraction or 0.0) for w, r in zip(weights, runs, strict=True)) / total
        counts = {state.value: sum(r.state is state for r in runs) for state in State}
        return StudyState(
            str(self.folder), runs, best_of(runs), fraction, _eta(runs, weights), counts,
            specs[0]["unit"] if specs else "flops",
        )  # fmt: skip

    def plan_age(self) -> float:
        """Return the seconds since plan.json was last written."""
        return self._now() - self._plan[0]

    def _specs(self) -> list[dict[str, Any]]:
        path = self.folder / "plan.json"
        try:
            written = path.stat().st_mtime
            if written != self._plan[0]:
                self._plan = written, _specs(path, json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ValueError(
                f"study={self.folder}: has no plan.json. Give the folder of a study that "
                "kinescale run has started, as runs/demo."
            ) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"study={self.folder}: plan.json cannot be read ({error}). Start the study again."
            ) from None
        return self._plan[1]

    def _run(self, spec: Mapping[str, Any]) -> RunState:
        folder = self.folder / "runs" / spec["folder"]
        if spec["folder"] in self._ended:
            return self._ended[spec["folder"]]
        run = RunState(spec["name"], spec["folder"], spec["phase"], spec["budget"], arm=spec["arm"])
        result = _read_object(folder / "result.json")
        if result is not None:
            self._ended[run.folder] = _ended(run, result)
            return self._ended[run.folder]
        attempts = _count(folder / "attempts")
        try:
            stat = (folder / METRICS_FILE).stat()
        except OSError:
            state = State.starting if attempts else State.waiting
            return replace(run, state=state, attempts=attempts)
        stamp = (stat.st_mtime, stat.st_size)
        if run.folder not in self._tails or self._tails[run.folder][0] != stamp:
            records = _records(read_tail(folder / METRICS_FILE, TAIL_BYTES)[0])
            self._tails[run.folder] = stamp, _of_records(run, records, spec)
        idle = max(self._now() - stat.st_mtime, 0.0)
        known = self._tails[run.folder][1]
        state = State.running if idle < QUIET_SECONDS else State.quiet
        if not known.step:
            state = State.starting if state is State.running else state
        eta = None if known.eta_seconds is None else max(known.eta_seconds - idle, 0.0)
        return replace(
            known, state=state, idle_seconds=idle, attempts=max(attempts, 1),
            eta_seconds=eta if state is State.running else None,
        )  # fmt: skip


def _specs(path: Path, plan: Any) -> list[dict[str, Any]]:
    """Return the runs of a plan.json, checked."""
    wanted = {"name": str, "folder": str, "phase": str, "budget": int | float}
    for number, spec in enumerate(plan if isinstance(plan, list) else [None]):
        wrong = [
            key
            for key, kind in wanted.items()
            if not isinstance(spec, dict) or not isinstance(spec.get(key), kind)
        ]
        # A plan is a file like any other: it must not lead out of the study's folder.
        if wrong or Path(spec["folder"]).name != spec["folder"]:
            raise ValueError(
                f"{path}: entry {number} is no run ({', '.join(wrong) or 'folder'}). "
                "Start the study again."
            )
    return [_completed(spec) for spec in plan]


def _completed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run with its arm and its budget's unit, which older plans lack.

    Plans of before 2026-11-30 gave an arm as the phase, or not at all.
    """
    found = {"arm": "", "overrides": []} | dict(spec)
    found["unit"] = "steps" if found.get("unit") == "steps" else "flops"
    if spec["phase"] not in list(Phase):
        found |= {"phase": Phase.arm.value, "arm": spec["phase"]}
    return found


def _ended(run: RunState, result: Mapping[str, Any]) -> RunState:
    finished = result.get("status") == "finished"
    seconds, tokens = _number(result.get("seconds")), _number(result.get("tokens"))
    return replace(
        run,
        state=State.finished if finished else State.ended,
        step=int(_number(result.get("steps")) or 0),
        fraction=1.0,
        loss=_number(result.get("loss")),
        tokens_per_second=tokens / seconds if tokens and seconds else None,
        attempts=int(_number(result.get("attempts")) or 1),
        params=int(_number(result.get("params")) or 0) or None,
        reason="" if finished else f"{result.get('status')}: {result.get('reason', '')}",
    )


def _of_records(
    run: RunState, records: Sequence[Mapping[str, Any]], spec: Mapping[str, Any]
) -> RunState:
    """Return a run as the last records of its metrics show it."""
    if not records:
        return run
    last = records[-1]

    def latest(key: str) -> float | None:
        found = (_number(record.get(key)) for record in reversed(records))
        return next((value for value in found if value is not None), None)

    steps = int(_number(last.get("step")) or 0)
    count = METRIC[spec["unit"]]
    fraction = _fraction(run.budget, count, last, spec["overrides"])
    speed = _speed(records, count)
    done = _number(last.get(count))
    eta = None
    if fraction and done and speed:
        eta = done * (1 - fraction) / fraction / speed
    return replace(
        run, step=steps, fraction=fraction, loss=latest("loss"), train_loss=latest("train_loss"),
        tokens_per_second=latest("tokens_per_second"), eta_seconds=eta,
        flops_per_second=_speed(records, "flops"), work_per_second=speed,
    )  # fmt: skip


def _fraction(
    budget: float, count: str, last: Mapping[str, Any], overrides: Sequence[str]
) -> float | None:
    """Return how much of a run is done, by its budget, else by the horizon it was given."""
    goals = dict(o.split("=", 1) for o in overrides if isinstance(o, str) and "=" in o)
    for key, goal in (
        (count, budget),
        ("tokens", _number(goals.get("horizon.tokens"))),
        ("step", _number(goals.get("horizon.steps"))),
    ):
        done = _number(last.get(key))
        if goal and done is not None:
            return min(done / goal, 1.0)
    return None


def _speed(records: Sequence[Mapping[str, Any]], count: str) -> float | None:
    """Return what is counted a second over the records at hand, by the run's own clock."""
    points = [(_number(r.get("seconds")), _number(r.get(count))) for r in records]
    known = [(s, f) for s, f in points if s is not None and f is not None]
    if not known:
        return None
    first = known[0] if known[-1][0] > known[0][0] else (0.0, 0.0)
    seconds = known[-1][0] - first[0]
    return (known[-1][1] - first[1]) / seconds if seconds > 0 else None


def best_of(runs: Sequence[RunState]) -> list[Best]:
    """Return the best loss of each budget among its finished points, by rising budget."""
    points = [r for r in runs if r.budget and r.phase not in (*EXCLUDED_PHASES, Phase.replicate)]
    found = []
    for budget in sorted({run.budget for run in points}):
        members = [run for run in points if run.budget == budget]
        ended = [r for r in members if r.state is State.finished and r.loss is not None]
        best = min(ended, key=lambda r: r.loss or math.inf, default=None)
        found.append(
            Best(
                budget, len(ended), len(members), best.loss if best else None,
                best.name if best else "", best.params if best else None,
            )
        )  # fmt: skip
    return found


def _eta(runs: Sequence[RunState], weights: Sequence[float]) -> float | None:
    """Return what is left over the present speed of all running runs, or the longest's own ETA."""
    running = [r for r in runs if r.state is State.running and r.work_per_second]
    if not running:
        return None
    pairs = zip(runs, weights, strict=True)
    left = sum(weight * (1 - (run.fraction or 0.0)) for run, weight in pairs)
    speed = sum(run.work_per_second or 0.0 for run in running)
    return max([left / speed, *(run.eta_seconds or 0.0 for run in running)])


def _number(value: Any) -> float | None:
    """Return a finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _count(folder: Path) -> int:
    try:
        return sum(1 for _ in folder.iterdir())
    except OSError:
        return 0


def _read_object(path: Path) -> dict[str, Any] | None:
    found = read_object(path)
    # Not there, or another tool is writing it: the next look will tell.
    return found.values if found.exists and not found.problem else None


def _records(text: str) -> list[dict[str, Any]]:
    """Return the whole records of a tail; its first and last line may be cut."""
    found = (parse_object(line) for line in text.splitlines())
    return [record for record in found if record is not None and "step" in record]
