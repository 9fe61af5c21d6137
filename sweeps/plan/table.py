"""What each planned run will be, and what all of them take: steps, hours, money, disk."""

import heapq
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.dataset.tokens import tokens
from launch.local.process import read_flops
from launch.planner.machine import MachineConfig
from models.count import count_params
from sweeps.study.clips import Clips
from sweeps.study.expected import Expected, Planned
from sweeps.study.results import read_result
from trainer.config import RunConfig
from trainer.diffusion.horizon import flops_per_token, plan_horizon, some_of
from trainer.identity import run_name

# A checkpoint holds fp32 weights, their average and both moments of AdamW (trainer/checkpoint).
CHECKPOINT_BYTES_PER_PARAM = 16
LOG_BYTES_PER_RUN = 200e3  # configs, logs and metrics of a run of the demo
SHORT_OF_DISK = 0.8  # of what is free: beyond it a study is warned of


@dataclass(frozen=True)
class Row:
    """One run of the table.

    state: finished, partial (``done`` of its FLOPs are in its metrics) or missing.
    seconds: wall time of the whole run on the machine; device_hours: times its processes.
    checkpoint_bytes: what it keeps on disk. flops, tokens: training only.
    """

    name: str
    phase: str
    state: str
    done: float
    width: int
    depth: int
    params: int
    tokens: float
    flops: float
    steps: int
    batch_tokens: int
    lr: float
    seed: int
    processes: int
    seconds: float
    device_hours: float
    money: float
    checkpoint_bytes: float
    doubts: list[str]


@dataclass(frozen=True)
class Totals:
    """What the rows take together, and what of that is left to do.

    seconds: on ``devices`` of the machine, the longest run first, of training alone.
    """

    runs: int
    finished: int
    partial: int
    missing: int
    params_largest: int
    flops: float
    flops_left: float
    device_hours: float
    device_hours_left: float
    devices: int
    seconds: float
    seconds_left: float
    money: float
    money_left: float
    currency: str
    disk_bytes: float
    disk_free_bytes: float


class Estimator:
    """Turn composed runs into rows for one machine."""

    def __init__(self, machine: MachineConfig, clips: Clips) -> None:
        self.machine, self.clips = machine, clips
        self._fill: dict[str, float] = {}

    def row(self, expected: Expected) -> Row:
        """Return the row of one run."""
        run, spec = expected.compose(), expected.spec
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
        state, done = existing(Path(run.run_root) / run_name(run), flops)
        return Row(
            spec.name, spec.phase.value, state, done, run.model.width, run.model.depth, params,
            steps * step_tokens, flops, steps, run.batch_tokens, run.optim.lr, run.seed, processes,
            3600 * device_hours / processes, device_hours, self.machine.money(device_hours),
            run.checkpoint.keep * CHECKPOINT_BYTES_PER_PARAM * params + LOG_BYTES_PER_RUN,
            expected.doubts,
        )  # fmt: skip

    def _step_tokens(self, run: RunConfig) -> float:
        """Return the tokens of one step: its budget less what packs leave empty."""
        stored = self.clips.stored(run)
        if not stored or run.data.mixture:
            return float(run.batch_tokens)
        key = json.dumps([asdict(run.data), run.cell], default=str)
        if key not in self._fill:
            self._fill[key] = plan_horizon(run, stored).step_tokens
        return self._fill[key]


def existing(folder: Path, flops: float) -> tuple[str, float]:
    """Return the state of a run's folder and the share of its FLOPs that are done."""
    result = read_result(folder)
    if result is not None:
        return str(result.get("status", "finished")), 1.0
    if not folder.is_dir():
        return "missing", 0.0
    done = read_flops(folder)
    return ("partial", min(done / flops, 1.0)) if done else ("missing", 0.0)


def makespan(rows: Sequence[tuple[float, int]], devices: int) -> float:
    """Return the wall time of (seconds, processes) on `devices`, the longest run first.

    A run wider than the machine counts as all of it.
    """
    free = [0.0] * devices
    for seconds, processes in sorted(rows, reverse=True):
        taken = [heapq.heappop(free) for _ in range(min(processes, devices))]
        for _ in taken:
            heapq.heappush(free, max(taken) + seconds)
    return max(free)


def totals(rows: Sequence[Row], planned: Planned, machine: MachineConfig, devices: int) -> Totals:
    """Return the sums, and how long they take on `devices` of the machine."""
    left = [1 - row.done for row in rows]

    def rest(key: str) -> float:
        return float(sum(share * getattr(r, key) for share, r in zip(left, rows, strict=True)))

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
        flops=sum(r.flops for r in rows),
        flops_left=rest("flops"),
        device_hours=sum(r.device_hours for r in rows),
        device_hours_left=rest("device_hours"),
        devices=devices,
        seconds=makespan([(r.seconds, r.processes) for r in rows], devices),
        seconds_left=makespan(
            [(s * r.seconds, r.processes) for s, r in zip(left, rows, strict=True) if s], devices
        ),
        money=sum(r.money for r in rows),
        money_left=rest("money"),
        currency=machine.price.currency,
        # One checkpoint more than kept exists on each device while a new one is written.
        disk_bytes=sum(r.checkpoint_bytes for r in rows) + devices * largest.checkpoint_bytes,
        disk_free_bytes=shutil.disk_usage(there).free,
    )


def doubts(rows: Sequence[Row], total: Totals) -> list[str]:
    """Return what should be looked at before the study starts."""
    found = [f"{row.name}: {doubt}" for row in rows for doubt in row.doubts]
    if total.disk_bytes > SHORT_OF_DISK * total.disk_free_bytes:
        found.append(
            f"Disk: the runs keep {total.disk_bytes / 1e9:.3g} GB and "
            f"{total.disk_free_bytes / 1e9:.3g} GB are free. Set checkpoint.keep=1 in base, or "
            "root= to another disk."
        )
    short = [row.name for row in rows if row.steps < 20]
    if short:
        found.append(
            f"{len(short)} runs have fewer than 20 steps ({short[0]} first): a smaller batch, or "
            "larger budgets, else warm-up and decay are a step or two."
        )
    return found


def as_json(
    rows: Sequence[Row], total: Totals, planned: Planned, machine: str, notes: Sequence[str]
) -> dict[str, Any]:
    """Return the plan for a tool."""
    return {
        "study": str(planned.folder),
        "machine": machine,
        "runs": [asdict(row) for row in rows],
        "totals": asdict(total),
        "notes": list(notes),
        "warnings": doubts(rows, total),
    }
