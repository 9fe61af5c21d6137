"""Plans and searches as tables for people, and as plain values for programs."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from data.words import counted
from launch.planner.config import PlanConfig, SearchConfig
from launch.planner.console import wide_console
from launch.planner.estimate import Estimate
from launch.planner.machine import MachineConfig
from launch.planner.memory import PARTS, Memory, binary_bytes
from launch.planner.network import Network
from launch.planner.search import Candidate, Found, describe
from launch.planner.small import SmallPlan
from launch.planner.speed import StepTime, training_flops
from models.count import count_params
from trainer.config import RunConfig

CAUSES = (
    "matmul", "attention", "elementwise", "kernels", "optimizer", "tensor", "context", "pipeline",
    "data", "bubble",
)  # fmt: skip
KINDS = {"tensor": "communication", "context": "communication", "pipeline": "communication"}
KINDS |= {"data": "communication", "bubble": "bubble"}


def show_estimate(found: Estimate) -> None:
    """Print one run's plan."""
    console, run, layout = wide_console(), found.run, found.run.parallel.layout
    parallel = run.parallel
    console.print(
        f"[bold]{escape(found.name)}[/] on {found.nodes} x {found.machine.name}: "
        f"{count_text(count_params(run.model).total)} parameters, tp {layout.tp} cp {layout.cp} "
        f"dp {layout.dp} pp {layout.pp}, ZeRO {parallel.zero_stage}, {parallel.precision.value}, "
        f"recompute {parallel.recompute.value}"
    )
    console.print(_memory_table(found.memory))
    console.print(_time_table(found.time))
    console.print(_sum_table(found))
    for warning in found.warnings:
        console.print(f"[yellow]warning[/] {escape(warning)}")
    for note in found.notes:
        console.print(f"note {escape(note)}")


def show_small(found: SmallPlan) -> None:
    """Print the plan of a small network's run."""
    console, most = wide_console(), "" if found.exact else "at most "
    console.print(
        f"[bold]{escape(found.name)}[/], kind={found.kind}, on {found.machine.name}: "
        f"{most}{count_text(found.params)} parameters, "
        f"{counted(found.processes, 'process', 'processes')}, each with all of them, fp32"
    )
    table = Table(title="what is known")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("steps", f"{found.steps:,}")
    table.add_row("tokens of a step, at most", f"{found.step_tokens:,}")
    table.add_row("weights and optimizer in each process", most + binary_bytes(found.held_bytes))
    table.add_row("a checkpoint", most + binary_bytes(found.checkpoint_bytes))
    table.add_row("checkpoints while one is written", most + binary_bytes(found.disk_bytes))
    if found.flops is not None and found.seconds_at_peak is not None:
        table.add_row("FLOPs of the network, at most", f"{found.flops:.3g}")
        table.add_row("that at the machine's peak", _days(found.seconds_at_peak / 86400))
    console.print(table)
    for words in found.unknown:
        console.print(f"[yellow]not modelled[/] {escape(words)}")
    if not found.fits:
        console.print(f"[red]does not fit[/] into {binary_bytes(found.machine.memory_bytes)}.")


def show_search(
    run: RunConfig,
    machine: MachineConfig,
    plan: PlanConfig,
    settings: SearchConfig,
    found: Found,
) -> None:
    """Print the best layouts and why the others lost."""
    console, clips = wide_console(), found.clips
    console.print(
        f"[bold]{count_text(count_params(run.model).total)} parameters[/] on {settings.gpus} x "
        f"{machine.name}, {count_text(found.batch_tokens)} tokens a step, clips of "
        f"{clips.mean:,.0f} tokens: looked at {found.looked_at:,} layouts"
    )
    if found.best:
        table = Table(title="the best")
        for name in ("layout", "pack", "step", "MFU", "tokens/s", "communication", "bubble",
                     "memory", "days"):  # fmt: skip
            table.add_column(name, justify="left" if name == "layout" else "right")
        for candidate in found.best:
            figures = _figures(run, machine, plan, found, candidate)
            time = candidate.time
            table.add_row(
                describe(candidate), f"{candidate.pack_tokens:,}", f"{time.total:.2f} s",
                f"{figures['mfu']:.1%}", f"{figures['tokens_per_second']:,.0f}",
                f"{time.communication / time.total:.0%}", f"{time.bubble / time.total:.0%}",
                binary_bytes(candidate.memory.total), _days(figures["days"]),
            )  # fmt: skip
        console.print(table)
        console.print("the first as overrides:", style="bold")
        console.print("  " + " ".join(found.best[0].overrides()), soft_wrap=True)
    else:
        console.print("[red]no layout fits.[/] Use more gpus, or search.offload=true.")
    table = Table(title="why the others lost")
    table.add_column("reason")
    table.add_column("layouts", justify="right")
    table.add_column("the closest")
    for group in found.losers:
        table.add_row(group.reason, f"{group.count:,}", group.closest)
    console.print(table)


def search_json(
    run: RunConfig,
    machine: MachineConfig,
    plan: PlanConfig,
    settings: SearchConfig,
    found: Found,
) -> dict[str, Any]:
    """Return a search as plain values."""
    clips = found.clips
    best = [
        {
            "layout": describe(candidate),
            "overrides": candidate.overrides(),
            "memory_bytes": vars(candidate.memory) | {"total": candidate.memory.total},
            "step_seconds": vars(candidate.time) | {"total": candidate.time.total},
        }
        | _figures(run, machine, plan, found, candidate)
        for candidate in found.best
    ]
    return {
        "params": count_params(run.model).total,
        "machine": machine.name,
        "gpus": settings.gpus,
        "batch_tokens": found.batch_tokens,
        "clips": vars(clips),
        "looked_at": found.looked_at,
        "best": best,
        "losers": [vars(group) for group in found.losers],
    }


def _figures(
    run: RunConfig,
    machine: MachineConfig,
    plan: PlanConfig,
    found: Found,
    candidate: Candidate,
) -> dict[str, float]:
    """Return speed, days and money of a candidate."""
    clips = found.clips
    tokens = plan.fill * candidate.pack_tokens * candidate.packs_per_step
    flops = training_flops(Network.of(run.model), tokens, clips.segment, clips.caption)
    seconds, devices = candidate.time.total, candidate.parallel.layout.world
    horizon = run.horizon
    steps = horizon.steps or (horizon.tokens / tokens if horizon.tokens else horizon.flops / flops)
    hours = steps * seconds / plan.goodput / 3600
    peak = machine.peak(candidate.parallel.precision.value)
    return {
        "mfu": flops / seconds / devices / peak,
        "tokens_per_second": tokens / seconds,
        "days": hours / 24,
        "money": machine.money(hours * devices),
    }


def _memory_table(memory: Memory) -> Table:
    table = Table(title=f"memory of the fullest rank, stage {memory.stage}")
    table.add_column("part")
    table.add_column("bytes", justify="right")
    for part in PARTS:
        value = getattr(memory, part)
        if value:
            table.add_row(part, binary_bytes(value))
    table.add_section()
    fits = memory.excess <= 0
    word = "of" if fits else "[red]does not fit into[/]"
    table.add_row("total", f"{binary_bytes(memory.total)} {word} {binary_bytes(memory.available)}")
    if memory.host:
        table.add_row("host, a node", binary_bytes(memory.host))
    return table


def _time_table(time: StepTime) -> Table:
    table = Table(title=f"a step of {time.total:.4g} s")
    for name, justify in (("kind", "left"), ("cause", "left"), ("s", "right"), ("share", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for cause in CAUSES:
        value = getattr(time, cause)
        if value:
            share = f"{value / time.total:.1%}"
            table.add_row(KINDS.get(cause, "compute"), cause, f"{value:.4g}", share)
    return table


def _sum_table(found: Estimate) -> Table:
    workload, machine, disk = found.workload, found.machine, found.disk
    hours = found.device_hours
    table = Table(title="the run", show_header=False)
    table.add_column("what")
    table.add_column("figure")
    rows = {
        "steps": f"{workload.steps:,} of {count_text(workload.step_tokens)} tokens",
        "tokens": count_text(workload.tokens),
        "FLOPs": f"{workload.steps * workload.step_flops:.3g}, {workload.step_flops:.3g} a step",
        "MFU": f"{found.mfu:.1%}",
        "tokens/s": f"{found.tokens_per_second:,.0f}",
        "days": _days(found.wall_seconds / 86400),
        "device-hours": f"{_money(hours)} on {counted(found.paid_devices, 'paid device')}",
        "energy": f"{_money(machine.kilowatt_hours(hours))} kWh",
        "money": f"{_money(machine.money(hours))} {machine.price.currency} at "
        f"{machine.price.per_device_hour:g} a device-hour ({machine.price.as_of}: "
        f"{machine.price.source})",
        "checkpoint": f"{binary_bytes(disk.checkpoint)}, {disk.kept} kept, {disk.saves:,.0f} saved",
        "disk": f"{binary_bytes(disk.peak)} at most, {binary_bytes(disk.final)} at the end",
    }
    for name, text in rows.items():
        table.add_row(name, escape(text))
    return table


def _money(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _days(days: float) -> str:
    if days >= 1:
        return f"{days:.1f}"
    return f"{days * 24:.1f} h" if days * 24 >= 1 else f"{days * 1440:.1f} min"


def count_text(value: float) -> str:
    """Return three digits with a unit: ``1T`` tokens, ``2.5B`` parameters."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:  # 999.9 of the unit below would be 1e+03 in three digits
            return f"{float(f'{value / size:.3g}'):g}{unit}"
    return f"{value:.3g}"
