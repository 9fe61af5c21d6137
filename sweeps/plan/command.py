"""The command line of a plan: options apart from the study's own keys, and the printed table."""

import json
import re
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from data.checks import gathered
from data.notices import doing
from data.show.progress import Progress
from data.words import counted, shown_times
from launch.local.progress import format_clock
from launch.planner.machine import load_machine
from sweeps.kinds.catalogue import plan_study
from sweeps.kinds.compose import compose_any
from sweeps.plan.table import Estimator, Row, Totals, as_json, doubts, said, totals
from sweeps.study.clips import Clips
from sweeps.study.expected import Planned

OWN = ("machine", "price", "devices", "clip")
UNKNOWN = "–"


def run(argv: Sequence[str]) -> int:
    """Plan the study of a command line and print it.

    Raises:
        ValueError: an option, the study or one of its runs cannot be.
    """
    words = [a for a in argv if a != "--json"]
    if unknown := [a for a in words if a.startswith("-")]:
        raise ValueError(f"{unknown[0]}: is not an option. Use key=value or --json; see --help.")
    own = dict(a.split("=", 1) for a in words if a.partition("=")[0] in OWN and "=" in a)
    price = [f"price.per_device_hour={own['price']}"] if "price" in own else []
    machine = load_machine(own.get("machine", "cpu2"), price)
    devices = _count(own["devices"]) if "devices" in own else machine.devices_per_node
    clips = Clips(_clip(own["clip"]) if "clip" in own else None)
    study = compose_any([a for a in words if a.partition("=")[0] not in OWN])
    with doing(f"planning {study.name}"):
        planned = plan_study(study, clips)
    estimator = Estimator(machine, clips)
    rows: list[Row] = []
    with Progress("composing", Console(stderr=True)) as progress:
        for expected in planned.runs:
            progress.update(len(rows), len(planned.runs), expected.spec.name)
            rows.append(estimator.row(expected))
    total = totals(rows, planned, machine, devices)
    notes = [*clips.notes, *planned.notes, *estimator.notes]
    if "--json" in argv:
        print(json.dumps(as_json(rows, total, planned, machine.name, notes), indent=1))
    else:
        show(rows, total, planned, machine.name, notes)
    return 0


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"devices={text}: must be a whole number of at least 1. Use 8.")
    return int(text)


def _clip(text: str) -> tuple[int, int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    size = tuple(int(part) for part in found.groups()) if found else ()
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"clip={text}: must be FRAMESxHEIGHTxWIDTH. Use 33x240x416.")
    return size[0], size[1], size[2]


def show(
    rows: Sequence[Row], total: Totals, planned: Planned, machine: str, notes: Sequence[str]
) -> None:
    """Print the table, its totals, and what to know before it starts."""
    console = Console(soft_wrap=True, highlight=False)
    # A pipe has no width of its own: lines are then as long as the table needs.
    wide = Console(width=max(console.width, 150), highlight=False)
    wide.print(_table(rows, total.currency), markup=False)
    for line in [*_totals(total, planned, machine), *_passes(rows), "", *notes]:
        console.print(line, markup=False)
    if found := gathered(doubts(rows, total)):
        console.print("\nWarnings (one a kind; --json has all)", markup=False)
        for doubt in found:
            console.print(f"  - {said(doubt)}", markup=False)


def _table(rows: Sequence[Row], currency: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    for name in (
        "state", "width x depth", "params", "tokens", "FLOPs", "steps", "batch", "lr", "time",
        currency,
    ):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        state = f"{100 * row.done:.0f} %" if row.state == "partial" else row.state
        table.add_row(
            row.name, state, f"{row.width} x {row.depth}" if row.width else UNKNOWN,
            f"{row.params:.4g}", _figure(row.tokens), _figure(row.flops), str(row.steps),
            str(row.batch_tokens), f"{row.lr:.3g}", clock(row.seconds), _money(row.money),
        )  # fmt: skip
    return table


def _totals(total: Totals, planned: Planned, machine: str) -> list[str]:
    lines = [
        f"{planned.folder}: {counted(total.runs, 'run')} ({total.finished} finished, "
        f"{total.partial} partial, {total.missing} missing), {_figure(total.flops)} FLOPs, up to "
        f"{total.params_largest:.3g} parameters",
    ]
    where = f"On {counted(total.devices, 'device')} of {machine}"
    if total.seconds is None:
        lines.append(f"{where}: the time of such runs is not modelled")
    else:
        lines.append(
            f"{where}: {clock(total.seconds)} of training, {_figure(total.device_hours)} "
            f"device-hours, {_money(total.money)} {total.currency}"
        )
    if total.seconds is not None and total.finished + total.partial:
        lines.append(
            f"Still to do: {clock(total.seconds_left)}, {_figure(total.device_hours_left)} "
            f"device-hours, {_money(total.money_left)} {total.currency}"
        )
    lines.append(
        f"Disk: {total.disk_bytes / 1e9:.3g} GB in checkpoints and logs; "
        f"{total.disk_free_bytes / 1e9:.3g} GB are free"
    )
    return lines


def _passes(rows: Sequence[Row]) -> list[str]:
    """Say how often runs meet their clips, where the data set is at hand."""
    found = [row.passes for row in rows if row.passes is not None]
    if not found:
        return []
    least, most = map(shown_times, (min(found), max(found)))
    return [f"Clips: a run meets each of its own {least} to {most} times"]


def clock(seconds: float | None) -> str:
    """Return a time in the unit that suits it."""
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{seconds:.1f} s"
    if seconds < 48 * 3600:
        return format_clock(seconds)
    return f"{seconds / 86400:.1f} d"


def _figure(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g}"


def _money(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
