"""A study's state as a table for a terminal, as lines for a log, as a page."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from data.files import write_text
from data.words import counted
from launch.local.progress import format_clock
from sweeps.watch.state import Best, RunState, State, StudyState

# What somebody looks for comes first when not all runs fit.
ORDER = [
    State.ended, State.quiet, State.running, State.starting, State.finished, State.waiting,
]  # fmt: skip
STYLES = {
    State.running: "bold", State.quiet: "yellow", State.ended: "bold red", State.waiting: "dim",
    State.starting: "dim",
}  # fmt: skip


def summary(state: StudyState) -> str:
    """Return one line: how far, how many runs in which state, how long still."""
    counts = ", ".join(f"{number} {name}" for name, number in state.counts.items() if number)
    eta = "" if state.over else f", ETA {format_clock(state.eta_seconds)}"
    return (
        f"{100 * state.fraction:.0f} % of the {unit(state)}, {counted(len(state.runs), 'run')}: "
        f"{counts}{eta}"
    )


def unit(state: StudyState) -> str:
    """Return what a study's budgets count, in words."""
    return "FLOPs" if state.unit == "flops" else state.unit


def terminal(state: StudyState, height: int | None = None) -> Group:
    """Return the tables for a terminal; the idlest runs are cut where its height asks for it."""
    best = _best(state.best, unit(state))
    runs = state.runs
    room = None if height is None else max(height - len(state.best) - 12, 3)
    hidden = 0
    if room is not None and len(runs) > room:
        hidden = len(runs) - room
        runs = sorted(runs, key=lambda r: ORDER.index(r.state))[:room]
    parts: list[RenderableType] = [Text(f"{state.folder}: {summary(state)}"), _runs(runs)]
    if hidden:
        parts.append(Text(f"... and {hidden} more runs (--once shows all)", style="dim"))
    return Group(*parts, *([best] if state.best else []))


def _runs(runs: list[RunState]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    for name in ("state", "step", "done", "loss", "train", "tokens/s", "ETA", "tries"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(*map(Text, cells(run)), style=STYLES.get(run.state, ""))
    return table


def cells(run: RunState) -> list[str]:
    """Return a run's cells: name, state, step, done, losses, speed, ETA, attempts."""
    state = run.state.value
    if run.state is State.quiet:
        state = f"quiet {format_clock(run.idle_seconds)}"
    if run.state is State.ended:
        state = run.reason
    return [
        run.name, state, str(run.step or ""), share(run.fraction), number(run.loss, 5),
        number(run.train_loss, 4), number(run.tokens_per_second, 4),
        format_clock(run.eta_seconds) if run.eta_seconds is not None else "",
        str(run.attempts or ""),
    ]  # fmt: skip


def _best(best: list[Best], unit: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in (unit, "finished", "best loss", "params", "run"):
        table.add_column(name, justify="left" if name == "run" else "right", no_wrap=True)
    for row in best:
        table.add_row(*map(Text, best_cells(row)))
    return table


def best_cells(row: Best) -> list[str]:
    """Return a budget's cells: FLOPs, finished runs, best loss, its parameters and run."""
    done = f"{row.finished} of {row.runs}"
    return [f"{row.budget:.3g}", done, number(row.loss, 5), number(row.params, 4), row.name]


def share(value: float | None) -> str:
    """Return per cent, or nothing where it is unknown."""
    return "" if value is None else f"{100 * value:.0f} %"


def number(value: float | None, digits: int) -> str:
    """Return a number, or nothing where it is unknown."""
    return "" if value is None else f"{value:.{digits}g}"


def changes(before: Mapping[str, State], state: StudyState) -> list[str]:
    """Return one line for each run whose state is not what it was."""
    lines = []
    for run in state.runs:
        if before.get(run.folder, State.waiting) is run.state:
            continue
        loss = f", loss {number(run.loss, 5)}" if run.loss is not None else ""
        reason = f" ({run.reason})" if run.reason else ""
        lines.append(f"{run.name}: {run.state.value}{reason} at step {run.step}{loss}")
    return lines


def write_page(path: Path, state: StudyState, seconds: float) -> None:
    """Write a page that a browser loads again every `seconds`; all text in it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template("watch.html").render(
        folder=state.folder,
        summary=summary(state),
        unit=unit(state),
        seconds=max(1, round(seconds)) if not state.over else 0,
        percent=round(100 * state.fraction, 1),
        runs=[(run.state.value, run.fraction or 0.0, cells(run)) for run in state.runs],
        best=[best_cells(row) for row in state.best],
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
    )
    write_text(path, text, synced=False)
