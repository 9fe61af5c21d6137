"""Show what runs are doing: of one run, a study, or a folder of runs.

usage: kinescale status FOLDER [FOLDER ...] [--json] [--watch] [lost=true]
                               [machine=h100] [price=2.5]

examples:
  kinescale status runs/demo
  kinescale status runs/smoke-1a2b3c4d5e --json
  kinescale status runs/demo --watch machine=h100
  kinescale status runs/demo price=2.50 lost=true

Reads folders and, where there are, SLURM's queue and its accounting (which tells how a run ended
that left no word); needs neither and changes nothing.
s/step, tokens/s, TFLOP/s and MFU are of the last window of metrics.jsonl, not since the start; a
step of 1.5 times the usual or more says so.
machine: one that launch/conf/machine describes; it gives MFU (model FLOPs over what the devices can
do at most; without it log.device_teraflops of the run does) and, where none is given, the price.
price: of one process an hour. lost=true: seconds
lost by cause instead of the speed. goodput is useful step time over wall time since the submission
(launch/run_folder/goodput.py).
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.shell import command
from data.words import counted

if TYPE_CHECKING:
    from launch.planner.machine import MachineConfig
    from launch.slurm.commands import QueueEntry
    from launch.state import RunState

_WATCH_SECONDS = 5.0
_STATES = (
    "running", "waiting", "done", "stalled", "failed", "diverged", "cancelled", "held", "stopped",
    "new",
)  # fmt: skip


def read_states(
    folders: Sequence[Path], price: float, machine: "MachineConfig | None" = None
) -> "list[RunState]":
    """Return the state of every run in the folders; see state.py on price and machine."""
    from launch.run_folder.records import SUBMISSION_FILE
    from launch.run_folder.runs import find_runs
    from launch.slurm.accounting import past_jobs
    from launch.slurm.submit import entry_of
    from launch.state import state_of

    runs = [run for folder in folders for run in find_runs(folder)]
    # A queue is asked, and missed, only for what was submitted to one.
    submitted = any(os.path.exists(run.path / SUBMISSION_FILE) for run in runs)
    entries = read_queue() if submitted else None
    gone = [r.path for r in runs if not r.is_done and not entry_of(r.path, entries or [])]
    past = past_jobs(gone) or {}
    return [state_of(r, entries, price, machine=machine, past=past.get(r.path)) for r in runs]


def read_queue() -> "list[QueueEntry] | None":
    """Return the queue, or None where there is none or it does not answer (then a line says so)."""
    from launch.slurm.commands import SlurmError, queue

    if shutil.which("squeue") is None:
        return None
    try:
        return queue(tries=1)
    except SlurmError as error:
        print(f"warning: the queue is not known: {error}", file=sys.stderr)
        return None


def format_table(states: "Sequence[RunState]", lost: bool = False) -> str:
    """Return a table with one line a run, and a line that counts the states."""
    columns = _COLUMNS["lost" if lost else "speed"]
    rows = [[name for name, _ in columns]]
    rows += [[printable(show(state)) for _, show in columns] for state in states]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    counts = [(name, sum(s.state == name for s in states)) for name in _STATES]
    hours = sum(state.device_hours for state in states)
    summary = ", ".join(f"{count} {name}" for name, count in counts if count)
    costs = [s.cost for s in states if s.cost is not None]
    cost = f", cost {sum(costs):.2f}" if costs else ""
    total = f"{counted(len(states), 'run')}: {summary}; {hours:.2f} device hours{cost}"
    return "\n".join([*lines, "", total])


def _clock(seconds: float | None) -> str:
    from launch.local.progress import format_clock

    return "" if seconds is None else format_clock(seconds)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _seconds(cause: str) -> "Callable[[RunState], str]":
    return lambda state: _number(state.lost_seconds.get(cause), ".0f")


def _step_seconds(state: "RunState") -> str:
    shown = _number(state.step_seconds, ".3g")
    return shown if state.times_slower is None else f"{shown} ({state.times_slower:.1f}x usual)"


_FIRST: "list[tuple[str, Callable[[RunState], str]]]" = [
    ("run", lambda s: s.name),
    ("state", lambda s: s.state),
    ("step", lambda s: f"{s.step}/{s.steps}" if s.steps else str(s.step)),
    ("loss", lambda s: _number(s.loss, ".4f" if abs(s.loss or 0) < 1e6 else ".3e")),
]
_LAST: "list[tuple[str, Callable[[RunState], str]]]" = [
    ("goodput", lambda s: _number(s.goodput, ".1%")),
    ("attempts", lambda s: str(s.attempts)),
    ("hours", lambda s: f"{s.device_hours:.2f}"),
    ("cost", lambda s: _number(s.cost, ".2f")),
    ("job", lambda s: s.job),
    ("node", lambda s: s.nodes),
    ("note", lambda s: s.reason),
]
_COLUMNS: "dict[str, list[tuple[str, Callable[[RunState], str]]]]" = {
    "speed": [
        *_FIRST,
        ("s/step", _step_seconds),
        ("tokens/s", lambda s: _number(s.tokens_per_second, ".0f")),
        ("TFLOP/s", lambda s: _number(s.teraflops_per_second, ".3g")),
        ("MFU", lambda s: _number(s.mfu, ".1%")),
        ("ETA", lambda s: _clock(s.eta_seconds)),
        *_LAST,
    ],
    "lost": [
        *_FIRST,
        *((f"{c} s", _seconds(c)) for c in
          ("queue", "requeue", "detect", "start", "load", "save", "repeat", "end")),
        *_LAST,
    ],
}  # fmt: skip


def printable(text: str) -> str:
    """Return a text without what moves a terminal's cursor or ends a line."""
    return "".join(c if c.isprintable() else "?" for c in text)


@command(__doc__, prints_only=True)
def main(argv: list[str]) -> int:
    """Parse the command line and print."""
    from launch.run_folder.runs import split_folders

    try:
        folders, settings = split_folders(argv, "json watch machine price lost")
        if not folders:
            raise ValueError("folder: must be given. Use for example runs/demo.")
        machine = _machine(settings.get("machine", ""))
        price = _price(settings.get("price", "0"))
        if machine is not None and "price" not in settings:
            price = machine.price.per_device_hour
        while True:
            states = read_states(folders, price, machine)
            if settings.get("json") == "true":
                rows = [state.to_dict() for state in states]
                print(json.dumps(rows, indent=1, allow_nan=False))
            else:
                text = format_table(states, settings.get("lost") == "true")
                clear = "\x1b[H\x1b[2J" if settings.get("watch") and sys.stdout.isatty() else ""
                print(clear + text, flush=True)
            if settings.get("watch") != "true":
                return 0
            time.sleep(_WATCH_SECONDS)
    except KeyboardInterrupt:  # how watching ends
        return 0


def _machine(name: str) -> "MachineConfig | None":
    from launch.planner.machine import load_machine

    return load_machine(name) if name else None


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < float("inf"):
        raise ValueError(f"price={text}: must be a number of 0 or more. Use for example 2.5.")
    return price


if __name__ == "__main__":
    main.run()
