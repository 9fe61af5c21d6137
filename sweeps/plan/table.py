"""What each planned run will be, and what all of them take: steps, hours, money, disk."""

import heapq
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from data.checks import Check, Verdict
from data.dataset.tokens import tokens
from data.loading.mixture import limited
from data.words import shown_times
from launch.local.process import read_count
from launch.planner.machine import MachineConfig
from launch.planner.small import SmallRun, plan_small
from models.count import count_params
from sweeps.study.clips import Clips
from sweeps.study.expected import Expected, Planned
from sweeps.study.results import FREE_EPOCHS, read_result
from trainer.config import STATE_BYTES, RunConfig
from trainer.diffusion.horizon import flops_per_token, plan_horizon, some_of
from trainer.kinds import folder_of

LOG_BYTES_PER_RUN = 200e3  # configs, logs and metrics of a run of the demo
SHORT_STEPS = 20  # fewer leave a step or two to warm-up and to decay
SHORT_OF_DISK = 0.8  # of what is free: beyond it a study is warned of


@dataclass(frozen=True)
class Row:
    """One run of the table.

    state: finished, partial (``done`` of its work is in its metrics) or missing.
    seconds: wall time of the whole run on the machine; device_hours: times its processes.
    checkpoint_bytes: what it keeps on disk. flops, tokens: training only.
    passes: how often it meets each of its clips; None without the data set.
    None is what cannot be known ahead of a run of its kind.
    """

    name: str
    phase: str
    state: str
    done: float
    width: int | None
    depth: int | None
    params: int
    tokens: float | None
    flops: float | None
    steps: int
    batch_tokens: int
    lr: float
    seed: int
    processes: int
    seconds: float | None
    device_hours: float | None
    money: float | None
    checkpoint_bytes: float
    passes: float | None
    doubts: list[Check]


@dataclass(frozen=True)
class Totals:
    """What the rows take together, and what of that is left to do.

    seconds: on ``devices`` of the machine, the longest run first, of training alone.
    None is a sum over rows of which one does not know its part.
    """

    runs: int
    finished: int
    partial: int
    missing: int
    params_largest: int
    flops: float | None
    flops_left: float | None
    device_hours: float | None
    device_hours_left: float | None
    devices: int
    seconds: float | None
    seconds_left: float | None
    money: float | None
    money_left: float | None
    currency: str
    disk_bytes: float
    disk_free_bytes: float


class Estimator:
    """Turn composed runs into rows for one machine. notes: what no row can say."""

    def __init__(self, machine: MachineConfig, clips: Clips) -> None:
        self.machine, self.clips = machine, clips
        self.notes: list[str] = []
        self._fill: dict[str, float] = {}

    def row(self, expected: Expected) -> Row:
        """Return the row of one run."""
        run = expected.compose()
        if isinstance(run, RunConfig):
            return self._transformer(expected, run)
        return self._small(expected, run)

    def _small(self, expected: Expected, run: SmallRun) -> Row:
        """Return the row of a small network's run, of which less is known."""
        plan, spec = plan_small(run, self.machine), expected.spec
        bound = [] if plan.exact else ["parameters, which its data decide: the most are shown"]
        bound += ["FLOPs, which its clips decide: the most are shown"] if plan.flops else []
        for note in [*bound, *plan.unknown]:
            if (said := f"Not known of kind={plan.kind}: {note}.") not in self.notes:
                self.notes.append(said)
        state, done = existing(folder_of(run), "step", run.steps)
        return Row(
            spec.name, spec.phase.value, state, done, None, None, plan.params, None, plan.flops,
            run.steps, plan.step_tokens, run.optim.lr, run.seed, plan.processes, None, None, None,
            run.checkpoint.keep * STATE_BYTES * plan.params + LOG_BYTES_PER_RUN,
            None, expected.doubts,
        )  # fmt: skip

    def _transformer(self, expected: Expected, run: RunConfig) -> Row:
        spec = expected.spec
        infos = self.clips.of(run)
        cost = flops_per_token(run, some_of(infos))
        step_tokens = self._step_tokens(run)
        horizon = run.horizon
        asked = horizon.tokens or horizon.flops / cost or horizon.steps * step_tokens
        steps = horizon.steps or max(1, round(asked / step_tokens))
        flops = steps * step_tokens * cost
        processes = run.parallel.processes
        lengths = [tokens(i.num_frames, i.height, i.width, run.cell) for i in infos]
        rate = self.machine.flops_per_second(
            run.model,
            run.data.pack_tokens,
            run.parallel.precision.value,
            round(sum(lengths) / len(lengths)),
        )
        device_hours = flops / rate / 3600
        params = count_params(run.model).total
        state, done = existing(folder_of(run), "flops", flops)
        return Row(
            spec.name, spec.phase.value, state, done, run.model.width, run.model.depth, params,
            steps * step_tokens, flops, steps, run.batch_tokens, run.optim.lr, run.seed, processes,
            3600 * device_hours / processes, device_hours, self.machine.money(device_hours),
            run.checkpoint.keep * STATE_BYTES * params + LOG_BYTES_PER_RUN,
            self._passes(run, steps * step_tokens), expected.doubts,
        )  # fmt: skip

    def _passes(self, run: RunConfig, trained: float) -> float | None:
        """Return how often a run meets each clip of its data set; None where that is not here."""
        stored = self.clips.stored(run)
        if not stored or run.data.mixture:
            return None
        once = sum(
            tokens(i.num_frames, i.height, i.width, run.cell)
            for i in limited(stored, run.data.limit)
        )
        return trained / once

    def _step_tokens(self, run: RunConfig) -> float:
        """Return the tokens of one step: its budget less what packs leave empty."""
        stored = self.clips.stored(run)
        if not stored or run.data.mixture:
            return float(run.batch_tokens)
        key = json.dumps([asdict(run.data), run.cell], default=str)
        if key not in self._fill:
            self._fill[key] = plan_horizon(run, stored).step_tokens
        return self._fill[key]


def existing(folder: Path, count: str, whole: float) -> tuple[str, float]:
    """Return the state of a run's folder, and the share of its work that its metrics count."""
    result = read_result(folder)
    if result is not None:
        return str(result.get("status", "finished")), 1.0
    if not folder.is_dir():
        return "missing", 0.0
    done = read_count(folder, count)
    return ("partial", min(done / whole, 1.0)) if done else ("missing", 0.0)


def whole_sum(values: Sequence[float | None]) -> float | None:
    """Return a sum, None where a part of it is not known."""
    known = [value for value in values if value is not None]
    return float(sum(known)) if len(known) == len(values) else None


def makespan(rows: Sequence[tuple[float | None, int]], devices: int) -> float | None:
    """Return the wall time of (seconds, processes) on `devices`, the longest run first.

    A run wider than the machine counts as all of it. None where a run's time is not known.
    """
    free = [0.0] * devices
    known = [(seconds, processes) for seconds, processes in rows if seconds is not None]
    if len(known) < len(rows):
        return None
    for seconds, processes in sorted(known, reverse=True):
        taken = [heapq.heappop(free) for _ in range(min(processes, devices))]
        for _ in taken:
            heapq.heappush(free, max(taken) + seconds)
    return max(free)


def totals(rows: Sequence[Row], planned: Planned, machine: MachineConfig, devices: int) -> Totals:
    """Return the sums, and how long they take on `devices` of the machine."""
    left = [1 - row.done for row in rows]

    def rest(key: str) -> list[float | None]:
        values = [getattr(row, key) for row in rows]
        return [v if v is None else share * v for share, v in zip(left, values, strict=True)]

    states = [row.state for row in rows]
    folder = planned.folder.resolve()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    largest = max(rows, key=lambda r: r.checkpoint_bytes)
    return Totals(
        runs=len(rows),
        finished=len(states) - states.count("partial") - states.count("missing"),
        partial=states.count("partial"),
        missing=states.count("missing"),
        params_largest=max(r.params for r in rows),
        flops=whole_sum([r.flops for r in rows]),
        flops_left=whole_sum(rest("flops")),
        device_hours=whole_sum([r.device_hours for r in rows]),
        device_hours_left=whole_sum(rest("device_hours")),
        devices=devices,
        seconds=makespan([(r.seconds, r.processes) for r in rows], devices),
        seconds_left=makespan(
            [(s, r.processes) for s, r in zip(rest("seconds"), rows, strict=True) if s != 0],
            devices,
        ),
        money=whole_sum([r.money for r in rows]),
        money_left=whole_sum(rest("money")),
        currency=machine.price.currency,
        # One checkpoint more than kept exists on each device while a new one is written.
        disk_bytes=sum(r.checkpoint_bytes for r in rows) + devices * largest.checkpoint_bytes,
        disk_free_bytes=shutil.disk_usage(there).free,
    )


def doubts(rows: Sequence[Row], total: Totals) -> list[Check]:
    """Return what should be looked at before the study starts, of each run by itself."""
    found = [replace(doubt, of=row.name) for row in rows for doubt in row.doubts]
    for row in rows:
        if (row.passes or 0) > FREE_EPOCHS:
            found.append(
                Check(
                    "clips", Verdict.warning, f"met {shown_times(row.passes or 0)} times each",
                    f"Beyond {FREE_EPOCHS} repeated data is worth less than new: add clips, or "
                    "lower budgets.", row.name, row.passes or 0,
                )
            )  # fmt: skip
        if row.steps < SHORT_STEPS:
            found.append(
                Check(
                    "steps", Verdict.warning, f"{row.steps} in all, fewer than {SHORT_STEPS}",
                    "Use a smaller batch or larger budgets, else warm-up and decay are a step or "
                    "two.", row.name, 1 / row.steps,
                )
            )  # fmt: skip
    if total.disk_bytes > SHORT_OF_DISK * total.disk_free_bytes:
        kept, free = total.disk_bytes / 1e9, total.disk_free_bytes / 1e9
        found.append(
            Check(
                "disk", Verdict.warning, f"the runs keep {kept:.3g} GB and {free:.3g} GB are free",
                "Set checkpoint.keep=1 in base, or root= to another disk.",
            )
        )  # fmt: skip
    return found


def said(doubt: Check) -> str:
    """Return a doubt as a sentence, with its remedy."""
    return f"{doubt.text}. {doubt.remedy}".strip()


def as_json(
    rows: Sequence[Row], total: Totals, planned: Planned, machine: str, notes: Sequence[str]
) -> dict[str, Any]:
    """Return the plan for a tool."""
    return {
        "study": str(planned.folder),
        "machine": machine,
        "runs": [asdict(r) | {"doubts": [said(doubt) for doubt in r.doubts]} for r in rows],
        "totals": asdict(total),
        "notes": list(notes),
        "warnings": [said(doubt) for doubt in doubts(rows, total)],
    }
