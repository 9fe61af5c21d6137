"""One run on one machine in one layout: memory, time, money, disk, and what to beware of."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from shutil import disk_usage
from typing import Any

from data.words import counted
from launch.planner.config import PlanConfig
from launch.planner.disk import Disk, run_disk
from launch.planner.machine import MachineConfig
from launch.planner.memory import Memory, binary_bytes, plan_memory
from launch.planner.network import Network
from launch.planner.online import online_bytes
from launch.planner.speed import Execution, StepTime, step_time
from launch.planner.workload import Workload, batch_of, pack_shape, plan_workload
from models.count import count_params
from trainer.config import RunConfig
from trainer.diffusion.times_drawn import starved_times
from trainer.identity import run_name
from trainer.layout.config import ParallelConfig, Precision, Recompute

FREE_EPOCHS = 4  # up to here repeated data is worth about as much as new (Muennighoff et al. 2023)
GIB = 2.0**30


@dataclass(frozen=True)
class Estimate:
    """What a run will need. nodes: whole ones are paid. wall_seconds: with what does not train.

    notes: what is assumed, or not known here.
    """

    name: str
    machine: MachineConfig
    run: RunConfig
    workload: Workload
    memory: Memory
    time: StepTime
    disk: Disk
    nodes: int
    wall_seconds: float
    warnings: list[str]
    notes: list[str]

    @property
    def paid_devices(self) -> int:
        """Devices of whole nodes; on CPUs, the processes."""
        if not self.machine.accelerator:
            return self.run.parallel.layout.world
        return self.nodes * self.machine.devices_per_node

    @property
    def mfu(self) -> float:
        """Model FLOPs over what the devices could do in a step; recomputation does not count."""
        run = self.run
        peak = self.machine.peak(run.parallel.precision.value) * run.parallel.layout.world
        return self.workload.step_flops / self.time.total / peak

    @property
    def tokens_per_second(self) -> float:
        """Video tokens a second of all devices, while it trains."""
        return self.workload.step_tokens / self.time.total

    @property
    def device_hours(self) -> float:
        """Paid device-hours."""
        return self.wall_seconds / 3600 * self.paid_devices

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        layout, run = self.run.parallel.layout, self.run
        return {
            "name": self.name,
            "machine": self.machine.name,
            "devices": layout.world,
            "nodes": self.nodes,
            "layout": vars(layout) | _choices(run.parallel),
            "params": count_params(run.model).total,
            "dataset_read": self.workload.measured,
            "steps": self.workload.steps,
            "tokens": self.workload.tokens,
            "flops": self.workload.steps * self.workload.step_flops,
            "step_tokens": self.workload.step_tokens,
            "step_flops": self.workload.step_flops,
            "memory_bytes": vars(self.memory) | {"total": self.memory.total},
            "step_seconds": vars(self.time) | {"total": self.time.total},
            "mfu": self.mfu,
            "tokens_per_second": self.tokens_per_second,
            "days": self.wall_seconds / 86400,
            "device_hours": self.device_hours,
            "kilowatt_hours": self.machine.kilowatt_hours(self.device_hours),
            "money": self.machine.money(self.device_hours),
            "currency": self.machine.price.currency,
            "disk_bytes": vars(self.disk)
            | {"peak": self.disk.peak, "final": self.disk.final, "written": self.disk.written},
            "warnings": self.warnings,
            "notes": self.notes,
        }


def _choices(parallel: ParallelConfig) -> dict[str, Any]:
    keys = ("interleave", "zero_stage", "offload")
    chosen: dict[str, Any] = {key: getattr(parallel, key) for key in keys}
    modes = {"recompute": parallel.recompute.value, "precision": parallel.precision.value}
    return chosen | modes


def estimate(run: RunConfig, machine: MachineConfig, plan: PlanConfig) -> Estimate:
    """Plan one run. Raises ValueError with the remedy for what cannot be."""
    plan.check()
    parallel, workload = run.parallel, plan_workload(run, plan)
    micros = run.data.packs_per_step // parallel.layout.dp
    pack = pack_shape(workload.clips, run.data.pack_tokens)
    online = online_bytes(run, workload.clips.longest) if plan.online else 0.0
    memory = plan_memory(run.model, parallel, pack, micros, machine, online, run.optim.kind)
    batch = batch_of(workload.clips, run.data.pack_tokens, micros)
    how = Execution.of(parallel, run.model, run.optim.kind)
    time = step_time(Network.of(run.model), machine, how, batch)
    wall = workload.steps * time.total / plan.goodput
    nodes = ceil(parallel.layout.world / machine.devices_per_node)
    disk = run_disk(run, workload.steps, wall)
    found = Estimate(
        run_name(run),
        machine,
        run,
        workload,
        memory,
        time,
        disk,
        nodes,
        wall,
        warnings=[],
        notes=[],
    )
    found.warnings.extend([*_memory_warnings(found), *_speed_warnings(found, micros)])
    found.warnings.extend(_run_warnings(found, plan))
    found.notes.extend(_notes(found, plan))
    return found


def _memory_warnings(found: Estimate) -> Iterator[str]:
    memory, parallel = found.memory, found.run.parallel
    if memory.excess > 0:
        largest = max(
            ("activations", "optimizer", "params", "gradients", "buffers", "working"),
            key=lambda part: float(getattr(memory, part)),
        )
        remedy = {
            "activations": "parallel.recompute=full, more parallel.cp or tp, or a smaller pack",
            "working": "more parallel.cp or tp, or a smaller pack",
            "optimizer": "parallel.zero_stage=1, more data parallel ranks, or parallel.offload",
            "params": "parallel.zero_stage=3, or more parallel.tp or pp",
            "gradients": "parallel.zero_stage=2, or more parallel.tp or pp",
            "buffers": "parallel.zero_stage=1, or more parallel.tp or pp",
        }[largest]
        yield (
            f"memory: {binary_bytes(memory.excess)} too much on a rank of stage {memory.stage}; "
            f"{largest} is the largest part. Try {remedy}, or --search."
        )
    elif memory.total > 0.92 * memory.available:
        yield f"memory: {memory.total / memory.available:.0%} of a device leaves little to err."
    if memory.host > 0.9 * found.machine.host_memory_bytes:
        yield (
            f"memory: {memory.host / GIB:.0f} GiB of a node's host memory of "
            f"{found.machine.host_memory_bytes / GIB:.0f} GiB. Offload less or encode ahead."
        )
    if found.run.data.pack_tokens < found.workload.clips.longest:
        yield (
            f"data.pack_tokens={found.run.data.pack_tokens}: the longest clip has "
            f"{found.workload.clips.longest} tokens and will be refused. Raise it."
        )
    if parallel.recompute is Recompute.full and memory.total < 0.5 * memory.available:
        yield "recompute=full: half of the memory is free. Try selective or none, which is faster."


def _speed_warnings(found: Estimate, micros: int) -> Iterator[str]:
    parallel, time, machine = found.run.parallel, found.time, found.machine
    slow = machine.peak_flops.get("fp32", 0) < 0.5 * machine.peak_flops.get("bf16", 0)
    if slow and parallel.precision is Precision.fp32:
        yield (
            f"precision=fp32: runs at {machine.peak('fp32') / 1e12:.0f} TFLOP/s and not at "
            f"{machine.peak('bf16') / 1e12:.0f}. Use parallel.precision=bf16 zero_stage=1."
        )
    if parallel.tp > machine.devices_per_node:
        yield (
            f"parallel.tp={parallel.tp}: leaves the node of {machine.devices_per_node} devices, "
            "and every layer waits for the network. Use tp within a node."
        )
    if time.bubble > 0.15 * time.total:
        yield (
            f"bubble: {time.bubble / time.total:.0%} of a step. Use more packs a replica than "
            f"{micros}, fewer stages, or parallel.interleave."
        )
    if time.communication > 0.25 * time.total:
        parts = {name: getattr(time, name) for name in ("tensor", "context", "pipeline", "data")}
        worst = max(parts, key=lambda name: parts[name])
        yield (
            f"communication: {time.communication / time.total:.0%} of a step, most of it "
            f"{worst} parallel. Try --search."
        )
    if parallel.zero_stage == 2 and micros > 1:
        yield (
            f"zero_stage=2: reduces gradients {micros} times a step, once a pack. "
            "Use zero_stage=1 unless gradients do not fit."
        )
    world = parallel.layout.world
    if machine.accelerator and world % machine.devices_per_node:
        idle = found.paid_devices - world
        yield f"devices: paid and idle {idle} of {found.paid_devices}. Fill the nodes."
    if parallel.layout.dp > 1 and micros < 4:
        yield (
            f"balance: {counted(micros, 'pack')} a rank; random clips then leave ranks waiting. "
            "Four can be balanced (data.packs_per_step)."
        )


def _run_warnings(found: Estimate, plan: PlanConfig) -> Iterator[str]:
    days, run = found.wall_seconds / 86400, found.run
    if days > plan.max_days:
        yield f"time: {days:.0f} days is more than plan.max_days={plan.max_days:g}."
    if found.workload.epochs > FREE_EPOCHS:
        yield (
            f"data: {found.workload.epochs:.1f} passes; beyond {FREE_EPOCHS} repeated data is "
            "worth less than new (Muennighoff et al. 2023)."
        )
    if starved := starved_times(run, {round(found.workload.clips.segment): 1.0}):
        yield (
            f"objective: {starved}, for clips of {found.workload.clips.segment:.0f} tokens. Set "
            "objective.most_shift, raise shift_tokens, or choose objective.density."
        )
    free = _free_bytes(run, plan)
    if free is not None and found.disk.peak > free:
        yield (
            f"disk: {found.disk.peak / GIB:.1f} GiB of checkpoints while one is written, and "
            f"{free / GIB:.1f} GiB free. Lower checkpoint.keep={run.checkpoint.keep}."
        )
    writing, interval = found.disk.checkpoint / plan.disk_bytes_per_second, run.checkpoint.seconds
    if interval and writing > interval / 2:
        yield (
            f"disk: a checkpoint of {found.disk.checkpoint / GIB:.1f} GiB takes {writing:.0f} s at "
            f"plan.disk_bytes_per_second={plan.disk_bytes_per_second:g}, and one is due every "
            f"{interval:g} s. Raise checkpoint.seconds."
        )


def _notes(found: Estimate, plan: PlanConfig) -> Iterator[str]:
    run = found.run
    if not found.workload.measured:
        yield (
            f"data: {run.data.root} has no index here; clips of {found.workload.clips.mean:.0f} "
            "tokens are assumed (plan.clip_tokens, plan.caption_tokens, plan.fill)."
        )
    if _free_bytes(run, plan) is None:
        yield (
            f"disk: there is no folder {run.run_root} here, so that nobody knows what is free "
            "where the run will save (plan.disk_bytes)."
        )


def _free_bytes(run: RunConfig, plan: PlanConfig) -> float | None:
    """Return what is free where runs lie, None where that is another machine's matter."""
    if plan.disk_bytes:
        return plan.disk_bytes
    folder = Path(run.run_root)
    return float(disk_usage(folder).free) if folder.is_dir() else None
